/**
 * Three small sounds that only this person hears, made here by oscillators: two santur-like notes when somebody invites
 * you, one dry click up or down when your own microphone opens or closes. No peak is above −24 dBFS, and a lower volume
 * lowers them too. One switch turns them off. Nothing sounds for what others do.
 *
 * Owner of one AudioContext, made at the first sound and suspended after each. `close` lets it go, harmless twice.
 */
import { effect } from "@preact/signals";
import { sounds, volume } from "./preferences";
import type { Stage } from "./stage";

export type SoundName = "invited" | "opened" | "closed";

/** One oscillator: `hz` glides to `to` while its gain falls from `gain` to a thousandth of it within `lasts` seconds. */
export interface Tone {
  at: number;
  lasts: number;
  hz: number;
  to?: number;
  gain: number; // 1 is PEAK
}

export const PEAK = 10 ** (-24 / 20);
const ATTACK = 0.002; // s: a hammer, without the crackle of a jump

/** A struck course of strings: two a little apart so that they beat, and partials that die the sooner the higher they are. */
function struck(at: number, hz: number): Tone[] {
  const partials: [number, number, number][] = [[1, 0.42, 1.1], [1.003, 0.22, 1.1], [2.002, 0.2, 0.6], [3.008, 0.1, 0.35], [4.02, 0.06, 0.2]];
  return partials.map(([ratio, gain, lasts]) => ({ at, lasts, hz: hz * ratio, gain: gain * 0.7 }));
}

/** The second note enters while the first rings: their gains together stay below 1. */
export const SCORE: Record<SoundName, Tone[]> = {
  invited: [...struck(0, 587.33), ...struck(0.17, 783.99)], // D5, G5: a fourth up
  opened: [{ at: 0, lasts: 0.045, hz: 900, to: 1600, gain: 1 }],
  closed: [{ at: 0, lasts: 0.045, hz: 1300, to: 650, gain: 1 }],
};

/** Puts a sound's tones into the context, from `start` (its own seconds) on; the last of them, or null. */
export function schedule(context: BaseAudioContext, name: SoundName, start: number, loudness: number): OscillatorNode | null {
  let last: OscillatorNode | null = null;
  let end = 0;
  for (const { at, lasts, hz, to, gain } of SCORE[name]) {
    const [begins, peak, ends] = [start + at, start + at + ATTACK, start + at + lasts];
    const tone = new OscillatorNode(context, { type: "sine", frequency: hz });
    const fall = new GainNode(context, { gain: 0 });
    if (to !== undefined) tone.frequency.setValueAtTime(hz, begins).exponentialRampToValueAtTime(to, ends);
    const loudest = gain * PEAK * loudness;
    fall.gain.setValueAtTime(0, begins).linearRampToValueAtTime(loudest, peak).exponentialRampToValueAtTime(loudest / 1000, ends);
    tone.connect(fall).connect(context.destination);
    tone.start(begins);
    tone.stop(ends);
    if (last === null || ends > end) [last, end] = [tone, ends];
  }
  return last;
}

export class Sounds {
  private context: AudioContext | null = null;
  private ringing = 0;

  /** Silent where the person wants none, or the browser has seen no touch yet and would refuse. */
  play(name: SoundName): void {
    if (!sounds.peek() || volume.peek() === 0 || navigator.userActivation?.hasBeenActive === false) return;
    try {
      const context = (this.context ??= new AudioContext());
      void context.resume().catch(() => undefined);
      const last = schedule(context, name, context.currentTime + 0.01, volume.peek());
      this.ringing++;
      if (last !== null) last.onended = () => this.rest(context);
    } catch {
      // a browser without a sound device: the page shows all that these say
    }
  }

  /** Harmless twice. */
  close(): void {
    void this.context?.close().catch(() => undefined);
    this.context = null;
  }

  private rest(context: AudioContext): void {
    if (--this.ringing === 0 && context === this.context) void context.suspend().catch(() => undefined);
  }
}

/** Plays what becomes true of this person, until the returned function is called. */
export function soundWhatHappens(stage: Stage, play: (name: SoundName) => void): () => void {
  let open = false;
  let invited = false;
  const stops = [
    effect(() => {
      const mic = stage.mic.value;
      const now = stage.state.value.closed === null && (mic === "on" || mic === "silent");
      if (now !== open) play(now ? "opened" : "closed");
      open = now;
    }),
    effect(() => {
      const now = stage.hand.value === "invited";
      if (now && !invited) play("invited");
      invited = now;
    }),
  ];
  return () => stops.forEach((stop) => stop());
}
