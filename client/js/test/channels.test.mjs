// The tests of channels.js. The environment has the path of the module as pages get it.
import test from "node:test";
import assert from "node:assert/strict";
import { clock, Hub, luck, page, settled } from "./world.mjs";

const { connect } = await import(process.env.MODULE ?? "../channels.js");

// open connects to a hub. The client has to leave nothing behind.
function open(t, hub, options) {
  luck.value = 0.5;
  const c = connect({ url: "/rt", WebSocket: hub.WebSocket, fetch: hub.fetch, ...options });
  c.states = [];
  c.on("state", (state, why) => c.states.push(why && state !== "connecting" ? `${state} ${why.code}` : state));
  t.after(async () => {
    c.close();
    await settled();
    assert.equal(clock.timers.size, 0, "timers");
    assert.equal(page.listeners, 0, "listeners");
    assert.ok([...hub.sockets, ...hub.posts].every((s) => s.state === "closed"), "sockets");
  });
  return c;
}

// heard collects the bodies that a channel hears.
function heard(room) {
  const all = [];
  room.on("message", (m) => all.push(m.body));
  return all;
}

const fails = (promise, code) => assert.rejects(promise, (e) => e.name === "ChannelsError" && e.code === code);

test("subscribes to all in one frame, and publishes with an answer", async (t) => {
  const hub = new Hub(), c = open(t, hub);
  const one = heard(c.channel("h1")), two = heard(c.channel("plain"));
  const published = c.publish("h1", "say", { text: "안녕 🙂" });
  await settled();
  assert.equal(hub.last.url, "ws://app.example/rt/connection/websocket?lines=many");
  assert.deepEqual(c.states, ["connecting", "live"]);
  assert.equal(hub.last.said.length, 2, "connect, and then the rest");
  assert.deepEqual(await published, { offset: 1, epoch: "e1" });
  await c.publish("plain", "say", 1);
  await settled();
  assert.deepEqual([one, two], [[{ text: "안녕 🙂" }], [1]]);
});

test("messages say what there is to know", async (t) => {
  const hub = new Hub(), c = open(t, hub), all = [];
  c.channel("h1").on("message", (m) => all.push(m));
  c.channel("p*").on("message", (m) => all.push(m));
  await settled();
  const info = { user: "ann", client: "x", conn_info: { name: "Ann" } };
  hub.last.push({ push: { channel: "h1", pub: { data: 1, offset: 1, time: 5, info } } }, { push: { channel: "p*", pub: { data: 2, tags: { channel: "p1", header: "say" } } } });
  hub.last.push({ push: { channel: "h1", new: {} } }, { push: { channel: "else", pub: { data: 3 } } }, { push: { message: {} } }); // of later versions
  assert.deepEqual(all, [
    { channel: "h1", header: "message", body: 1, time: 5, offset: 1, epoch: "e1", user: "ann", client: "x", info: { name: "Ann" } },
    { channel: "p1", header: "say", body: 2, time: undefined, offset: undefined, epoch: undefined },
  ]);
  assert.equal(c.state, "live");
});

test("comes back at once, and then later and later", async (t) => {
  const hub = new Hub(), c = open(t, hub, { transport: "websocket" });
  await clock.advance(11_000);
  hub.mode = "refuses";
  luck.value = 1;
  hub.last.drop(1006);
  await clock.advance(95_000);
  const tried = hub.sockets.slice(1).map((s) => s.at);
  const waits = tried.slice(1).map((at, i) => (at - tried[i]) / 1000);
  assert.deepEqual(waits, [1, 2, 4, 8, 16, 20, 20, 20]);
  hub.mode = "well";
  await clock.advance(35_000);
  hub.last.drop(1006);
  await clock.advance(0);
  assert.equal(c.state, "live", "at once, after a connection that has lasted");
});

test("goes on where it was, and resets where it cannot", async (t) => {
  const hub = new Hub(), c = open(t, hub), resets = [];
  const rooms = ["h1", "h2", "h3", "plain"].map((name) => c.channel(name));
  const all = rooms.map(heard);
  for (const r of rooms) r.on("reset", ({ channel, reason, offset }) => resets.push([channel, reason, offset]));
  await settled();
  for (const r of rooms) hub.say(r.name, 1);
  await clock.advance(11_000);
  hub.mode = "refuses";
  hub.last.drop(1006);
  for (const r of rooms) for (const n of [2, 3]) hub.say(r.name, n);
  hub.channel("h2").first = 3; // what was missed first is gone
  hub.channels.h3 = { epoch: "e2", messages: [], first: 1 };
  hub.mode = "well";
  await clock.advance(3000);
  for (const r of rooms) hub.say(r.name, 4);
  await settled();
  assert.deepEqual(all, [[1, 2, 3, 4], [1, 4], [1, 4], [1, 4]]);
  assert.deepEqual(resets, [["h2", "trimmed", 3], ["h3", "epoch", 0], ["plain", "no_history", undefined]]);
});

