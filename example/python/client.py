#!/usr/bin/env python3
"""A small client of the client protocol: it uses nothing but what docs/protocol.md says.

    python3 client.py URL CHANNEL [TOKEN]

prints what is published on a channel, each message as a line of JSON, and publishes
each line that it reads. With example/server, the URL is
ws://127.0.0.1:8080/connection/websocket. It needs the package websockets (on Debian,
python3-websockets).
"""

import asyncio
import json
import random
import secrets
import sys

import websockets

PATIENCE = 10  # seconds to wait for the server
RESUBSCRIBE = 2500  # the first of the codes after which one subscribes again


class Refused(Exception):
    """The server does not want this client back."""


class Failed(Exception):
    """A command has failed."""

    def __init__(self, error):
        super().__init__(f"{error['message']} ({error['code']})")
        self.code = error["code"]
        self.temporary = error.get("temporary", False)


class Client:
    """A connection that comes back, with its subscriptions and without losing messages.

    Its methods belong to one event loop. Handlers are called in the order of what they
    are told, and must not wait.
    """

    def __init__(self, url, token=""):
        self.url, self.token = url, token
        self._handlers = {}  # channel → on_publication, on_missed, on_end
        self._positions = {}  # channel → {"epoch", "offset"}, if it is recoverable
        self._asked = {}  # id → kind of the command, and what takes the reply
        self._id = 0
        self._lines = []  # for the next message
        self._socket = None
        self._online = asyncio.Event()

    def subscribe(self, channel, on_publication, on_missed=lambda: None, on_end=lambda why: None):
        """Subscribe. If messages were missed, on_missed is called in their place."""
        self._handlers[channel] = on_publication, on_missed, on_end
        if self._online.is_set():
            self._subscribe(channel)
            asyncio.ensure_future(self._flush())

    async def publish(self, channel, body, header="message"):
        """Publish. On a channel with history, that is once, whatever breaks meanwhile."""
        message = {"channel": channel, "header": header, "body": body}
        keyed = channel in self._positions
        if keyed:
            message["key"] = secrets.token_hex(16)
        while True:
            await self._online.wait()
            try:
                return await self.call("publish", message)
            except ConnectionError:  # nobody knows whether it was published
                if not keyed:
                    raise
            except Failed as e:
                if not (keyed and e.temporary):
                    raise
                await asyncio.sleep(1)

    async def call(self, method, data):
        """Call a method of the server, and return what it answers."""
        answer = asyncio.get_running_loop().create_future()

        def replied(result, error):
            if answer.done():
                return
            if error is None:
                answer.set_result(result.get("data"))
            else:
                answer.set_exception(error)

        self._ask("rpc", {"method": method, "data": data}, replied)
        await self._flush()
        return await answer

    async def run(self):
        """Stay connected until the server refuses this client."""
        wait = 0.5
        while True:
            began = asyncio.get_running_loop().time()
            try:
                async with websockets.connect(self.url, ping_interval=None, max_size=None) as socket:
                    await self._talk(socket)
            except websockets.ConnectionClosed as e:
                if e.rcvd and (3500 <= e.rcvd.code < 4000 or 4500 <= e.rcvd.code < 5000):
                    raise Refused(f"{e.rcvd.reason} ({e.rcvd.code})") from None
            except (OSError, asyncio.TimeoutError, websockets.InvalidHandshake):
                pass
            finally:
                self._lost()
            if asyncio.get_running_loop().time() - began > PATIENCE:
                wait = 0.5
            await asyncio.sleep(wait * random.uniform(1, 2))
            wait = min(2 * wait, 20)

    async def _talk(self, socket):
        """Take what comes until the connection ends."""
        self._socket, self._silence = socket, PATIENCE
        self._ask("connect", {"token": self.token, "name": "python"}, self._connected)
        while True:
            await self._flush()
            message = await asyncio.wait_for(socket.recv(), self._silence)
            for line in message.split("\n"):
                self._received(json.loads(line))

    def _connected(self, result, error):
        if isinstance(error, Failed):
            raise ConnectionError(error) if error.temporary else Refused(error)
        if error:
            return
        self._silence = result.get("ping", 0) + PATIENCE
        self._online.set()
        for channel in self._handlers:
            self._subscribe(channel)

    def _subscribe(self, channel):
        on_publication, on_missed, on_end = self._handlers[channel]
        position = self._positions.get(channel)
        request = {"channel": channel}
        if position:
            request.update(position, recover=True)

        def subscribed(result, error):
            if isinstance(error, Failed) and error.temporary:
                raise ConnectionError(error)  # connect again, later
            if isinstance(error, Failed):
                self._handlers.pop(channel, None)
                on_end(error)
            if error:
                return
            if position and not result.get("recovered"):
                on_missed()
            for pub in result.get("publications", []):
                on_publication(pub)
            if result.get("recoverable"):
                self._positions[channel] = {"epoch": result.get("epoch", ""), "offset": result.get("offset", 0)}

        self._ask("subscribe", request, subscribed)

    def _received(self, reply):
        if not reply:  # a ping
            self._lines.append("{}")
        elif "push" in reply:
            self._pushed(**reply["push"])
        else:
            kind, replied = self._asked.pop(reply["id"])
            if "error" in reply:
                replied(None, Failed(reply["error"]))
            else:
                replied(reply.get(kind, {}), None)

    def _pushed(self, channel="", pub=None, unsubscribe=None, **_):
        if channel not in self._handlers:
            return
        on_publication, _, on_end = self._handlers[channel]
        if pub is not None:
            if channel in self._positions:
                self._positions[channel]["offset"] = pub["offset"]
            on_publication(pub)
        elif unsubscribe and unsubscribe["code"] >= RESUBSCRIBE:
            self._subscribe(channel)
        elif unsubscribe:
            del self._handlers[channel]
            on_end(unsubscribe["reason"])

    def _ask(self, kind, request, replied):
        """Have a command sent. replied(result, error) is called with its reply, or with a
        ConnectionError if the connection ends first."""
        self._id += 1
        self._asked[self._id] = kind, replied
        self._lines.append(json.dumps({"id": self._id, kind: request}))

    async def _flush(self):
        """Send what waits, as one message."""
        if self._lines and self._socket:
            lines, self._lines = self._lines, []
            try:
                await self._socket.send("\n".join(lines))
            except websockets.ConnectionClosed:
                pass  # _talk sees it

    def _lost(self):
        self._online.clear()
        self._socket = None
        asked, self._asked, self._lines = self._asked, {}, []
        for _, replied in asked.values():
            replied(None, ConnectionError("the connection has ended"))


async def main(url, channel, token=""):
    client = Client(url, token)

    def tell(**what):
        print(json.dumps(what, ensure_ascii=False), flush=True)

    client.subscribe(
        channel,
        lambda pub: tell(body=pub.get("data"), header=pub.get("tags", {}).get("header", "message"),
                         user=pub.get("info", {}).get("user")),
        lambda: tell(missed=True),
        lambda why: tell(ended=str(why)),
    )
    loop = asyncio.get_running_loop()
    stdin = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)

    async def publish():
        while line := await stdin.readline():
            await client.publish(channel, line.decode().rstrip("\n"))

    await asyncio.gather(client.run(), publish())


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 4:
        sys.exit(__doc__)
    try:
        asyncio.run(main(*sys.argv[1:]))
    except Refused as e:
        sys.exit(f"refused: {e}")
    except KeyboardInterrupt:
        pass
