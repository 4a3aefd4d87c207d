/**
 * What this page knows of its stage: one signal, all else computed from it. Pure: no network, no DOM, no clock.
 *
 * Wishes (a hand on its way, a microphone asked for) stand apart from what the server has confirmed, so that a view can
 * never take one for the other.
 *
 *   socket   opening → open ⇄ broken            media   none → connecting → up ⇄ broken → blocked
 *   hand     down → pending → up → pending → down,  any → invited,  any → closed
 *   mic      absent → off → asking → on ⇄ silent,   any → muted | absent (a cut shows at once)
 */
import { computed, signal } from "@preact/signals";
import type { ReadonlySignal, Signal } from "@preact/signals";
import type { Audience, ByeReason, Hand, Me, Patch, Person, Snapshot, StageInfo } from "./messages";

export type ConnectionState = "connecting" | "live" | "lost" | "ended";
export type HandState = "down" | "pending" | "up" | "invited" | "closed";
export type MicButton = "absent" | "off" | "asking" | "on" | "silent" | "muted";
/** Why the microphone could not be opened. `gone`: it was unplugged. `insecure`: the page is not served by HTTPS. */
export type MicTrouble = "denied" | "missing" | "busy" | "gone" | "insecure";
/** Reasons of an ErrorBody for a link that does not open. */
export type LinkTrouble = "expired" | "altered" | "revoked" | "devices" | "membership" | "unknown";
/** Of a page in a client's frame: nobody says who the person is; there is no client around it. */
export type WidgetTrouble = "identity" | "client";
export type Closing = Exclude<ByeReason, "restart" | "slow" | "full" | "expired"> | LinkTrouble | WidgetTrouble | "guests" | "over" | "left";
/** `coming`: the room's state gives a place on the stage, the relay has not confirmed it yet. */
export type Standing = "audience" | "coming" | "stage";

export interface MicWish {
  /** The person wants to be heard: set by a press alone, cleared by a press or a cut. */
  wanted: boolean;
  /** The browser or the server has not answered yet. */
  asking: boolean;
  /** The server has taken our `mic: on`. */
  taken: boolean;
  silent: boolean;
  trouble: MicTrouble | null;
}

export interface State {
  seq: number;
  stage: StageInfo | null;
  me: Me | null;
  speakers: Person[];
  audience: Audience;
  queue: Hand[];
  /** The server's clock minus ours, ms. */
  skew: number;
  /** Most listeners seen at once, for the page's farewell. */
  peak: number;
  /** All who stood on the stage while this page looked on. */
  spoke: Person[];
  socket: "opening" | "open" | "broken";
  media: "none" | "connecting" | "up" | "broken" | "blocked";
  sound: "waiting" | "refused" | "playing";
  /** The server has no place for us at the moment; we ask again by ourselves. */
  full: boolean;
  closed: { why: Closing; text: string } | null;
  handWish: "up" | "down" | null;
  mic: MicWish;
}

const NO_MIC: MicWish = { wanted: false, asking: false, taken: false, silent: false, trouble: null };
const MAX_SPOKE = 60; // people remembered for the farewell; later ones are not added

export const EMPTY: State = {
  seq: 0,
  stage: null,
  me: null,
  speakers: [],
  audience: { count: 0, hands: 0, faces: [] },
  queue: [],
  skew: 0,
  peak: 0,
  spoke: [],
  socket: "opening",
  media: "none",
  sound: "waiting",
  full: false,
  closed: null,
  handWish: null,
  mic: NO_MIC,
};

/** A snapshot replaces all that the server says; wishes and the page's own life stay. */
export function withSnapshot(state: State, frame: Snapshot, now: number): State {
  const { seq, stage, me, speakers, audience, queue } = frame;
  const next = { ...state, seq, stage, me, speakers, audience, queue, socket: "open" as const, full: false };
  const moved = sinceOf(state) !== sinceOf(next) && state.me !== null; // down and up again while we were away
  return settle(state, { ...next, skew: stage.server_ts - now, ...(moved && { mic: NO_MIC }) });
}

/** The state after a patch; `"gap"` where one was missed: ask for a snapshot. A repeated one changes nothing. */
export function withPatch(state: State, frame: Patch): State | "gap" {
  if (state.stage === null || frame.seq > state.seq + 1) return "gap";
  if (frame.seq <= state.seq) return state;
  return settle(state, {
    ...state,
    seq: frame.seq,
    stage: frame.stage ?? state.stage,
    me: frame.me ?? state.me,
    speakers: frame.speakers ?? state.speakers,
    audience: frame.audience ?? state.audience,
    queue: frame.queue ?? state.queue,
  });
}