test("a message that stays on its replica moves no position", async (t) => {
  const hub = new Hub(), c = open(t, hub), all = heard(c.channel("h1"));
  await clock.advance(11_000);
  hub.say("h1", 1);
  hub.last.push({ push: { channel: "h1", pub: { data: "local" } } });
  hub.last.drop(1006);
  hub.say("h1", 2);
  await clock.advance(1_000);
  assert.deepEqual(all, [1, "local", 2]);
});

test("stays away after some codes, and comes back after others", async (t) => {
  for (const [code, comes] of [[3500, false], [3503, false], [4500, false], [1006, true], [3001, true], [3499, true], [4000, true], [1009, true]]) {
    const hub = new Hub(), c = open(t, hub);
    const loop = (async () => { for await (const m of c.channel("h1")); })();
    const ended = comes ? null : fails(loop, code);
    await clock.advance(11_000);
    hub.last.drop(code, "why");
    await clock.advance(3000);
    assert.equal(c.state, comes ? "live" : "closed", String(code));
    await ended;
    if (!comes) await fails(c.publish("h1", "x"), "closed");
    c.close();
    if (comes) await loop;
  }
});

test("a publish whose answer is lost is repeated with its key", async (t) => {
  const hub = new Hub(), c = open(t, hub);
  await clock.advance(11_000);
  hub.answer = (cmd, link) => cmd.rpc ? (hub.reply(cmd, link), link.drop(1006), null) : undefined; // published, but no answer
  const first = c.publish("h1", "x", 1);
  await settled();
  const second = c.publish("h1", "x", 2); // while it connects
  hub.answer = () => {};
  await clock.advance(3000);
  assert.deepEqual(await first, { offset: 1, epoch: "e1", duplicate: true });
  assert.deepEqual(await second, { offset: 2, epoch: "e1" });
  assert.deepEqual(hub.channel("h1").messages.map((m) => m.data), [1, 2]);
});

test("a page's own key publishes once, also after a reload", async (t) => {
  const hub = new Hub(), c = open(t, hub);
  const first = c.channel("h1").publish("x", 1, { key: "k" });
  await fails(c.publish("h1", "x", 1, { key: "k" }), "key"); // it waits
  await settled();
  assert.deepEqual(await first, { offset: 1, epoch: "e1" });
  c.close();
  const again = open(t, hub), later = again.publish("h1", "x", 1, { key: "k" });
  await settled();
  assert.deepEqual(await later, { offset: 1, epoch: "e1", duplicate: true });
  again.close();
  assert.deepEqual(hub.channel("h1").messages.map((m) => m.data), [1]);
});

test("begins after a position that is text, or a message", async (t) => {
  const hub = new Hub(), c = open(t, hub);
  for (const n of [1, 2, 3]) hub.say("h1", n);
  const all = heard(c.channel("h1", { since: "e1:1" }));
  await settled();
  assert.deepEqual(all, [2, 3]);
  const [newest] = await c.channel("h1").history({ since: "e1:2" });
  const more = heard(c.channel("h1", { since: newest }));
  hub.say("h1", 4);
  await settled();
  assert.deepEqual([newest.body, more], [3, [4]]);
});

test("a publish is not repeated where that could double it", async (t) => {
  const hub = new Hub(), c = open(t, hub);
  await clock.advance(11_000);
  await c.publish("plain", "x", 1); // finds out that there is no history
  hub.answer = (cmd, link) => cmd.rpc ? (link.drop(1006), null) : undefined;
  const plain = c.publish("plain", "x", 2);
  await fails(plain, "lost");
  await clock.advance(11_000);
  const old = fails(c.publish("h1", "x", 3), "lost");
  hub.mode = hub.streams = "refuses";
  await clock.advance(250_000); // for which the server does not know the key
  const waits = c.publish("plain", "x", 4); // it was never sent, so it may wait for ever
  await clock.advance(3_600_000);
  hub.mode = hub.streams = "well";
  hub.answer = () => {};
  await clock.advance(60_000);
  await old;
  assert.deepEqual(await waits, {});
});

