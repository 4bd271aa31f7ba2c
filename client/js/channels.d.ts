/** Connects to a hub. It goes on connecting until close, or until the server refuses it for good. */
export function connect(options?: Options): Client;

export interface Options {
  /** Where the hub is mounted, such as "/rt/" or "https://rt.example.com". By default, the folder that the hub has served channels.js from, or "/" in a bundle. In Node it has to be given. */
  url?: string | URL;
  /** Who the client is. A function is asked at the first connect, before its token ends, and after it has ended. If it returns nothing, the client connects without a token. */
  token?: string | (() => string | null | undefined | Promise<string | null | undefined>);
  /** What `Options.Authenticate` gets beside the token: any JSON. */
  data?: unknown;
  /** How long, in ms, connecting, an answer and the token function may take. 10,000 by default. */
  timeout?: number;
  /** The delay in ms before the second attempt to connect is a random part of twice this, and doubles with each. The first one is at once. 500 by default. */
  minDelay?: number;
  /** The longest delay in ms. 20,000 by default. */
  maxDelay?: number;
  /** How many messages may wait to be published. 10,000 by default, and in any case 8 Mi characters. */
  maxQueued?: number;
  /** Takes this transport and no other. By default it is a WebSocket, and a stream where that comes to nothing. */
  transport?: "websocket" | "http_stream";
  /** After how many ms on a stream a WebSocket is tried again; each failure doubles it. 60,000 by default. */
  retryWebSocket?: number;
  /** The credentials of the stream's requests: "include" sends cookies to another origin. "same-origin" by default. */
  credentials?: RequestCredentials;
  /** A WebSocket class for where there is none, such as that of the package ws in Node before version 22. */
  WebSocket?: new (url: string) => any;
  /** A fetch function, for the stream. */
  fetch?: typeof fetch;
}

export type State = "connecting" | "live" | "offline" | "closed";

export interface Client {
  /** "offline" is between two attempts. "closed" is for good. */
  readonly state: State;
  /** Why the last connection or attempt has ended; undefined if live. */
  readonly why?: ChannelsError;
  /** The id of the connection, as presence and messages have it. */
  readonly client?: string;
  readonly transport?: "websocket" | "http_stream";

  /** A channel, or a pattern such as "chat.*". It is subscribed to when something listens to its messages or its presence, or iterates. Several of one name share a subscription. */
  channel<Body = any>(name: string, options?: ChannelOptions): Channel<Body>;

  /** Publishes a message. It needs no subscription. If there is no connection, the message waits for one. It rejects with the code "full" if too many wait, and with "lost" if the connection was lost before the answer and the message may not be repeated: the channel keeps no history, or minutes have passed. */
  publish(channel: string, header: string, body?: unknown, options?: PublishOptions): Promise<Published>;
  /** Calls a method of the app's (`Options.OnCall`). */
  call<Result = any>(method: string, data?: unknown): Promise<Result>;
  /** Sends the app something without an answer (`Options.OnCall` with `OneWay`). It throws if there is no connection. */
  send(data?: unknown): void;
  /** Sends any command of the client protocol, and returns what the reply has for it. */
  command<Result = any>(name: string, request: object): Promise<Result>;
  /** Ends the connection for good. Nothing stays behind: no timer, no listener, no socket. */
  close(): void;

  /** Each `on` returns a function that removes the listener. A listener that throws is reported, and hurts nobody else. */
  on(event: "state", listener: (state: State, why?: ChannelsError) => void): () => void;
  /** A token could not be renewed. It is tried again. */
  on(event: "error", listener: (error: Error) => void): () => void;
  /** The next four are of channels that the app has subscribed this connection to (`hub.SubscribeUser`, `SubscribeClient`). */
  on(event: "subscription", listener: (channel: string, state: "live" | "closed", why?: Begun | ChannelsError) => void): () => void;
  on(event: "message", listener: (message: Message) => void): () => void;
  on(event: "reset", listener: (reset: Reset) => void): () => void;
  on(event: "presence", listener: (event: PresenceEvent) => void): () => void;
}