/** Wishes that came true or were overtaken are dropped. Whoever is cut, moved down or brought up anew is muted. */
function settle(before: State, state: State): State {
  const { me } = state;
  if (me === null) return state;
  const next = { ...state, peak: Math.max(state.peak, state.audience.count), spoke: remember(state.spoke, state.speakers) };
  const standing = standingOf(next);
  if (next.handWish === "up" && (me.hand !== null || standing !== "audience" || me.invited !== null)) next.handWish = null;
  if (next.handWish === "down" && me.hand === null) next.handWish = null;
  const anew = before.me !== null && standingOf(before) === "audience" && standing !== "audience";
  if (!mayHoldMic(next) || anew) next.mic = NO_MIC;
  if (next.stage?.status === "ended") next.closed ??= { why: "ended", text: "" };
  return next;
}

function remember(known: Person[], speakers: Person[]): Person[] {
  const names = new Set(known.map((each) => each.user));
  const added = speakers.filter((each) => !names.has(each.user));
  return added.length === 0 ? known : [...known, ...added].slice(0, MAX_SPOKE);
}

/** This page's person among the speakers. */
export function selfOf({ me, speakers }: State): Person | null {
  if (me === null || me.user === null) return null;
  return speakers.find((each) => each.user === me.user) ?? null;
}

function sinceOf(state: State): number | null {
  return selfOf(state)?.since ?? null;
}

export function standingOf(state: State): Standing {
  if (state.me?.place === "stage") return "stage";
  return selfOf(state) === null ? "audience" : "coming";
}

/** On the stage and not muted by a moderator: the microphone is the person's own to turn on. */
export function mayHoldMic(state: State): boolean {
  return standingOf(state) !== "audience" && state.me?.muted === false && selfOf(state)?.mic !== "muted";
}

export function connectionOf(state: State): ConnectionState {
  if (state.closed !== null) return "ended";
  if (state.stage === null) return "connecting";
  if (state.socket !== "open") return "lost"; // there was a snapshot: the page tries again
  if (state.stage.status !== "live") return "live"; // no sound to wait for
  if (state.media === "up") return "live";
  return state.media === "broken" || state.media === "blocked" ? "lost" : "connecting";
}

export function handOf(state: State): HandState {
  const { me, stage } = state;
  if (me === null || stage === null) return "closed";
  if (me.invited !== null) return "invited";
  if (state.handWish !== null) return "pending";
  if (me.hand !== null) return "up";
  return me.may_raise && stage.hands !== "off" && stage.status === "live" ? "down" : "closed";
}

export function micOf(state: State): MicButton {
  const { me, mic, stage } = state;
  if (me === null || standingOf(state) === "audience" || stage?.status !== "live") return "absent";
  if (!mayHoldMic(state)) return "muted";
  if (!me.can_speak) return mic.wanted ? "asking" : "absent";
  if (mic.asking) return "asking";
  if (!mic.wanted) return "off";
  if (!mic.taken || state.media !== "up") return "asking"; // nobody hears it at this moment
  return mic.silent ? "silent" : "on";
}

export interface Scene {
  /** The host; without one the longest on the stage, moderators first. */
  middle: Person | null;
  /** At most two moderators, the longest on the stage, one for each side of the middle. */
  sides: Person[];
  /** By arrival; the order never jumps. */
  others: Person[];
}

export function sceneOf(speakers: Person[]): Scene {
  const byArrival = [...speakers].sort((a, b) => a.since - b.since || (a.user < b.user ? -1 : 1));
  const first = (role: Person["role"]): Person | undefined => byArrival.find((each) => each.role === role);
  const middle = first("host") ?? first("moderator") ?? byArrival[0] ?? null;
  const sides = byArrival.filter((each) => each.role === "moderator" && each !== middle).slice(0, 2);
  const front = new Set([middle, ...sides]);
  return { middle, sides, others: byArrival.filter((each) => !front.has(each)) };
}

export interface Stage {
  readonly state: Signal<State>;
  readonly connection: ReadonlySignal<ConnectionState>;
  readonly hand: ReadonlySignal<HandState>;
  readonly mic: ReadonlySignal<MicButton>;
  readonly standing: ReadonlySignal<Standing>;
  readonly scene: ReadonlySignal<Scene>;
  /** Changes some of the page's own values. */
  set(change: Partial<State>): void;
  setMic(change: Partial<MicWish>): void;
}

export function createStage(start: State = EMPTY): Stage {
  const state = signal(start);
  const set = (change: Partial<State>): void => {
    state.value = { ...state.peek(), ...change };
  };
  const speakers = computed(() => state.value.speakers);
  return {
    state,
    connection: computed(() => connectionOf(state.value)),
    hand: computed(() => handOf(state.value)),
    mic: computed(() => micOf(state.value)),
    standing: computed(() => standingOf(state.value)),
    scene: computed(() => sceneOf(speakers.value)),
    set,
    setMic: (change) => set({ mic: { ...state.peek().mic, ...change } }),
  };
}
