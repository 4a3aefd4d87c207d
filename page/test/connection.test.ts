/** Against a socket of our own that keeps what was sent and says what a test wants said. Time is vitest's. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Connection, NoAnswer, Refusal } from "../src/connection";
import { LinkRefused, NotNow } from "../src/link";
import type { ToPage } from "../src/messages";
import { FakeSocket } from "./fakes";
import { snapshot } from "./make";

let frames: ToPage[];
let states: string[];
let refused: LinkRefused[];
let sessions: (() => Promise<string>)[];
let forgotten: number;
let connection: Connection;

async function settle(): Promise<void> {
  await vi.advanceTimersByTimeAsync(0);
}

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("WebSocket", FakeSocket);
  FakeSocket.all = [];
  frames = [];
  states = [];
  refused = [];
  sessions = [];
  forgotten = 0;
  connection = new Connection({
    session: () => (sessions.shift() ?? (() => Promise.resolve("s1")))(),
    forgetSession: () => forgotten++,
    lang: () => "fa",
    socketUrl: new URL("wss://voice.example/api/v1/socket"),
    frame: (frame) => frames.push(frame),
    changed: (state) => states.push(state),
    full: () => states.push("full"),
    refused: (why) => refused.push(why),
  });
});

afterEach(() => {
  connection.stop();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

async function opened(): Promise<FakeSocket> {
  connection.start();
  await settle();
  FakeSocket.last.accept();
  FakeSocket.last.say(snapshot());
  return FakeSocket.last;
}

describe("opening", () => {
  it("says hello with the session in the first frame, never in the address", async () => {
    const socket = await opened();
    expect(socket.sent).toEqual([{ t: "hello", session: "s1", lang: "fa" }]);
    expect(socket.url.href).toBe("wss://voice.example/api/v1/socket");
    expect(frames.map((each) => each.t)).toEqual(["snapshot"]);
  });
  it("ends with a link that is refused", async () => {
    sessions.push(() => Promise.reject(new LinkRefused("revoked", "", false, false)));
    connection.start();
    await settle();
    expect(refused.map((each) => each.reason)).toEqual(["revoked"]);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(FakeSocket.all).toHaveLength(0);
  });
  it("waits as long as a full server asks, then tries again", async () => {
    sessions.push(() => Promise.reject(new NotNow(true, 3_000)));
    connection.start();
    await settle();
    expect(states).toContain("full");
    await vi.advanceTimersByTimeAsync(2_900);
    expect(FakeSocket.all).toHaveLength(0);
    await vi.advanceTimersByTimeAsync(200);
    expect(FakeSocket.all).toHaveLength(1);
  });
  it("asks for a new session when sockets close between hello and snapshot", async () => {
    connection.start();
    await settle();
    FakeSocket.last.accept();
    FakeSocket.last.close();
    expect(forgotten).toBe(0);
    await vi.advanceTimersByTimeAsync(5_000);
    FakeSocket.last.accept();
    FakeSocket.last.close();
    expect(forgotten).toBe(1);
  });
  it("keeps its session while the server is away", async () => {
    connection.start();
    for (let i = 0; i < 5; i++) {
      await vi.advanceTimersByTimeAsync(5_000);
      FakeSocket.last.close();
    }
    expect(forgotten).toBe(0);
  });
});

describe("leaving", () => {
  it("says so by its close code, so that the seat is given up at once", async () => {
    const socket = await opened();
    connection.stop();
    expect(socket.closedWith).toBe(1000);
  });
  it("is not what a new try looks like", async () => {
    const socket = await opened();
    connection.reopen();
    expect(socket.closedWith).toBeUndefined();
  });
});

describe("a break", () => {
  it("is mended by itself, with growing waits of at most 5 s", async () => {
    (await opened()).close();
    expect(states[states.length - 1]).toBe("broken");
    for (let i = 2; i < 9; i++) {
      await vi.advanceTimersByTimeAsync(5_000);
      expect(FakeSocket.all).toHaveLength(i);
      FakeSocket.last.close();
    }
  });
  it("is mended at once when the network comes back", async () => {
    (await opened()).close();
    dispatchEvent(new Event("online"));
    await settle();
    expect(FakeSocket.all).toHaveLength(2);
  });
  it("shows when nothing comes any more, though the socket looks open", async () => {
    const socket = await opened();
    await vi.advanceTimersByTimeAsync(2_000);
    expect(socket.sent[1]).toEqual({ t: "ping" });
    socket.say({ t: "pong" });
    await vi.advanceTimersByTimeAsync(2_500);
    expect(states[states.length - 1]).toBe("opening");
    await vi.advanceTimersByTimeAsync(3_000);
    expect(states).toContain("broken");
  });
  it("fails the open requests", async () => {
    const socket = await opened();
    const request = connection.request({ t: "mic", on: true });
    socket.close();
    await expect(request).rejects.toBeInstanceOf(NoAnswer);
    await expect(connection.request({ t: "mic", on: true })).rejects.toBeInstanceOf(NoAnswer);
  });
});

describe("requests", () => {
  it("get their own answer, in any order", async () => {
    const socket = await opened();
    const first = connection.request({ t: "hand", raised: true });
    const second = connection.request({ t: "offer", sdp: "v=0" });
    socket.say({ t: "answer", id: socket.sent[2]?.id, sdp: "answer" });
    socket.say({ t: "refused", id: socket.sent[1]?.id, errcode: "M_FORBIDDEN", error: "closed" });
    await expect(second).resolves.toMatchObject({ sdp: "answer" });
    await expect(first).rejects.toMatchObject({ errcode: "M_FORBIDDEN", message: "closed" });
    await expect(first).rejects.toBeInstanceOf(Refusal);
  });
  it("do not wait for ever", async () => {
    const socket = await opened();
    const request = connection.request({ t: "hand", raised: true });
    const outcome = expect(request).rejects.toBeInstanceOf(NoAnswer);
    for (let i = 0; i < 16; i++) {
      await vi.advanceTimersByTimeAsync(1_000);
      socket.say({ t: "pong" });
    }
    await outcome;
  });
  it("are refused when far too many are open", async () => {
    await opened();
    const all = Array.from({ length: 65 }, () => connection.request({ t: "hand", raised: true }).catch((error: unknown) => error));
    expect(await all[64]).toBeInstanceOf(NoAnswer);
    connection.stop();
    await Promise.all(all);
  });
});

it("stops for good, twice without harm", async () => {
  await opened();
  connection.stop();
  connection.stop();
  await vi.advanceTimersByTimeAsync(60_000);
  expect(FakeSocket.all).toHaveLength(1);
});
