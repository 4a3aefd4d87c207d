/** The whole page without views, against a server of our own: sound, microphone, cuts, breaks. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { withStereo } from "../src/audio";
import { linkSignIn, placeOf } from "../src/link";
import { Page } from "../src/page";
import type { Snapshot } from "../src/messages";
import { FakeAudioContext, FakePeer, FakeSocket, FakeTrack } from "./fakes";
import { HOST, ME, ON_STAGE, person, snapshot } from "./make";

const SPEAKERS = [HOST, person("@me:a", { since: 5 })];
const LISTENING = snapshot();
const SPEAKING = snapshot({ me: ON_STAGE, speakers: SPEAKERS });

const PLACE = placeOf(new URL("https://voice.example/s/x"));

let page: Page;
let tracks: FakeTrack[];
let microphone: () => Promise<FakeTrack>;
let seq: number;

async function pass(ms = 0): Promise<void> {
  await vi.advanceTimersByTimeAsync(ms);
}

function sent(kind: string): Record<string, unknown>[] {
  return FakeSocket.last.sent.filter((each) => each.t === kind);
}

async function answer(kind: string, body: object = { t: "done" }): Promise<void> {
  const asked = sent(kind);
  FakeSocket.last.say({ ...body, id: asked[asked.length - 1]?.id });
  await pass();
}

async function patch(change: object): Promise<void> {
  FakeSocket.last.say({ t: "patch", seq: ++seq, ...change });
  await pass();
}

/** A socket with its snapshot, and sound that flows. */
async function connect(frame: Snapshot): Promise<void> {
  FakeSocket.last.accept();
  FakeSocket.last.say(frame);
  seq = frame.seq;
  await pass();
  await answer("offer", { t: "answer", sdp: "answer" });
  if (FakePeer.all.length > 0 && FakePeer.last.connectionState !== "connected") FakePeer.last.become("connected");
  await pass();
}

async function flow(ms: number): Promise<void> {
  for (let passed = 0; passed < ms; passed += 500) {
    FakePeer.last.packets += 25;
    FakeSocket.last.say({ t: "levels", levels: {} });
    await pass(500);
  }
}

/** The server is silent but there; no RTP comes. */
async function mute(ms: number): Promise<void> {
  for (let passed = 0; passed < ms; passed += 500) {
    FakeSocket.last.say({ t: "levels", levels: {} });
    await pass(500);
  }
}

async function microphoneOn(): Promise<void> {
  page.toggleMicrophone();
  await pass();
  await answer("mic");
}

function open(): Page {
  const opened = new Page(PLACE, linkSignIn(PLACE, "L1", localStorage), document.createElement("audio"));
  opened.start();
  return opened;
}

beforeEach(async () => {
  vi.useFakeTimers();
  localStorage.clear();
  sessionStorage.clear();
  FakeSocket.all = [];
  FakePeer.all = [];
  FakeAudioContext.peak = 0.2;
  tracks = [];
  microphone = () => {
    const track = new FakeTrack();
    tracks.push(track);
    return Promise.resolve(track);
  };
  vi.stubGlobal("WebSocket", FakeSocket);
  vi.stubGlobal("RTCPeerConnection", FakePeer);
  vi.stubGlobal("AudioContext", FakeAudioContext);
  vi.stubGlobal("MediaStream", class {});
  vi.stubGlobal("fetch", () =>
    Promise.resolve(new Response(JSON.stringify({ session: "s", device: "d", stage: "x", expires_ts: Date.now() + 3_600_000, user: "@me:a" }))),
  );
  const getUserMedia = async (): Promise<object> => {
    const track = await microphone();
    return { getAudioTracks: () => [track] };
  };
  Object.defineProperty(navigator, "mediaDevices", { configurable: true, value: { getUserMedia } });
  page = open();
  await pass();
});