test("a publish that is refused for a moment is repeated, and another is not", async (t) => {
  const hub = new Hub(), c = open(t, hub);
  let left = 2;
  hub.answer = (cmd) => {
    if (!cmd.rpc) return;
    if (cmd.rpc.data.channel === "hno") return { error: { code: 103, message: "forbidden" } };
    if (left-- > 0) return { error: { code: 100, message: "later", temporary: true } };
  };
  const refused = c.publish("hno", "x");
  const later = c.publish("h1", "x", 1);
  await fails(refused, 103);
  await clock.advance(60_000);
  assert.deepEqual(await later, { offset: 1, epoch: "e1" });
  left = 100;
  const never = fails(c.publish("h1", "x", 2), 100);
  await clock.advance(120_000);
  await never;
});

test("the queue is bounded, and close rejects it", async (t) => {
  const hub = new Hub(), c = open(t, hub, { maxQueued: 3 });
  hub.mode = hub.streams = "refuses";
  const all = [1, 2, 3].map((n) => fails(c.publish("h1", "x", n), "closed"));
  await fails(c.publish("h1", "x", 4), "full");
  const call = fails(c.call("m"), "closed");
  await settled();
  c.close();
  await Promise.all([...all, call]);
  const big = connect({ url: "/", WebSocket: hub.WebSocket });
  const some = Array.from({ length: 8 }, () => fails(big.publish("h1", "x", "x".repeat(1_000_000)), "closed"));
  await fails(big.publish("h1", "x", "x".repeat(1_000_000)), "full");
  big.close();
  await Promise.all(some);
});

test("many messages are sent in frames of a bounded size", async (t) => {
  const hub = new Hub(), c = open(t, hub);
  const all = Array.from({ length: 1200 }, (_, i) => c.publish("h1", "x", i));
  const large = ["a", "b", "c"].map((x) => c.publish("h1", "x", x.repeat(100_000)));
  await settled();
  assert.deepEqual((await Promise.all([...all, ...large])).map((r) => r.offset), Array.from({ length: 1203 }, (_, i) => i + 1), "in order");
  assert.ok(hub.last.said.every((f) => f.split("\n").length <= 500 && f.length < 200_000));
  assert.ok(hub.last.said.length < 10);
});

test("notices within two ping periods that the link is dead", async (t) => {
  const hub = new Hub(), c = open(t, hub);
  await clock.advance(20_000);
  hub.last.push({});
  await settled();
  assert.equal(hub.last.said.at(-1), "{}", "it answers a ping");
  await clock.advance(34_000);
  assert.equal(c.state, "live");
  await clock.advance(2_000);
  assert.deepEqual(c.states.slice(2), ["offline lost", "connecting", "live"]);
});

test("looks after the link when the page wakes", async (t) => {
  const hub = new Hub(), c = open(t, hub);
  for (const [type, more] of [["online"], ["visibilitychange"], ["resume"], ["pageshow", { persisted: true }]]) {
    await clock.advance(11_000);
    const before = hub.sockets.length;
    page.fire(type, more);
    await clock.advance(4_000);
    assert.equal(hub.sockets.length, before, `the link works (${type})`);
    hub.answer = () => null;
    page.fire(type, more);
    await settled();
    hub.answer = () => {};
    await clock.advance(2_900);
    assert.equal(hub.sockets.length, before);
    await clock.advance(200);
    assert.equal(hub.sockets.length, before + 1, `it does not (${type})`);
  }
  await clock.advance(11_000);
  hub.mode = hub.streams = "refuses";
  hub.last.drop(1006);
  luck.value = 1;
  await clock.advance(60_000);
  assert.equal(c.state, "offline");
  hub.mode = "well";
  page.fire("online");
  await clock.advance(0);
  assert.equal(c.state, "live");
});

test("a timer that is late is no proof that the link is dead", async (t) => {
  const hub = new Hub(), c = open(t, hub), all = heard(c.channel("h1"));
  await settled();
  clock.now += 600_000; // the page was frozen
  await clock.advance(0);
  hub.say("h1", 1); // what had come is handled after the timer
  await clock.advance(4_000);
  assert.deepEqual([c.states, all], [["connecting", "live"], [1]]);
});

test("holds no connection while the browser keeps the page for its Back button", async (t) => {
  const hub = new Hub(), c = open(t, hub), all = heard(c.channel("h1"));
  await settled();
  page.fire("pagehide", { persisted: false });
  assert.equal(c.state, "live");
  page.fire("pagehide", { persisted: true });
  assert.equal(hub.last.state, "closed");
  assert.equal(clock.timers.size, 0, "it tries nothing");
  hub.say("h1", 1);
  page.fire("pageshow", { persisted: true });
  await settled();
  assert.deepEqual([c.state, all], ["live", [1]]);
});

