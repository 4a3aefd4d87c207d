import { describe, expect, it } from "vitest";
import { connectionOf, EMPTY, handOf, micOf, sceneOf, standingOf, withPatch, withSnapshot } from "../src/stage";
import type { MicWish, State } from "../src/stage";
import { HOST, ME, ON_STAGE, person, snapshot } from "./make";

const NOW = 1_999_000;
const OPEN: MicWish = { wanted: true, asking: false, taken: true, silent: false, trouble: null };
const listening = (): State => ({ ...withSnapshot(EMPTY, snapshot(), NOW), media: "up" });
const speaking = (mic: MicWish = OPEN): State => ({
  ...withSnapshot(EMPTY, snapshot({ me: ON_STAGE, speakers: [HOST, person("@me:a", { since: 5 })] }), NOW),
  media: "up",
  mic,
});

function patched(state: State, frame: object): State {
  const next = withPatch(state, { t: "patch", seq: state.seq + 1, ...frame });
  if (next === "gap") throw new Error("unexpected gap");
  return next;
}

describe("frames", () => {
  it("counts by the server's clock", () => expect(listening().skew).toBe(1_000));
  it("changes only the parts that a patch holds", () => {
    const next = patched(listening(), { audience: { count: 9, hands: 1, faces: [] } });
    expect([next.audience.count, next.stage?.topic, next.seq]).toEqual([9, "Poems", 2]);
  });
  it("ignores a repeated patch and notices a missed one", () => {
    const state = listening();
    expect(withPatch(state, { t: "patch", seq: 1, queue: [] })).toBe(state);
    expect(withPatch(state, { t: "patch", seq: 3, queue: [] })).toBe("gap");
  });
  it("asks for a snapshot when a patch comes first", () => expect(withPatch(EMPTY, { t: "patch", seq: 1 })).toBe("gap"));
  it("closes when the stage ends", () => {
    const { stage } = snapshot();
    expect(patched(listening(), { stage: { ...stage, status: "ended" } }).closed?.why).toBe("ended");
  });
  it("remembers for the farewell who spoke and how many listened", () => {
    const more = patched(listening(), { audience: { count: 9, hands: 0, faces: [] }, speakers: [HOST, person("@b:a")] });
    const fewer = patched(more, { audience: { count: 2, hands: 0, faces: [] }, speakers: [HOST] });
    expect([fewer.peak, fewer.spoke.map((each) => each.user)]).toEqual([9, ["@host:a", "@b:a"]]);
  });
});

describe("connection", () => {
  it.each([
    ["before the first snapshot", EMPTY, "connecting"],
    ["broken before the first snapshot", { ...EMPTY, socket: "broken" as const }, "connecting"],
    ["socket open, sound on its way", { ...listening(), media: "connecting" as const }, "connecting"],
    ["socket and sound", listening(), "live"],
    ["socket away", { ...listening(), socket: "broken" as const }, "lost"],
    ["socket opening again", { ...listening(), socket: "opening" as const }, "lost"],
    ["sound away", { ...listening(), media: "broken" as const }, "lost"],
    ["closed", { ...listening(), closed: { why: "left" as const, text: "" } }, "ended"],
  ])("%s", (_, state, want) => expect(connectionOf(state)).toBe(want));
  it("does not wait for sound where the stage is not live", () => {
    const { stage } = snapshot();
    expect(connectionOf(withSnapshot(EMPTY, snapshot({ stage: { ...stage, status: "scheduled" } }), NOW))).toBe("live");
  });
});

describe("hand", () => {
  it("is down, pending, up and down again only as the server confirms", () => {
    let state = listening();
    expect(handOf(state)).toBe("down");
    state = { ...state, handWish: "up" };
    expect(handOf(state)).toBe("pending");
    state = patched(state, { me: { ...ME, hand: { position: 2 } } });
    expect([handOf(state), state.handWish]).toEqual(["up", null]);
    state = { ...state, handWish: "down" };
    expect(handOf(state)).toBe("pending");
    expect(handOf(patched(state, { me: ME }))).toBe("down");
  });
  it("keeps a wish over a patch that does not concern it", () => {
    expect(handOf(patched({ ...listening(), handWish: "up" }, { me: { ...ME, name: "New" } }))).toBe("pending");
  });
  it("shows an invitation before all else", () => {
    expect(handOf(patched({ ...listening(), handWish: "up" }, { me: { ...ME, invited: { by: "@host:a", by_name: "Host" } } }))).toBe("invited");
  });
  it("is closed where nobody or not this person may raise", () => {
    const { stage } = snapshot();
    expect(handOf(patched(listening(), { stage: { ...stage, hands: "off" } }))).toBe("closed");
    expect(handOf(patched(listening(), { me: { ...ME, may_raise: false } }))).toBe("closed");
  });
});

