/** The small sounds: when they come, when not, and how loud they can be at most. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { chooseSounds, chooseVolume } from "../src/preferences";
import { PEAK, SCORE, soundWhatHappens, Sounds } from "../src/sounds";
import type { SoundName } from "../src/sounds";
import { createStage, EMPTY } from "../src/stage";
import type { Stage, State } from "../src/stage";
import { HOST, ME, ON_STAGE, person, snapshot } from "./make";

const base: State = { ...EMPTY, ...snapshot(), socket: "open", media: "up" };
const onStage: State = { ...base, me: ON_STAGE, speakers: [HOST, person("@me:a")] };
const open = { wanted: true, asking: false, taken: true, silent: false, trouble: null };
let played: SoundName[];
let stage: Stage;
let stop: () => void;

beforeEach(() => {
  played = [];
  stage = createStage(onStage);
  stop = soundWhatHappens(stage, (name) => played.push(name));
});
afterEach(() => {
  stop();
  chooseSounds(true);
  chooseVolume(1);
  vi.unstubAllGlobals();
});

describe("a sound comes when", () => {
  it("the own microphone opens and closes, whoever closes it", () => {
    stage.setMic(open);
    stage.setMic({ silent: true }); // still open
    stage.setMic({ ...open, wanted: false, taken: false });
    stage.setMic(open);
    stage.set({ me: { ...ON_STAGE, muted: true } });
    expect(played).toEqual(["opened", "closed", "opened", "closed"]);
  });
  it("it is not heard any more because the connection broke or the stage ended", () => {
    stage.setMic(open);
    stage.set({ media: "broken" });
    stage.set({ media: "up" });
    stage.set({ closed: { why: "ended", text: "" } });
    expect(played).toEqual(["opened", "closed", "opened", "closed"]);
  });
  it("one is invited, once for each invitation", () => {
    const invited = { ...ME, invited: { by: "@host:a", by_name: "Host" } };
    stage.set({ ...base, me: invited });
    stage.set({ me: { ...invited, may_raise: false } });
    stage.set({ me: ME });
    stage.set({ me: invited });
    expect(played).toEqual(["invited", "invited"]);
  });
  it("never for what others do, nor for a wish", () => {
    stage.setMic({ ...open, asking: true, taken: false });
    stage.set({ speakers: [HOST, person("@me:a"), person("@new:a", { mic: "on" })], audience: { count: 9, hands: 2, faces: [] } });
    expect(played).toEqual([]);
  });
});

class Context {
  static all: Context[] = [];
  currentTime = 0;
  destination = {};
  tones: { from: number; loudest: number }[] = [];
  closed = false;
  constructor() {
    Context.all.push(this);
  }
  resume = (): Promise<void> => Promise.resolve();
  suspend = (): Promise<void> => Promise.resolve();
  close(): Promise<void> {
    this.closed = true;
    return Promise.resolve();
  }
}

class Param {
  constructor(readonly peak: (value: number) => void) {}
  setValueAtTime = (): this => this;
  exponentialRampToValueAtTime = (): this => this;
  linearRampToValueAtTime(value: number): this {
    this.peak(value);
    return this;
  }
}

describe("what is played", () => {
  beforeEach(() => {
    Context.all = [];
    vi.stubGlobal("AudioContext", Context);
    vi.stubGlobal("OscillatorNode", class {
      frequency = new Param(() => undefined);
      connect = <T>(to: T): T => to;
      start(): void {}
      stop(): void {}
    });
    vi.stubGlobal("GainNode", class {
      gain: Param;
      constructor(context: Context) {
        this.gain = new Param((loudest) => context.tones.push({ from: 0, loudest }));
      }
      connect = <T>(to: T): T => to;
    });
  });

  it.each(["invited", "opened", "closed"] as const)("%s is never above −24 dBFS, all its tones taken together", (name) => {
    new Sounds().play(name);
    const sum = Context.all[0]!.tones.reduce((all, each) => all + each.loudest, 0);
    const together = name === "invited" ? sum / 2 + PEAK * 0.3 : sum; // the first note has lost most of it when the second is struck
    expect(Context.all[0]!.tones).toHaveLength(SCORE[name].length);
    expect(together).toBeLessThanOrEqual(PEAK * 1.0001);
    expect(together).toBeGreaterThan(PEAK * 0.5);
  });
  it("is nothing where it is switched off or the volume is down, and less where that is low", () => {
    const sounds = new Sounds();
    chooseSounds(false);
    sounds.play("opened");
    chooseSounds(true);
    chooseVolume(0);
    sounds.play("opened");
    expect(Context.all).toHaveLength(0);
    chooseVolume(0.25);
    sounds.play("opened");
    expect(Context.all[0]!.tones[0]!.loudest).toBeCloseTo(PEAK / 4);
  });
  it("uses one context, and lets it go", () => {
    const sounds = new Sounds();
    sounds.play("opened");
    sounds.play("closed");
    sounds.close();
    sounds.close();
    expect(Context.all.map((each) => each.closed)).toEqual([true]);
  });
});