test("asks for tokens when it has to", async (t) => {
  const hub = new Hub(), tokens = [];
  const c = open(t, hub, { token: async () => (tokens.push(clock.now), "t" + tokens.length) });
  hub.answer = (cmd) => {
    if (cmd.connect?.token === "t1") return { error: { code: 109, message: "expired" } };
    if (cmd.connect) return { connect: { client: "c", ping: 1000, expires: true, ttl: 600 } };
  };
  await clock.advance(11_000);
  assert.deepEqual(hub.asked("connect").map((r) => r.token), ["t1", "t2"]);
  hub.last.drop(1006);
  await clock.advance(11_000);
  assert.equal(hub.asked("connect").at(-1).token, "t2", "it is still good");
  await clock.advance(590_000);
  assert.equal(hub.asked("refresh")[0].token, "t3");
  hub.last.drop(3005);
  await clock.advance(1_000);
  assert.equal(hub.asked("connect").at(-1).token, "t4", "the server says that it has ended");
});

test("survives a token function that throws, hangs or has nothing", async (t) => {
  const hub = new Hub();
  const turns = [() => { throw new Error("no"); }, () => Promise.reject(), () => new Promise(() => {}), () => ""];
  const c = open(t, hub, { token: () => turns.shift()() });
  await clock.advance(30_000);
  assert.deepEqual(c.states, ["connecting", "offline token", "connecting", "offline token", "connecting", "offline token", "connecting", "live"]);
  assert.equal(hub.asked("connect")[0].token, undefined);
});

test("a string that has expired closes it", async (t) => {
  const hub = new Hub(), c = open(t, hub, { token: "old" });
  hub.answer = (cmd) => cmd.connect && { error: { code: 109, message: "expired" } };
  await clock.advance(1_000);
  assert.deepEqual(c.states, ["connecting", "closed 109"]);
});

test("a listener that throws is reported, and hurts nobody", async (t) => {
  const hub = new Hub(), c = open(t, hub), room = c.channel("h1");
  page.reported.length = 0;
  room.on("message", () => { throw new Error("mine"); });
  const all = heard(room);
  c.on("state", () => { throw new Error("also mine"); });
  await settled();
  hub.say("h1", 1);
  hub.say("h1", 2);
  assert.deepEqual([all, c.state], [[1, 2], "live"]);
  assert.deepEqual(page.reported, ["also mine", "also mine", "mine", "mine"]);
});

test("a line that is broken ends the connection, and no more", async (t) => {
  const hub = new Hub(), c = open(t, hub), all = heard(c.channel("h1"));
  await clock.advance(11_000);
  hub.last.push("{");
  await clock.advance(1_000);
  hub.say("h1", 1);
  assert.deepEqual([all, c.state], [[1], "live"]);
});

test("iterates, and close ends the loop", async (t) => {
  const hub = new Hub(), c = open(t, hub), room = c.channel("h1", { last: 2 }), all = [];
  for (const n of [1, 2, 3]) hub.say("h1", n);
  const loop = (async () => { for await (const m of room) all.push(m.body); })();
  await settled();
  hub.say("h1", 4);
  await settled();
  assert.deepEqual(all, [2, 3, 4]);
  room.close();
  await loop;
  assert.equal(hub.last.subs.size, 0);
});

test("a loop that is slow keeps a bounded part, and loses nothing", async (t) => {
  const hub = new Hub(), c = open(t, hub), resets = [];
  for (const [name, lossless] of [["h1", true], ["plain", false]]) {
    const room = c.channel(name), loop = room[Symbol.asyncIterator]();
    room.on("reset", ({ reason }) => resets.push(reason));
    await settled();
    const body = (n) => n + " ".repeat(1_000_000);
    for (let n = 0; n < 40; n++) hub.say(name, body(n));
    if (!lossless) {
      assert.deepEqual(resets, ["slow", "slow"]);
      assert.equal(parseInt((await loop.next()).value.body), 34);
    }
    for (let n = lossless ? 0 : 35; n < 40; n++) assert.equal(parseInt((await loop.next()).value.body), n);
    hub.say(name, "live");
    assert.equal((await loop.next()).value.body, "live");
    assert.equal(resets.length, lossless ? 0 : 2);
    room.close();
  }
});

test("channels of one name share a subscription", async (t) => {
  const hub = new Hub(), c = open(t, hub);
  for (const n of [1, 2, 3]) hub.say("h1", n);
  const rooms = [{ last: 1 }, { last: 3 }, {}, { since: { epoch: "e1", offset: 1 } }, { since: { epoch: "old", offset: 1 } }].map((o) => c.channel("h1", o));
  const all = rooms.map(heard), resets = [];
  for (const r of rooms) r.on("reset", ({ reason }) => resets.push(reason));
  await settled();
  hub.say("h1", 4);
  await settled();
  const late = heard(c.channel("h1", { last: 2 }));
  hub.say("h1", 5);
  await settled();
  hub.say("h1", 6);
  assert.deepEqual(all, [[3, 4, 5, 6], [1, 2, 3, 4, 5, 6], [4, 5, 6], [2, 3, 4, 5, 6], [4, 5, 6]]);
  assert.deepEqual([late, resets], [[4, 5, 6], ["trimmed"]]);
  assert.equal(hub.asked("subscribe").length, 1);
  for (const r of rooms) r.close();
  await settled();
  assert.equal(hub.asked("unsubscribe").length, 0);
});

