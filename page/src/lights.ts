/**
 * A voice's light: levels from the server (CSRC → −dBov, RFC 6464), in time with the sound where the browser tells the
 * contributing sources. One loop for all, that sleeps while nobody talks; only nodes whose light changed are written.
 */
import { signal } from "@preact/signals";
import type { Person } from "./messages";

const ATTACK = 60; // ms to reach a higher level
const RELEASE = 260;
const TALKING_FROM = 0.12;
const TALKING_AFTER = 120; // ms above it until somebody counts as talking
const QUIET_AFTER = 600;
const STALE = 600; // ms after which a level that was not repeated is taken for silence
const STEP = 0.02; // a smaller change is not worth a style write
const FRAME = 16;

/** Level 0 (loudest) … 127 (silence), in −dBov → light 0 … 1. */
export function lightOf(level: number): number {
  return Math.min(1, Math.max(0, (60 - level) / 45));
}

type Lit = Pick<Person, "user" | "csrc" | "mic">;

interface Voice {
  level: number;
  shown: number;
  above: number; // ms above / below the talking mark
  below: number;
  talking: boolean;
}

export class Lights {
  /** User ids of those who talk now; changes with each beginning and end, not with each level. */
  readonly talking = signal<ReadonlySet<string>>(new Set());
  private levels = new Map<string, number>(); // by CSRC, as the frame has them
  private at = 0;
  private readonly nodes = new Map<string, Set<HTMLElement>>();
  private readonly voices = new Map<string, Voice>();
  private people: Lit[] = [];
  private frame = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private last = 0;

  /** `heard`: CSRCs in the sound at this moment, or null where nobody can tell. */
  constructor(private readonly heard: () => ReadonlySet<number> | null) {}

  /** A cut shows at once: whoever is muted or gone is dark, however loud a moment ago. */
  setPeople(people: Lit[]): void {
    this.people = people;
    const open = new Set(people.filter((each) => each.mic !== "muted").map((each) => each.user));
    for (const [user, voice] of [...this.voices]) {
      if (open.has(user)) continue;
      voice.level = 0;
      this.write(user, voice);
      this.voices.delete(user);
    }
    this.publish();
  }

  take(levels: Record<string, number>): void {
    this.levels = new Map(Object.entries(levels));
    this.at = performance.now();
    this.start();
  }

  /** The node whose `--level` follows this user's voice; returns what lets it go. */
  attach(user: string, node: HTMLElement): () => void {
    const nodes = this.nodes.get(user) ?? new Set();
    this.nodes.set(user, nodes.add(node));
    return () => {
      nodes.delete(node);
      if (nodes.size === 0) this.nodes.delete(user);
    };
  }

  stop(): void {
    cancelAnimationFrame(this.frame);
    clearTimeout(this.timer);
    this.frame = 0;
  }

  /** Moves all lights on by `dt` ms; true while one of them is lit. */
  step(dt: number, now: number): boolean {
    const heard = this.heard();
    const stale = now - this.at > STALE;
    let lit = false;
    let changed = false;
    for (const { user, csrc, mic } of this.people) {
      const target = stale || mic === "muted" ? 0 : this.target(csrc, heard);
      const voice = this.voices.get(user) ?? { level: 0, shown: 0, above: 0, below: 0, talking: false };
      this.voices.set(user, voice);
      const speed = target > voice.level ? ATTACK : RELEASE;
      voice.level += (target - voice.level) * Math.min(1, dt / speed);
      if (voice.level < 0.005) voice.level = 0;
      changed = talks(voice, dt) || changed;
      this.write(user, voice);
      lit ||= voice.level > 0 || voice.talking;
    }
    if (changed) this.publish();
    return lit || !stale;
  }

  private target(csrc: number[], heard: ReadonlySet<number> | null): number {
    let light = 0;
    for (const each of csrc) {
      const level = this.levels.get(String(each));
      if (level !== undefined && (heard === null || heard.has(each))) light = Math.max(light, lightOf(level));
    }
    return light;
  }

  private write(user: string, voice: Voice): void {
    if (Math.abs(voice.level - voice.shown) < STEP && (voice.level > 0 || voice.shown === 0)) return;
    voice.shown = voice.level;
    for (const node of this.nodes.get(user) ?? []) node.style.setProperty("--level", voice.level.toFixed(2));
  }

  private publish(): void {
    const now = this.people.filter(({ user }) => this.voices.get(user)?.talking).map(({ user }) => user);
    const before = this.talking.peek();
    if (now.length !== before.size || now.some((user) => !before.has(user))) this.talking.value = new Set(now);
  }

  private start(): void {
    if (this.frame !== 0) return;
    this.last = performance.now();
    this.next();
  }

  /** A hidden page has no animation frames; a slow timer keeps "who talks" right there. */
  private next(): void {
    const run = (): void => {
      cancelAnimationFrame(this.frame);
      clearTimeout(this.timer);
      const now = performance.now();
      const on = this.step(Math.max(FRAME / 2, now - this.last), now);
      this.last = now;
      this.frame = 0;
      if (on) this.next();
    };
    this.frame = requestAnimationFrame(run);
    this.timer = setTimeout(run, 250);
  }
}

/** Hysteresis of "talks"; true when it turned. */
function talks(voice: Voice, dt: number): boolean {
  const loud = voice.level >= TALKING_FROM;
  voice.above = loud ? voice.above + dt : 0;
  voice.below = loud ? 0 : voice.below + dt;
  const next = voice.talking ? voice.below < QUIET_AFTER : voice.above >= TALKING_AFTER;
  const turned = next !== voice.talking;
  voice.talking = next;
  return turned;
}