export interface ChannelOptions {
  /** Begins with the newest messages: up to 1000. */
  last?: number;
  /** Begins after a position: that of a message, or one that was kept, also as the text "epoch:offset" that Go writes. */
  since?: Position | string;
  /** A ticket for the channel, which `Authorize` gets as `Request.Token`; or a function that returns one, as that of Options. */
  token?: string | ((channel: string) => string | Promise<string>);
}

export interface Position {
  epoch?: string;
  offset?: number;
}

export interface Message<Body = any> extends Position {
  /** The channel: also for a message that a pattern has matched. */
  channel: string;
  header: string;
  body: Body;
  /** When it was published, in Unix ms. */
  time?: number;
  /** Who published it over a connection: `Identity.ID`, the connection's id, and `Identity.Info`. */
  user?: string;
  client?: string;
  info?: any;
}

export interface PublishOptions {
  /** The idempotency key. By default each message has a new one. A page that keeps what it sends, also over a reload, may send it again with the key of the first time, for 5 minutes. */
  key?: string;
}

export interface Published extends Position {
  /** It was published before, by an attempt whose answer was lost. */
  duplicate?: boolean;
}

/** Messages were missed, or may have been; the channel goes on after the position. Fetch anew what you show. */
export interface Reset extends Position {
  channel: string;
  /** "trimmed", "epoch" and "no_history" are the server's: a channel without history has one after each cut. "slow": an iteration has fallen too far behind on such a channel. "failed": the history could not be read. */
  reason: "trimmed" | "epoch" | "no_history" | "slow" | "failed";
}

export interface Member {
  id: string;
  user: string;
  info?: any;
}

export interface PresenceEvent {
  channel: string;
  event: "join" | "leave";
  member: Member;
}

/** How a subscription has begun. */
export interface Begun extends Position {
  /** Whether the channel keeps a history. */
  recoverable: boolean;
  /** Whether all that was missed will come; undefined if the subscription is new. */
  recovered?: boolean;
}

export interface Channel<Body = any> extends AsyncIterable<Message<Body>> {
  readonly name: string;
  readonly state: "idle" | "subscribing" | "live" | "closed";
  /** What the last "state" event told. */
  readonly why?: Begun | ChannelsError;

  /** Iterates over the messages. It ends after close, and throws if the server ends the subscription for good. A loop that is slow loses nothing if the channel keeps a history. */
  [Symbol.asyncIterator](): AsyncIterableIterator<Message<Body>>;
  on(event: "message", listener: (message: Message<Body>) => void): () => void;
  on(event: "reset", listener: (reset: Reset) => void): () => void;
  /** Somebody joins or leaves, if the channel has `PresenceEvents`. */
  on(event: "presence", listener: (event: PresenceEvent) => void): () => void;
  /** "closed" has why: the server's refusal, or nothing after close. A refusal that neither this nor an iteration would tell of is logged. */
  on(event: "state", listener: (state: "subscribing" | "live" | "closed", why?: Begun | ChannelsError) => void): () => void;

  /** As Client.publish. */
  publish(header: string, body?: unknown, options?: PublishOptions): Promise<Published>;
  /** Messages that the channel keeps, oldest first: the newest, or those right before or after a position. limit is 100 by default and at most 1000. */
  history(query?: { limit?: number; before?: Position | string; since?: Position | string }): Promise<Message<Body>[]>;
  /** Who is subscribed. */
  members(): Promise<Member[]>;
  /** Ends this use of the channel. The last one unsubscribes. */
  close(): void;
}

export class ChannelsError extends Error {
  /** The server's code (docs/protocol.md), the close code of a connection, the HTTP status of a stream, or one of "closed", "full", "key" (a message with the same key waits), "lost", "timeout" and "token". */
  readonly code: number | string;
  /** Whether the same may succeed later. */
  readonly temporary: boolean;
}