test("it subscribes only if somebody listens", async (t) => {
  const hub = new Hub(), c = open(t, hub), room = c.channel("h1", { last: 5 });
  hub.say("h1", 1);
  await room.publish("x", 2);
  assert.deepEqual((await room.history({ limit: 5 })).map((m) => m.body), [1, 2]);
  assert.deepEqual((await room.history({ before: { epoch: "e1", offset: 2 } })).map((m) => m.body), [1]);
  assert.deepEqual((await room.history({ since: { epoch: "e1", offset: 1 } })).map((m) => m.body), [2]);
  assert.deepEqual(await room.members(), [{ id: "a", user: "ann", info: 1 }]);
  await assert.rejects(room.history({ since: { epoch: "old", offset: 1 } }), { code: 112 });
  assert.equal(hub.asked("subscribe").length, 0);
  const seen = [];
  room.on("presence", (e) => seen.push(e));
  await settled();
  hub.last.push({ push: { channel: "h1", join: { info: { client: "x", user: "bob" } } } });
  assert.deepEqual(seen, [{ channel: "h1", event: "join", member: { id: "x", user: "bob", info: undefined } }]);
  const all = heard(room); // the newest messages have not gone to nobody
  await settled();
  assert.deepEqual(all, [1, 2]);
});

test("it asks for presence also later, without a reset", async (t) => {
  const hub = new Hub(), c = open(t, hub), room = c.channel("plain"), resets = [];
  room.on("reset", (r) => resets.push(r));
  const all = heard(room);
  await settled();
  room.on("presence", () => {});
  await settled();
  hub.say("plain", 1);
  assert.deepEqual(hub.asked("subscribe").map((s) => s.join_leave), [false, true]);
  assert.deepEqual([all, resets], [[1], []]);
});

test("a refusal that passes is tried again, and another ends the channel", async (t) => {
  const hub = new Hub(), c = open(t, hub);
  const answers = { h1: [{ code: 100, message: "later", temporary: true }, { code: 111, message: "later", temporary: true }], h2: [{ code: 103, message: "forbidden" }] };
  hub.answer = (cmd) => {
    const error = cmd.subscribe && answers[cmd.subscribe.channel].shift();
    return error ? { error } : undefined;
  };
  const states = [];
  c.channel("h2").on("state", (state) => states.push(state));
  const first = heard(c.channel("h1"));
  const loop = (async () => { for await (const m of c.channel("h2")); })();
  await fails(loop, 103);
  await clock.advance(5_000);
  hub.say("h1", 1);
  assert.deepEqual(first, [1]);
  answers.h2 = [];
  assert.deepEqual(heard(c.channel("h2")), []); // it may be tried again
  await settled();
  assert.equal(hub.asked("subscribe").filter((s) => s.channel === "h2").length, 2);
});

test("a refusal that nobody would hear of is logged", async (t) => {
  const warned = t.mock.method(console, "warn", () => {}), hub = new Hub(), c = open(t, hub);
  hub.answer = (cmd) => cmd.subscribe && cmd.subscribe.channel !== "h1" ? { error: { code: 103, message: "it is not yours" } } : undefined;
  for (const name of ["mine", "told", "h1"]) c.channel(name).on("message", () => {});
  c.channel("told").on("state", () => {});
  const told = c.channel("told too");
  told.on("message", () => {});
  told.on("state", () => {});
  await fails((async () => { for await (const m of c.channel("loop")); })(), 103);
  await settled();
  c.close();
  assert.deepEqual(warned.mock.calls.map(({ arguments: [name, why] }) => `${name}: ${why.message}`), ["mine: it is not yours", "told: it is not yours"]);
});

test("a typo is an error at once", async (t) => {
  const c = open(t, new Hub());
  for (const wrong of [() => c.on("msg", () => {}), () => c.channel("h1").on("msg", () => {}), () => c.channel("h1", { history: 20 })]) assert.throws(wrong, TypeError);
  assert.throws(() => c.channel("h1", { history: 20 }), /history is none of last,since,token/);
});

