/** A page in a client's frame: what the client says, what is asked of it, and what happens when it says nothing. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { isWidget, LinkRefused, NotNow, placeOf } from "../src/link";
import { lang, theme } from "../src/preferences";
import { connectClient, frameOf, WidgetSignIn } from "../src/widget";
import type { Client } from "../src/widget";

const ADDRESS = new URL("https://voice.example/sub/s/widget?widgetId=eyvan&parentUrl=https%3A%2F%2Felement.example%2Fapp%2F#room=%21hall%3Aa.org&theme=dark&lang=fa");
const PLACE = placeOf(ADDRESS);
const TOKEN = { access_token: "t", matrix_server_name: "a.org", token_type: "Bearer", expires_in: 3600 };

class FakeClient {
  asked: string[] = [];
  replies: unknown[] = [];
  tokens = 0;
  token: () => Promise<object> = () => Promise.resolve(TOKEN);
  readonly transport = { reply: (_: unknown, data: unknown) => void this.replies.push(data) };
  private readonly heard = new Map<string, (event: CustomEvent) => void>();
  on(name: string, listener: (event: CustomEvent) => void): this {
    this.heard.set(name, listener);
    return this;
  }
  once = this.on;
  requestCapability(name: string): void {
    this.asked.push(name);
  }
  start(): void {}
  sendContentLoaded = (): Promise<void> => Promise.reject(new Error("not expected"));
  requestOpenIDConnectToken(): Promise<object> {
    this.tokens++;
    return this.token();
  }
  say(name: string, data: object = {}): CustomEvent {
    const event = new CustomEvent(name, { detail: { data }, cancelable: true });
    this.heard.get(name)?.(event);
    return event;
  }
}

interface Call {
  url: string;
  body: unknown;
}

let client: FakeClient;
let calls: Call[];
let answer: () => Response;
const opened = (expires: number): Response =>
  new Response(JSON.stringify({ session: `s${calls.length}`, device: null, stage: "x", expires_ts: expires, user: "@me:a.org" }));
const fetcher = ((url: URL, init: RequestInit) => {
  calls.push({ url: String(url), body: JSON.parse(init.body as string) });
  return Promise.resolve(answer());
}) as unknown as typeof fetch;
const signIn = (): WidgetSignIn => new WidgetSignIn(PLACE, "!hall:a.org", client as unknown as Client, fetcher);
const reasonOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => "none",
    (error: unknown) => (error instanceof LinkRefused ? error.reason : String(error)),
  );

beforeEach(() => {
  vi.useFakeTimers();
  client = new FakeClient();
  calls = [];
  answer = () => opened(Date.now() + 3_600_000);
});
afterEach(() => {
  vi.useRealTimers();
});

describe("the address", () => {
  it("says what the client says", () => {
    expect(isWidget(ADDRESS)).toBe(true);
    expect(frameOf(ADDRESS)).toEqual({ widgetId: "eyvan", client: "https://element.example", room: "!hall:a.org" });
    expect(PLACE.api.href).toBe("https://voice.example/sub/api/v1/");
  });
  it("may come from a client of its own scheme", () => {
    const desktop = new URL(ADDRESS);
    desktop.searchParams.set("parentUrl", "vector://vector/webapp/");
    expect(frameOf(desktop)?.client).toMatch(/^(\*|vector:\/\/vector)$/);
  });
  it.each(["https://x/s/widget", "https://x/s/widget?widgetId=e&parentUrl=no#room=!r", "https://x/s/widget?widgetId=e&parentUrl=https%3A%2F%2Fe#room=$matrix_room_id"])(
    "without a client is no frame: %s",
    (address) => expect(frameOf(new URL(address))).toBeNull(),
  );
});

describe("who the person is", () => {
  it("is asked of the client when it is ready, and kept for this page alone", async () => {
    const sign = signIn();
    const session = sign.session();
    await vi.advanceTimersByTimeAsync(100);
    expect(client.tokens).toBe(0);
    client.say("ready");
    expect(await session).toBe("s1");
    expect(calls).toEqual([
      { url: "https://voice.example/sub/api/v1/sessions", body: { openid: { access_token: "t", matrix_server_name: "a.org" }, room: "!hall:a.org" } },
    ]);
    expect(await sign.session()).toBe("s1");
    sign.forgetSession();
    await sign.session();
    expect(client.tokens).toBe(2);
    expect(localStorage).toHaveLength(0);
  });
  it("needs one capability that clients grant unseen", () => {
    signIn();
    expect(client.asked).toEqual(["io.element.requires_client"]);
  });
  it("is not known where the person says no, or the client", async () => {
    const sign = signIn();
    client.say("ready");
    client.token = () => Promise.reject(new Error("User declined to verify their identity"));
    expect(await reasonOf(sign.session())).toBe("identity");
    client.token = () => Promise.resolve({ state: "allowed" });
    expect(await reasonOf(sign.session())).toBe("identity");
    client.token = () => Promise.resolve(TOKEN);
    answer = () => new Response(JSON.stringify({ errcode: "M_UNKNOWN_TOKEN", reason: "used" }), { status: 401 });
    expect(await reasonOf(sign.session())).toBe("identity");
  });
  it("may be nobody of this room; and there may be no stage, or no answer", async () => {
    const sign = signIn();
    client.say("ready");
    answer = () => new Response(JSON.stringify({ errcode: "M_UNKNOWN_TOKEN", reason: "membership" }), { status: 401 });
    expect(await reasonOf(sign.session())).toBe("left_room");
    answer = () => new Response(JSON.stringify({ errcode: "M_NOT_FOUND" }), { status: 404 });
    await expect(sign.session()).rejects.toMatchObject({ gone: true, guest: false });
    answer = () => new Response("{}", { status: 503 });
    await expect(sign.session()).rejects.toBeInstanceOf(NotNow);
  });
  it("cannot be asked where no client answers, or there is none", async () => {
    const silent = reasonOf(signIn().session());
    await vi.advanceTimersByTimeAsync(30_000);
    expect(await silent).toBe("client");
    expect(await reasonOf(new WidgetSignIn(PLACE, "", null, fetcher).session())).toBe("client");
  });
});

describe("theme and language", () => {
  it("follow the client", () => {
    signIn();
    const look = (name: string): string => (client.say("action:theme_change", { name }), theme.value);
    expect(["dark", "light-high-contrast", "custom-Deep Black", "custom-mine"].map(look)).toEqual(["dark", "light", "dark", "dark"]);
    const speak = (code: string): string => (client.say("action:language_change", { lang: code }), lang.value);
    expect(["fa", "en-us", "fa-IR", "de"].map(speak)).toEqual(["fa", "en", "fa", "en"]);
    expect(client.say("action:theme_change", {}).defaultPrevented).toBe(true);
    expect(client.replies).toHaveLength(9);
  });
});

describe("messages", () => {
  it("of other frames never reach the client API", () => {
    const api = connectClient({ widgetId: "eyvan", client: "*", room: "!r" });
    const seen: string[] = [];
    api.on("action:theme_change", (event: CustomEvent) => {
      event.preventDefault();
      seen.push(event.detail.data.name as string);
    });
    vi.spyOn(console, "log").mockImplementation(() => undefined);
    api.start();
    const by = (source: unknown, name: string): void => {
      const event = new MessageEvent("message", { data: { api: "toWidget", action: "theme_change", requestId: name, widgetId: "eyvan", data: { name } } });
      Object.defineProperty(event, "source", { value: source });
      dispatchEvent(event);
    };
    by({}, "another");
    by(parent, "ours");
    expect(seen).toEqual(["ours"]);
  });
});