afterEach(() => {
  page.stop();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe("sound", () => {
  it("is offered once, sendrecv, without a microphone and without asking anybody else", async () => {
    await connect(LISTENING);
    expect(FakePeer.all).toHaveLength(1);
    expect(FakePeer.last.configuration).toEqual({ iceServers: [] });
    expect(FakePeer.last.directions).toEqual(["sendrecv"]);
    expect(FakePeer.last.sender.track).toBeNull();
    expect(tracks).toEqual([]);
    expect(page.stage.connection.value).toBe("live");
  });
  it("that has no place is told so, and asked for again when the server wants it", async () => {
    FakeSocket.last.accept();
    FakeSocket.last.say(LISTENING);
    await pass();
    await answer("offer", { t: "refused", errcode: "M_LIMIT_EXCEEDED", error: "full", retry_after_ms: 10_000 });
    expect([page.stage.state.value.full, sent("offer").length]).toEqual([true, 1]);
    await mute(7_000);
    expect(sent("offer")).toHaveLength(1);
    await mute(6_000);
    expect(sent("offer")).toHaveLength(2);
    await answer("offer", { t: "answer", sdp: "answer" });
    FakePeer.last.become("connected");
    await pass();
    expect([page.stage.state.value.full, page.stage.connection.value]).toEqual([false, "live"]);
  });
  it("is not offered before the stage is live", async () => {
    await connect(snapshot({ stage: { ...LISTENING.stage, status: "none" } }));
    expect(sent("offer")).toEqual([]);
    await patch({ stage: LISTENING.stage });
    expect(sent("offer")).toHaveLength(1);
  });
  it("gone for 3 s brings an ICE restart, then a new connection", async () => {
    await connect(LISTENING);
    await flow(5_000);
    expect(page.stage.connection.value).toBe("live");
    await mute(4_500);
    expect(page.stage.connection.value).toBe("lost");
    expect([FakePeer.all.length, FakePeer.last.restarts]).toEqual([1, 1]);
    await answer("offer", { t: "answer", sdp: "answer" });
    await mute(6_000);
    expect(FakePeer.all).toHaveLength(2);
    await answer("offer", { t: "answer", sdp: "answer" });
    FakePeer.last.become("connected");
    expect(page.stage.connection.value).toBe("live");
  });
  it("that never comes is said to be blocked", async () => {
    FakeSocket.last.accept();
    FakeSocket.last.say(LISTENING);
    await mute(22_000);
    expect(page.stage.state.value.media).toBe("blocked");
  });
  it("is offered anew when the relay has lost this page", async () => {
    await connect(LISTENING);
    await patch({ me: { ...ME, can_hear: false } });
    expect(sent("offer")).toHaveLength(2);
  });
});

describe("microphone", () => {
  it("is asked for at the first press, and needs no new offer", async () => {
    await connect(SPEAKING);
    expect([tracks.length, page.stage.mic.value]).toEqual([0, "off"]);
    page.toggleMicrophone();
    await pass();
    expect([tracks.length, page.stage.mic.value, sent("mic")[0]?.on]).toEqual([1, "asking", true]);
    await answer("mic");
    expect(page.stage.mic.value).toBe("on");
    expect(FakePeer.last.sender.track).toBe(tracks[0]);
    expect(sent("offer")).toHaveLength(1);
  });
  it("off sends nothing, and on again needs no question", async () => {
    await connect(SPEAKING);
    await microphoneOn();
    page.toggleMicrophone();
    await pass();
    expect([page.stage.mic.value, tracks[0]?.enabled, FakePeer.last.sender.track]).toEqual(["off", false, null]);
    await answer("mic");
    await microphoneOn();
    expect([page.stage.mic.value, tracks.length, tracks[0]?.enabled]).toEqual(["on", 1, true]);
  });
  it("of a listener does nothing", async () => {
    await connect(LISTENING);
    page.toggleMicrophone();
    await pass();
    expect([tracks.length, sent("mic").length]).toEqual([0, 0]);
  });
  it.each([
    ["muted by a moderator", { me: { ...ON_STAGE, muted: true, can_speak: false } }, "muted"],
    ["moved to the audience", { me: ME, speakers: [HOST] }, "absent"],
  ])("%s: the device is let go at once", async (_, change, want) => {
    await connect(SPEAKING);
    await microphoneOn();
    await patch(change);
    expect([page.stage.mic.value, tracks[0]?.readyState, FakePeer.last.sender.track]).toEqual([want, "ended", null]);
  });
  it("does not open by itself when the moderator allows it again", async () => {
    await connect(SPEAKING);
    await microphoneOn();
    await patch({ me: { ...ON_STAGE, muted: true, can_speak: false } });
    await patch({ me: ON_STAGE });
    await pass(5_000);
    expect([page.stage.mic.value, tracks.length]).toEqual(["off", 1]);
    expect(sent("mic").map((each) => each.on)).toEqual([true, false]); // else others would see it open
  });
  it("given while the browser was still asked is not used after a cut", async () => {
    await connect(SPEAKING);
    let give!: (track: FakeTrack) => void;
    microphone = () => new Promise((resolve) => (give = resolve));
    page.toggleMicrophone();
    await pass();
    await patch({ me: ME, speakers: [HOST] });
    const late = new FakeTrack();
    give(late);
    await pass();
    expect([late.readyState, FakePeer.last.sender.track, sent("mic").length]).toEqual(["ended", null, 0]);
  });
  it("denied by the browser is told with its remedy", async () => {
    await connect(SPEAKING);
    microphone = () => Promise.reject(new DOMException("no", "NotAllowedError"));
    page.toggleMicrophone();
    await pass();
    expect([page.stage.mic.value, page.stage.state.value.mic.trouble]).toEqual(["off", "denied"]);
  });
  it("is shown off when the server refuses it", async () => {
    await connect(SPEAKING);
    page.toggleMicrophone();
    await pass();
    await answer("mic", { t: "refused", errcode: "M_FORBIDDEN", error: "no" });
    expect([page.stage.mic.value, tracks[0]?.enabled, page.desk.current.value?.text]).toEqual(["off", false, "no"]);
  });
  it("that gives nothing but zeros for 3 s is told so, until it speaks", async () => {
    await connect(SPEAKING);
    await microphoneOn();
    FakeAudioContext.peak = 0;
    await flow(3_500);
    expect(page.stage.mic.value).toBe("silent");
    FakeAudioContext.peak = 0.1;
    await flow(500);
    expect(page.stage.mic.value).toBe("on");
  });
  it("pulled out is off, and told", async () => {
    await connect(SPEAKING);
    await microphoneOn();
    tracks[0]?.onended?.();
    await pass();
    expect([page.stage.mic.value, page.stage.state.value.mic.trouble, sent("mic")[1]?.on]).toEqual(["off", "gone", false]);
  });
});

describe("a break", () => {
  async function breakSocket(): Promise<void> {
    FakeSocket.last.close();
    await pass(400);
  }
  it("leaves an open microphone open, announced anew once the relay confirms", async () => {
    await connect(SPEAKING);
    await microphoneOn();
    await breakSocket();
    expect(page.stage.connection.value).toBe("lost");
    await connect(snapshot({ me: { ...ME, role: "speaker" }, speakers: SPEAKERS }));
    expect([page.stage.mic.value, sent("mic").length]).toEqual(["asking", 0]);
    await patch({ me: ON_STAGE });
    await answer("mic");
    expect([page.stage.mic.value, FakePeer.last.sender.track]).toEqual(["on", tracks[0]]);
  });
  it("leaves a closed one closed", async () => {
    await connect(SPEAKING);
    await breakSocket();
    await connect(SPEAKING);
    expect([page.stage.mic.value, sent("mic").length, tracks.length]).toEqual(["off", 0, 0]);
  });
  it("in which the place was lost ends with the microphone let go", async () => {
    await connect(SPEAKING);
    await microphoneOn();
    await breakSocket();
    await connect(LISTENING);
    expect([tracks[0]?.readyState, FakePeer.last.sender.track, sent("mic").length]).toEqual(["ended", null, 0]);
  });
  it("that was noticed is told when it is over", async () => {
    await connect(LISTENING);
    FakeSocket.last.close();
    await pass(2_000);
    await connect(LISTENING);
    expect(page.desk.floating.value?.kind).toBe("back");
  });
});

it("says so when it leaves with an open microphone", async () => {
  await connect(SPEAKING);
  await microphoneOn();
  page.leave();
  expect([sent("mic")[1]?.on, tracks[0]?.readyState, page.stage.connection.value]).toEqual([false, "ended", "ended"]);
});

describe("hand", () => {
  it("is on its way until the server shows it", async () => {
    await connect(LISTENING);
    page.raiseHand("  a poem ");
    expect([page.stage.hand.value, sent("hand")[0]?.note]).toEqual(["pending", "a poem"]);
    await answer("hand");
    expect(page.stage.hand.value).toBe("pending");
    await patch({ me: { ...ME, hand: { position: 1 } } });
    expect(page.stage.hand.value).toBe("up");
  });
  it("refused comes down, with the reason", async () => {
    await connect(LISTENING);
    page.raiseHand("");
    await answer("hand", { t: "refused", errcode: "M_FORBIDDEN", error: "hands are closed" });
    expect([page.stage.hand.value, page.desk.current.value?.text]).toEqual(["down", "hands are closed"]);
  });
  it("that nothing comes back for is not shown for ever", async () => {
    await connect(LISTENING);
    page.raiseHand("");
    await answer("hand");
    await flow(16_000);
    expect(page.stage.hand.value).toBe("down");
  });
});

describe("somebody who is not for me", () => {
  const without = (...left_out: string[]): Snapshot => snapshot({ me: { ...ME, left_out } });
  it("stays so over a break, and is asked for again only where the server has forgotten it", async () => {
    await connect(LISTENING);
    page.leaveOut("@host:a", true);
    expect(sent("leave_out")).toMatchObject([{ user: "@host:a", out: true }]);
    await answer("leave_out");
    expect(page.desk.current.value?.text).toMatch(/do not hear .*Host/);
    for (const [frame, asked] of [[without("@host:a"), 0], [LISTENING, 1]] as const) {
      FakeSocket.last.close();
      await pass(6_000);
      await connect(frame);
      expect(sent("leave_out")).toHaveLength(asked);
    }
  });
  it("is known after a reload, and heard again at a press", async () => {
    await connect(LISTENING);
    page.leaveOut("@host:a", true);
    await answer("leave_out");
    page.stop();
    page = open();
    await pass();
    await connect(LISTENING);
    expect(sent("leave_out")).toMatchObject([{ user: "@host:a", out: true }]);
    page.leaveOut("@host:a", false);
    await answer("leave_out");
    FakeSocket.last.close();
    await pass(6_000);
    await connect(LISTENING);
    expect(sent("leave_out")).toHaveLength(0);
  });
  it("is heard on where the server has no mix for it, which it says", async () => {
    await connect(LISTENING);
    page.leaveOut("@host:a", true);
    await answer("leave_out", { t: "refused", errcode: "M_FORBIDDEN", error: "no mix" });
    expect(page.desk.current.value).toMatchObject({ text: "no mix", tone: "bad" });
    FakeSocket.last.close();
    await pass(6_000);
    await connect(LISTENING);
    expect(sent("leave_out")).toHaveLength(0);
  });
});

describe("a stage for music", () => {
  const sounds = (sound: "voice" | "music"): Snapshot["stage"] => ({ ...LISTENING.stage, sound });
  it("is offered to anew by those on the stage alone, on the same connection, with an unfiltered microphone", async () => {
    await connect(SPEAKING);
    await microphoneOn();
    const capture = vi.spyOn(navigator.mediaDevices, "getUserMedia");
    await patch({ stage: sounds("music") });
    await answer("offer", { t: "answer", sdp: "answer" });
    expect([sent("offer").length, FakePeer.all.length]).toEqual([2, 1]);
    expect(capture.mock.calls).toMatchObject([[{ audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: { ideal: 2 } } }]]);
    expect(tracks[0]?.readyState).toBe("ended");
    expect(page.stage.mic.value).toBe("on");
    await patch({ stage: { ...sounds("music"), topic: "another" } });
    expect(sent("offer")).toHaveLength(2);
  });
  it("is offered to by a listener when coming up", async () => {
    await connect(LISTENING);
    await patch({ stage: sounds("music") });
    expect(sent("offer")).toHaveLength(1);
    await patch({ me: ON_STAGE, speakers: SPEAKERS });
    expect(sent("offer")).toHaveLength(2);
  });
  it("is heard in both channels: our description says that we take two", () => {
    const offer = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\na=x\r\n";
    expect(withStereo(offer)).toBe(offer.replace("fec=1", "fec=1;stereo=1"));
    expect(withStereo(withStereo(offer))).toBe(withStereo(offer));
    expect(withStereo("m=audio 9 RTP/AVP 0\r\n")).toBe("m=audio 9 RTP/AVP 0\r\n");
  });
});

describe("the end", () => {
  it.each(["ended", "removed", "left_room", "elsewhere"])("bye %s closes all and stays closed", async (reason) => {
    await connect(SPEAKING);
    await microphoneOn();
    FakeSocket.last.say({ t: "bye", reason, error: "why" });
    await pass(30_000);
    expect(page.stage.state.value.closed?.why).toBe(reason);
    expect([FakeSocket.all.length, tracks[0]?.readyState, FakePeer.last.connectionState]).toEqual([1, "ended", "closed"]);
  });
  it("bye restart and bye expired come back", async () => {
    await connect(LISTENING);
    FakeSocket.last.say({ t: "bye", reason: "restart", error: "" });
    await pass(1_000);
    expect(FakeSocket.all).toHaveLength(2);
    await connect(LISTENING);
    FakeSocket.last.say({ t: "bye", reason: "expired", error: "" });
    await pass(1_000);
    expect(FakeSocket.all).toHaveLength(3);
  });
  it("bye full says so, and comes back until there is a place", async () => {
    await connect(LISTENING);
    FakeSocket.last.say({ t: "bye", reason: "full", error: "no place" });
    await pass();
    expect([page.stage.state.value.full, page.stage.state.value.closed]).toEqual([true, null]);
    await pass(1_000);
    expect(FakeSocket.all).toHaveLength(2);
    await connect(LISTENING);
    expect(page.stage.state.value.full).toBe(false);
  });
  it("asks for a snapshot after a gap", async () => {
    await connect(LISTENING);
    seq += 1;
    await patch({ queue: [] });
    expect(sent("resync")).toHaveLength(1);
  });
});