test("a channel has tokens of its own", async (t) => {
  const hub = new Hub(), c = open(t, hub), asked = [];
  hub.answer = (cmd) => {
    if (cmd.subscribe?.token === "t1") return { error: { code: 109, message: "expired" } };
    if (cmd.subscribe) return { subscribe: { recoverable: true, epoch: "e1", expires: true, ttl: 10 } };
    if (cmd.sub_refresh?.token === "t3") return { error: { code: 109, message: "expired", temporary: true } };
    if (cmd.sub_refresh) return { sub_refresh: { expires: true, ttl: 1000 } };
  };
  const errors = [];
  c.on("error", (e) => errors.push(e.code));
  const room = c.channel("h1", { token: (name) => (asked.push(name), "t" + asked.length) });
  heard(room);
  await clock.advance(9_000);
  assert.deepEqual(hub.asked("subscribe").map((s) => s.token), ["t1", "t2"]);
  await clock.advance(10_000);
  assert.deepEqual(hub.asked("sub_refresh").map((s) => s.token), ["t3", "t4"]);
  assert.deepEqual(errors, [109]);
  hub.last.push({ push: { channel: "h1", unsubscribe: { code: 2501, reason: "expired" } } });
  await settled();
  await clock.advance(0);
  assert.equal(hub.asked("subscribe").at(-1).token, "t5");
  assert.equal(hub.asked("subscribe").at(-1).recover, true);
  hub.last.push({ push: { channel: "h1", unsubscribe: { code: 2000, reason: "ended" } } });
  assert.deepEqual([room.state, room.why.code], ["closed", 2000]);
});

test("hears what the app has subscribed it to", async (t) => {
  const hub = new Hub(), c = open(t, hub), events = [];
  for (const event of ["subscription", "message", "reset"]) c.on(event, (...a) => events.push(event === "subscription" ? a.slice(0, 2).join(" ") : `${event} ${a[0].body ?? a[0].reason}`));
  let answers = [{ inbox: { recoverable: true, epoch: "e1", offset: 3 } }, { inbox: { recoverable: true, epoch: "e1", offset: 5, recovered: true, publications: [{ data: "b", offset: 5 }] } }, { inbox: { recoverable: true, epoch: "e2" } }, {}];
  hub.answer = (cmd) => cmd.connect && { connect: { client: "c", ping: 25, subs: answers.shift() } };
  await clock.advance(11_000);
  hub.last.push({ push: { channel: "inbox", pub: { data: "a", offset: 4 } } });
  assert.deepEqual(hub.asked("connect")[0].subs, {});
  const own = heard(c.channel("inbox"));
  for (let i = 0; i < 3; i++) {
    hub.last.drop(1006);
    await clock.advance(11_000);
  }
  assert.deepEqual(hub.asked("connect")[1].subs, { inbox: { recover: true, epoch: "e1", offset: 4 } });
  assert.deepEqual(events, ["inbox live", "message a", "inbox live", "message b", "inbox live", "reset epoch"]);
  assert.deepEqual(own, ["b"]);
  assert.equal(hub.asked("subscribe")[0].channel, "inbox", "the app does not ask for it any more, but the page does");
});

test("what only reads is asked again after a cut, and a call is not", async (t) => {
  const hub = new Hub(), c = open(t, hub);
  await clock.advance(11_000);
  hub.say("h1", 1);
  hub.answer = () => null;
  const read = c.channel("h1").history(), call = fails(c.call("pay"), "lost");
  await settled();
  hub.answer = () => {};
  hub.last.drop(1006);
  await call;
  await clock.advance(1_000);
  assert.equal((await read).length, 1);
  assert.equal(hub.asked("rpc").length, 1);
  hub.answer = () => null;
  const slow = fails(c.call("slow"), "timeout");
  await clock.advance(10_001);
  await slow;
});

test("takes a stream where WebSockets are refused, and goes back", async (t) => {
  const hub = new Hub(), c = open(t, hub), all = heard(c.channel("h1"));
  hub.mode = "refuses";
  await clock.advance(100);
  assert.deepEqual([c.state, c.transport], ["live", "http_stream"]);
  await c.publish("h1", "x", 1);
  await settled();
  const pinging = async (ms) => { for (let n = 0; n < ms; n += 20_000) hub.posts.forEach((p) => p.state === "open" && p.push({})), await clock.advance(20_000); };
  await pinging(600_000);
  assert.equal(hub.posts.length, 1, "the stream is not disturbed");
  assert.equal(hub.sockets.length, 4, "after 0, 60, 180 and 420 s, and not so soon again");
  hub.mode = "silent";
  await pinging(600_000);
  assert.equal(hub.posts.length, 1);
  assert.equal(hub.last.state, "closed");
  hub.mode = "well";
  await pinging(2_000_000);
  assert.deepEqual([c.state, c.transport], ["live", "websocket"]);
  assert.equal(hub.posts[0].state, "closed");
  await c.publish("h1", "x", 2);
  await settled();
  assert.deepEqual(all, [1, 2]);
});