describe("microphone", () => {
  it("is absent in the audience, and until the relay has confirmed the place", () => {
    expect(micOf(listening())).toBe("absent");
    const coming = patched(listening(), { speakers: [HOST, person("@me:a")], me: { ...ME, role: "speaker" } });
    expect([standingOf(coming), micOf(coming)]).toEqual(["coming", "absent"]);
  });
  it("shows on only when browser and server have both said so", () => {
    expect(micOf(speaking({ ...OPEN, wanted: false, taken: false }))).toBe("off");
    expect(micOf(speaking({ ...OPEN, asking: true, taken: false }))).toBe("asking");
    expect(micOf(speaking({ ...OPEN, taken: false }))).toBe("asking");
    expect(micOf(speaking())).toBe("on");
    expect(micOf(speaking({ ...OPEN, silent: true }))).toBe("silent");
  });
  it("is not shown on while the sound is away", () => {
    expect(micOf({ ...speaking(), media: "broken" })).toBe("asking");
    expect(micOf({ ...speaking({ ...OPEN, wanted: false }), media: "broken" })).toBe("off");
  });
  it("shows a cut at once and does not come back by itself", () => {
    const cut = patched(speaking(), { me: { ...ON_STAGE, muted: true, can_speak: false } });
    expect([micOf(cut), cut.mic.wanted]).toEqual(["muted", false]);
    expect(micOf(patched(cut, { me: ON_STAGE }))).toBe("off");
  });
  it("shows a cut that only the list of speakers tells", () => {
    expect(micOf(patched(speaking(), { speakers: [HOST, person("@me:a", { mic: "muted" })] }))).toBe("muted");
  });
  it("is off after the audience, though it was on before", () => {
    const down = patched(speaking(), { me: ME, speakers: [HOST] });
    expect(down.mic.wanted).toBe(false);
    expect(micOf(patched(down, { me: ON_STAGE, speakers: [HOST, person("@me:a", { since: 9 })] }))).toBe("off");
  });
  it("comes back after a break as it was, once the relay confirms", () => {
    const shut = { ...ME, role: "speaker" as const };
    const speakers = [HOST, person("@me:a", { since: 5 })];
    const back = withSnapshot({ ...speaking(), socket: "broken" }, snapshot({ seq: 1, me: shut, speakers }), NOW);
    expect([micOf(back), back.mic.wanted]).toEqual(["asking", true]);
    expect(micOf({ ...patched(back, { me: ON_STAGE }), mic: OPEN })).toBe("on");
  });
  it("stays off when the place was taken and given anew during the break", () => {
    const speakers = [HOST, person("@me:a", { since: 77 })];
    expect(withSnapshot(speaking(), snapshot({ me: ON_STAGE, speakers }), NOW).mic.wanted).toBe(false);
  });
});

describe("scene", () => {
  const moderator = (user: string, since: number) => person(user, { role: "moderator", since });
  it("puts the host in the middle and the two longest moderators beside", () => {
    const scene = sceneOf([person("@s:a", { since: 2 }), moderator("@c:a", 9), moderator("@b:a", 4), HOST, moderator("@a:a", 5)]);
    expect(scene.middle?.user).toBe("@host:a");
    expect(scene.sides.map((each) => each.user)).toEqual(["@b:a", "@a:a"]);
    expect(scene.others.map((each) => each.user)).toEqual(["@s:a", "@c:a"]);
  });
  it("without a host raises the longest moderator, else the longest speaker", () => {
    expect(sceneOf([person("@s:a", { since: 1 }), moderator("@m:a", 3)]).middle?.user).toBe("@m:a");
    expect(sceneOf([person("@s:a", { since: 2 }), person("@r:a", { since: 1 })]).middle?.user).toBe("@r:a");
    expect(sceneOf([]).middle).toBeNull();
  });
  it("does not depend on the order of the list", () => {
    const people = [person("@x:a", { since: 3 }), person("@y:a", { since: 3 }), HOST];
    expect(sceneOf([...people].reverse())).toEqual(sceneOf(people));
  });
});
