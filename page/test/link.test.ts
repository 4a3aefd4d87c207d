import { beforeEach, describe, expect, it } from "vitest";
import { LinkRefused, LinkStore, NotNow, openSession, placeOf, takeToken } from "../src/link";

const PLACE = placeOf(new URL("https://voice.example/sub/s/AbC123"));

interface Call {
  url: string;
  body: unknown;
}

function answering(status: number, body: object): { calls: Call[]; fetcher: typeof fetch } {
  const calls: Call[] = [];
  const fetcher = ((url: URL, init: RequestInit) => {
    calls.push({ url: String(url), body: JSON.parse(init.body as string) });
    return Promise.resolve(new Response(JSON.stringify(body), { status }));
  }) as unknown as typeof fetch;
  return { calls, fetcher };
}

const OPENED = { session: "s1", device: "d1", stage: "AbC123", expires_ts: 500_000, user: "@me:a" };

describe("the address", () => {
  it("gives stage and API, under a sub-path too", () => expect([PLACE.stage, PLACE.api.href]).toEqual(["AbC123", "https://voice.example/sub/api/v1/"]));
  it("loses its token at once", () => {
    const replaced: string[] = [];
    const location = { hash: "#l=to.ken%2F", pathname: "/s/x", search: "?a" } as Location;
    const history = { state: null, replaceState: (_: unknown, __: string, url: string) => replaced.push(url) } as unknown as History;
    expect(takeToken(location, history)).toBe("to.ken/");
    expect(replaced).toEqual(["/s/x?a"]);
  });
  it("may have none", () => expect(takeToken({ hash: "", pathname: "/s/x", search: "" } as Location, {} as History)).toBeNull());
});

describe("a session", () => {
  let store: LinkStore;
  beforeEach(() => {
    localStorage.clear();
    store = new LinkStore("AbC123", localStorage);
  });

  it("comes from the link, then from what is kept", async () => {
    store.adopt("L1");
    const { calls, fetcher } = answering(200, OPENED);
    expect(await openSession(PLACE, store, fetcher, 1_000)).toBe("s1");
    expect(calls).toEqual([{ url: "https://voice.example/sub/api/v1/sessions", body: { link: "L1" } }]);
    expect(await openSession(PLACE, new LinkStore("AbC123", localStorage), fetcher, 2_000)).toBe("s1");
    expect(calls).toHaveLength(1);
  });
  it("is exchanged anew with its device when it has expired or did not open", async () => {
    store.adopt("L1");
    const { calls, fetcher } = answering(200, OPENED);
    await openSession(PLACE, store, fetcher, 1_000);
    await openSession(PLACE, store, fetcher, 499_000);
    store.forgetSession();
    await openSession(PLACE, store, fetcher, 2_000);
    expect(calls.slice(1).map((each) => each.body)).toEqual([{ link: "L1", device: "d1" }, { link: "L1", device: "d1" }]);
  });
  it("of another link does not take over this one's device", async () => {
    store.adopt("L1");
    const { calls, fetcher } = answering(200, OPENED);
    await openSession(PLACE, store, fetcher, 1_000);
    store.adopt("L2");
    await openSession(PLACE, store, fetcher, 1_000);
    expect(calls[1]?.body).toEqual({ link: "L2" });
  });
  it("without a link is a guest's", async () => {
    const { calls, fetcher } = answering(200, { ...OPENED, device: null, user: null });
    await openSession(PLACE, store, fetcher, 1_000);
    expect(calls[0]?.body).toEqual({ guest: "AbC123" });
  });
  it.each(["expired", "altered", "revoked", "devices", "membership"])("is refused for good: %s", async (reason) => {
    store.adopt("L1");
    const { fetcher } = answering(401, { errcode: "M_UNKNOWN_TOKEN", error: "no", reason });
    await expect(openSession(PLACE, store, fetcher, 1)).rejects.toMatchObject({ reason, guest: false, gone: false });
  });
  it("tells a guest from a stage that is gone", async () => {
    const { fetcher } = answering(404, { errcode: "M_NOT_FOUND", error: "no" });
    const error: unknown = await openSession(PLACE, store, fetcher, 1).catch((each: unknown) => each);
    expect(error).toBeInstanceOf(LinkRefused);
    expect(error).toMatchObject({ guest: true, gone: true });
  });
  it("waits where the server is full or away", async () => {
    const full: unknown = await openSession(PLACE, store, answering(429, { errcode: "M_LIMIT_EXCEEDED", error: "", retry_after_ms: 700 }).fetcher, 1).catch((e: unknown) => e);
    expect(full).toBeInstanceOf(NotNow);
    expect(full).toMatchObject({ full: true, retryMs: 700 });
    const away: unknown = await openSession(PLACE, store, answering(503, {}).fetcher, 1).catch((e: unknown) => e);
    expect(away).toMatchObject({ full: false, retryMs: null });
  });
  it("survives a storage that refuses", async () => {
    const refusing = { getItem: () => { throw new Error("no"); }, setItem: () => { throw new Error("no"); } };
    const { fetcher } = answering(200, OPENED);
    expect(await openSession(PLACE, new LinkStore("x", refusing), fetcher, 1)).toBe("s1");
  });
});