test("takes a stream where WebSockets stay silent, or keep breaking", async (t) => {
  for (const silent of [true, false]) {
    const hub = new Hub(), c = open(t, hub);
    if (silent) hub.mode = "silent";
    else hub.answer = (cmd, link) => void (cmd.connect && link instanceof hub.WebSocket && queueMicrotask(() => link.drop(1006)));
    await clock.advance(silent ? 5_100 : 20_000);
    assert.deepEqual([c.state, c.transport, hub.sockets.length], ["live", "http_stream", silent ? 1 : 3]);
    c.close();
  }
});

test("a stream that ends is taken again, until it is time for a WebSocket", async (t) => {
  const hub = new Hub(), c = open(t, hub);
  hub.mode = "refuses";
  await clock.advance(15_000);
  hub.posts[0].drop();
  await clock.advance(15_000);
  assert.deepEqual([c.state, hub.sockets.length, hub.posts.length], ["live", 1, 2]);
  hub.streams = 503; // and no WebSocket either
  hub.posts[1].drop();
  await clock.advance(6_900);
  assert.deepEqual(c.states.at(-1), "offline 503", "it waits as long as the server says");
  hub.streams = 403;
  await clock.advance(60_000);
  assert.deepEqual(c.states.at(-1), "closed 403");
});

test("handles much in pieces, in order, and the end last", async (t) => {
  const hub = new Hub(), c = open(t, hub, { transport: "websocket" }), all = [], turns = [];
  const room = c.channel("h1", { last: 1000 });
  room.on("message", (m) => {
    all.push(m.body);
    turns.push(clock.now);
    clock.now += 10; // what the page does with it
  });
  const bodies = Array.from({ length: 100 }, (_, i) => i);
  for (const n of bodies.slice(0, 50)) hub.say("h1", n);
  let breaths = 0;
  const breathe = () => { breaths++; if (all.length < 100) setImmediate(breathe); };
  setImmediate(breathe);
  await settled();
  hub.last.push(...bodies.slice(50).map((data, i) => ({ push: { channel: "h1", pub: { data, offset: 51 + i } } })));
  hub.last.drop(3503, "the end");
  assert.equal(c.state, "live");
  while (c.state === "live") await settled();
  assert.deepEqual(all, bodies);
  assert.equal(c.state, "closed");
  assert.ok(breaths >= 25, `the page got ${breaths} turns in between`);
});

test("close while everything is under way leaves nothing", async (t) => {
  for (const mode of ["well", "silent", "refuses"]) {
    for (const ms of [0, 1, 100, 6_000]) {
      const hub = new Hub();
      hub.mode = mode;
      const c = open(t, hub, { token: () => "t" }), room = c.channel("h1", { token: () => new Promise(() => {}), last: 3 });
      const loop = (async () => { for await (const m of room); })();
      const p = fails(c.publish("hx", "x"), mode === "well" && ms ? "never" : "closed").catch(() => {});
      await clock.advance(ms);
      c.close();
      await Promise.all([loop, p]);
      assert.equal(clock.timers.size, 0, `${mode} after ${ms} ms`);
    }
  }
});

// dice returns a function like Math.random whose results follow from a seed.
function dice(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let x = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

// story lets things happen at random, and then checks what the page has heard and said.
async function story(seed) {
  const random = dice(seed), n = (below) => Math.floor(random() * below), any = (...all) => all[n(all.length)];
  const hub = new Hub(), rooms = [], said = [], names = ["h1", "h2"];
  const c = connect({ url: "/", WebSocket: hub.WebSocket, fetch: hub.fetch, token: () => "t" });
  const links = () => [...hub.sockets, ...hub.posts].filter((l) => l.state === "open");
  const enter = () => {
    const room = c.channel(any(...names), any({}, { last: 3 }));
    room.heard = [];
    room.on("reset", ({ offset }) => room.heard.push(["reset", offset]));
    room.on("message", (m) => room.heard.push(m.offset));
    rooms.push(room);
  };
  const steps = [
    () => hub.say(any(...names), "x"),
    () => hub.say(any(...names), "y"),
    () => said.push(c.publish(any(...names), "m", said.length).then(() => "done", (e) => e.code)),
    () => any(...links(), null)?.drop(any(1006, 3001, 3008)),
    () => { hub.mode = any("well", "well", "refuses", "silent"); },
    () => { hub.streams = any("well", "well", "refuses", 503); },
    () => { clock.now += n(100_000); }, // the page freezes
    () => page.fire(any("online", "resume")),
    () => { page.fire("pagehide", { persisted: true }); return clock.advance(n(2_000)).then(() => page.fire("pageshow", { persisted: true })); },
    () => { const ch = hub.channel(any(...names)); ch.first = Math.max(ch.first, ch.messages.length - n(4)); },
    () => { const name = any(...names), l = any(...links(), null); if (l?.subs.delete(name)) l.push({ push: { channel: name, unsubscribe: { code: 2500, reason: "insufficient state" } } }); },
    () => { let left = 1 + n(2); hub.answer = (cmd) => (cmd.subscribe || cmd.rpc) && left-- > 0 ? any({ error: { code: 100, message: "later", temporary: true } }, null) : undefined; },
    () => { hub.answer = (cmd, link) => cmd.rpc && random() < 0.5 ? (hub.reply(cmd, link), null) : undefined; }, // the answer is lost
    () => { hub.answer = () => {}; },
    () => any(...rooms, { close() {} }).close(),
    enter, enter,
    () => links().forEach((l) => l.push({})),
    () => clock.advance(n(3_000)), () => clock.advance(n(3_000)), () => clock.advance(n(40_000)),
  ];
  enter();
  for (let i = 0; i < 60; i++) {
    await any(...steps)();
    if (random() < 0.7) await settled();
  }
  Object.assign(hub, { mode: "well", streams: "well", answer: () => {} });
  for (let i = 0; i < 10; i++) {
    links().forEach((l) => l.push({}));
    await clock.advance(30_000);
  }
  for (const name of names) hub.say(name, "the end");
  await settled();
  assert.equal(c.state, "live");
  for (const { name, state, heard } of rooms.filter((r) => r.state !== "closed")) {
    assert.equal(state, "live");
    let last;
    for (const one of heard) {
      if (Array.isArray(one)) last = one[1];
      else assert.ok(last === undefined || one === last + 1, `${name}: ${heard.join(" ")}`), last = one;
    }
    assert.equal(last, hub.channel(name).messages.length, `${name}: ${heard.join(" ")}`);
  }
  const outcomes = await Promise.all(said);
  outcomes.forEach((outcome, i) => {
    const times = names.flatMap((name) => hub.channel(name).messages).filter((m) => m.data === i).length;
    assert.ok(times === 1 || (times === 0 && outcome !== "done"), `message ${i} came ${times} times: ${outcome}`);
  });
  c.close();
  await settled();
  assert.deepEqual([clock.timers.size, page.listeners, links().length], [0, 0, 0]);
}

test("whatever happens, each message comes once and in order", async () => {
  const first = Number(process.env.SEED ?? 1);
  for (let seed = first; seed < first + Number(process.env.STORIES ?? 20); seed++) {
    try {
      await story(seed);
    } catch (e) {
      throw new Error(`the story of SEED=${seed}`, { cause: e });
    }
  }
});

test("close ends what is only being tried", async (t) => {
  const hub = new Hub(), c = open(t, hub), room = c.channel("h1");
  heard(room);
  hub.ping = 1000;
  hub.mode = "refuses";
  await clock.advance(100);
  hub.mode = "silent";
  hub.answer = (cmd) => cmd.rpc && { error: { code: 100, message: "later", temporary: true } };
  await clock.advance(60_000);
  assert.equal(hub.last.state, "open", "a WebSocket beside the stream");
  const waits = fails(c.publish("h1", "x"), "closed");
  await settled();
  hub.posts[0].drop();
  await settled();
  assert.deepEqual([hub.last.state, c.state, room.state], ["closed", "offline", "subscribing"]);
  c.close();
  await waits;
});

test("what is refused for a moment does not come back at once", async (t) => {
  const hub = new Hub(), c = open(t, hub);
  hub.answer = (cmd) => (cmd.subscribe || cmd.rpc) && { error: { code: 100, message: "later", temporary: true } };
  heard(c.channel("plain"));
  const keyed = fails(c.publish("h1", "x"), "closed");
  await clock.advance(10);
  assert.deepEqual([hub.asked("subscribe").length, hub.asked("rpc").length], [1, 1]);
  hub.answer = () => {};
  await clock.advance(100);
  await c.publish("plain", "x", 1); // finds out that there is no history
  hub.answer = (cmd) => cmd.rpc && { error: { code: 100, message: "later", temporary: true } };
  await fails(c.publish("plain", "x", 2), 100);
  c.close();
  await keyed;
});

test("needs a url outside of a page", () => {
  const { document } = globalThis;
  delete globalThis.document;
  assert.throws(() => connect(), TypeError);
  assert.throws(() => connect({ url: "file:///x" }), TypeError);
  globalThis.document = document;
});
