/** Stand-ins for the server, for `npm run dev` with `?mock=…` and for dev/shots.mjs. Never in the production build. */
import { signal } from "@preact/signals";
import { Desk } from "../src/desk";
import type { Act, Face, Hand, Me, Person } from "../src/messages";
import { chooseLang, chooseTheme, lang } from "../src/preferences";
import { createStage, EMPTY } from "../src/stage";
import type { Closing, State } from "../src/stage";
import type { Controls } from "../src/view/context";

const NAMES: Record<string, [string, string]> = {
  maryam: ["مریم", "Maryam"],
  arash: ["آرش", "Arash"],
  jonas: ["Jonas", "Jonas"],
  sara: ["سارا", "Sara"],
  babak: ["بابک", "Babak"],
  kian: ["کیان", "Kian"],
  parvin: ["پروین", "Parvin"],
  laleh: ["لاله", "Laleh"],
  niloofar: ["نیلوفر", "Niloofar"],
  omid: ["امید", "Omid"],
  yalda: ["یلدا", "Yalda"],
  reza: ["رضا", "Reza"],
  mina: ["مینا", "مینا"],
  shirin: ["شیرین", "Shirin"],
};
const MINUTE = 60_000;
const ALL_ACTS: Act[] = ["invite", "bring_up", "not_now", "to_audience", "mute", "unmute", "kick", "make_moderator", "end", "topic", "sound"];

const pick = (fa: string, en: string): string => (lang.peek() === "fa" ? fa : en);
const id = (user: string): string => `@${user}:bagh.example`;
const named = (user: string): string => pick(...(NAMES[user] ?? [user, user]));

function person(user: string, role: Person["role"], mic: Person["mic"], since: number): Person {
  return { user: id(user), name: named(user), role, mic, csrc: [], connected: true, since, coming: false };
}

function speakers(): Person[] {
  return [
    person("maryam", "host", "on", 1),
    person("arash", "moderator", "on", 2),
    person("jonas", "moderator", "off", 3),
    person("sara", "speaker", "on", 4),
    person("babak", "speaker", "muted", 5),
    { ...person("kian", "speaker", "off", 6), connected: false },
  ];
}

function many(): Person[] {
  const more = ["parvin", "omid", "laleh", "yalda", "reza", "niloofar", "mina"];
  return [...speakers(), ...more.map((user, i) => person(user, "speaker", i % 3 === 1 ? "on" : "off", 10 + i))];
}

/** Names as people have them: long, of one word, in the other direction, with signs that have none. */
const ODD_NAMES = [
  "محمدحسین بهجت تبریزی (شهریار)", "Maximiliane-Theodora von Hohenschwangau-Lichtenstein", "سارا 🌙", "🎧🎶", "Ada", "علیرضا قربانی‌نژاد شاندیز", "O’Neill, Seán",
  "@reza", "نازنین Moghaddam", "Kian 🇮🇷 (he/him)", "ژ", "Wolfeschlegelsteinhausenbergerdorff", "بی‌بی‌خانم استرآبادی", "李清照", "שירה כהן", "Zoë", "1984", "دکتر فاطمه‌سادات موسوی", "…", "مهسا",
];

function oddNamed(count: number, from: number): { user: string; name: string }[] {
  return Array.from({ length: count }, (_, i) => ({ user: id(`odd${from + i}`), name: ODD_NAMES[(from + i) % ODD_NAMES.length]! }));
}

function crowd(state: State, moderates: boolean): State {
  const onStage = oddNamed(20, 0).map(({ user, name }, i) => ({
    ...person("x", i === 0 ? "host" : i < 3 ? "moderator" : "speaker", i % 3 === 1 ? "off" : "on", i + 1), user, name,
  }));
  const seated = oddNamed(64, 20).map((each, i) => ({ ...each, hand: i % 7 === 2 }));
  const hands = seated.filter((each) => each.hand).map(({ user, name }, i) => ({ user, name, ts: Date.now() - (9 - i) * MINUTE, note: i % 2 === 0 ? "یک پرسش دربارهٔ Sonnet 18 و وزن آن در فارسی، اگر وقت شد" : "A short one", via: "web" as const }));
  const title = { room_name: pick("انجمن دوستداران شعر و موسیقی ایران‌زمین: نشست صد و بیست و سوم", "The Society of Friends of Poetry and Music: evening one hundred and twenty-three"), topic: "Rumi، حافظ، and everything between" };
  return {
    ...state, speakers: onStage, audience: { count: 1312, hands: hands.length, faces: seated }, spoke: onStage,
    stage: state.stage && { ...state.stage, ...title },
    ...(moderates && { me: { ...MODERATOR, user: onStage[1]!.user, name: onStage[1]!.name }, queue: hands, mic: onMic }),
  };
}

function queue(now: number): Hand[] {
  const hand = (user: string, minutes: number, note: string): Hand => ({ user: id(user), name: named(user), ts: now - minutes * MINUTE, note, via: "web" });
  return [
    hand("niloofar", 4, pick("پرسشی دربارهٔ بیت مولانا، و شعر کوتاهی از خودم", "A question on the Rumi line, and a short poem of mine")),
    hand("omid", 3, pick("کدام نسخه؟", "Which edition?")),
    hand("yalda", 2, pick("سیمین، «دوباره می‌سازمت وطن»", "Simin, ‘My country, I will build you again’")),
    hand("reza", 1, ""),
  ];
}

function faces(): Face[] {
  const users = ["niloofar", "omid", "laleh", "parvin", "reza", "yalda", "mina", "shirin"];
  return users.map((user) => ({ user: id(user), name: named(user), hand: ["niloofar", "omid", "yalda", "reza"].includes(user) }));
}

const LISTENER: Me = {
  user: id("shirin"),
  name: "Shirin",
  role: "listener",
  place: "audience",
  muted: false,
  can_speak: false,
  can_hear: true,
  hand: null,
  invited: null,
  can: [],
  may_raise: true,
  left_out: [],
};
const SPEAKER: Me = { ...LISTENER, role: "speaker", place: "stage", can_speak: true, may_raise: false };
const MODERATOR: Me = { ...SPEAKER, user: id("arash"), role: "moderator", can: ALL_ACTS };

function base(): State {
  const now = Date.now();
  return {
    ...EMPTY,
    seq: 1,
    stage: {
      id: "5c9XkYfVqk2rT1w0",
      status: "live",
      topic: pick("شعری بخوانید و بگویید چرا با شما ماند", "Read a poem, tell us why it stayed with you"),
      room_name: pick("شب شعر: از حافظ تا سیمین", "Poetry night: from Hafez to Simin"),
      room_id: "!bagh:bagh.example",
      host: id("maryam"),
      started_ts: now - 48 * MINUTE,
      ended_ts: null,
      hands: "everyone",
      sound: "voice",
      server_ts: now,
    },
    me: LISTENER,
    speakers: speakers(),
    audience: { count: 312, hands: 4, faces: faces() },
    socket: "open",
    media: "up",
    sound: "playing",
    peak: 341,
    spoke: speakers(),
  };
}

function withSelf(state: State, mic: Person["mic"]): State {
  return { ...state, me: SPEAKER, speakers: [...state.speakers, person("shirin", "speaker", mic, 9)] };
}

type Change = (state: State, desk: Desk) => State;

const onMic = { wanted: true, asking: false, taken: true, silent: false, trouble: null };

const closing =
  (why: Closing): Change =>
  (s) => ({ ...s, closed: { why, text: "" }, ...(["left", "elsewhere"].includes(why) ? {} : { stage: null }) });

const STATES: Record<string, Change> = {
  listener: (s) => s,
  many: (s) => ({ ...s, speakers: many(), audience: { ...s.audience, count: 4120 } }),
  crowd: (s) => crowd(s, false),
  crowddesk: (s) => crowd(s, true),
  crowdpeople: (s, desk) => (desk.open({ kind: "people" }), (desk.tab.value = "people"), crowd(s, true)),
  crowdhands: (s, desk) => (desk.open({ kind: "hands" }), crowd(s, true)),
  small: (s) => ({ ...s, speakers: s.speakers.slice(0, 2), audience: { count: 3, hands: 0, faces: faces().slice(4, 7) } }),
  empty: (s) => ({ ...s, speakers: [], audience: { count: 0, hands: 0, faces: [] } }),
  note: (s, desk) => (desk.open({ kind: "hand" }), s),
  pending: (s) => ({ ...s, handWish: "up" }),
  raised: (s) => ({ ...s, me: { ...LISTENER, hand: { position: 3 } } }),
  closed: (s) => ({ ...s, me: { ...LISTENER, may_raise: false } }),
  invited: (s) => ({ ...s, me: { ...LISTENER, invited: { by: id("maryam"), by_name: named("maryam") } } }),
  connecting: () => EMPTY,
  reconnecting: (s) => ({ ...s, me: { ...LISTENER, hand: { position: 3 } }, socket: "broken" }),
  blocked: (s) => ({ ...s, media: "blocked" }),
  full: () => ({ ...EMPTY, socket: "broken", full: true }),
  door: (s) => ({ ...s, sound: "refused" }),
  guest: (s, desk) => (desk.open({ kind: "guest" }), { ...s, me: { ...LISTENER, user: null, may_raise: false } }),
  people: (s, desk) => (desk.open({ kind: "people" }), (desk.tab.value = "people"), s),
  settings: (s, desk) => (desk.open({ kind: "settings" }), s),
  on: (s) => ({ ...withSelf(s, "on"), mic: onMic }),
  off: (s, desk) => (desk.note({ kind: "notice", key: "to_stage", by: "" }), withSelf(s, "off")),
  asking: (s) => ({ ...withSelf(s, "off"), mic: { ...onMic, asking: true, taken: false } }),
  silent: (s) => ({ ...withSelf(s, "on"), mic: { ...onMic, silent: true } }),
  muted: (s, desk) => {
    desk.note({ kind: "notice", key: "muted", by: named("arash") });
    const state = withSelf(s, "muted");
    return { ...state, me: { ...SPEAKER, muted: true, can_speak: false, may_raise: true } };
  },
  denied: (s) => ({ ...withSelf(s, "off"), mic: { ...EMPTY.mic, trouble: "denied" } }),
  coming: (s) => ({ ...withSelf(s, "off"), me: { ...LISTENER, role: "speaker" } }),
  device: (s, desk) => (desk.open({ kind: "settings" }), { ...withSelf(s, "on"), mic: onMic }),
  desk: (s, desk) => (desk.open({ kind: "hands" }), { ...s, me: MODERATOR, mic: onMic, queue: queue(Date.now()) }),
  moderator: (s) => ({ ...s, me: MODERATOR, mic: onMic, queue: queue(Date.now()) }),
  nohands: (s, desk) => (desk.open({ kind: "hands" }), { ...s, me: MODERATOR, audience: { ...s.audience, hands: 0 } }),
  person: (s, desk) => (desk.open({ kind: "person", user: id("sara") }), { ...s, me: MODERATOR, queue: queue(Date.now()) }),
  undo: (s, desk) => {
    desk.toast({ text: pick("بابک میان شنوندگان است", "Babak is in the audience"), tone: "plain", undo: { label: pick("دعوت دوباره", "Invite back"), run: () => undefined } });
    return { ...s, me: MODERATOR, mic: onMic, queue: queue(Date.now()) };
  },
  end: (s, desk) => (desk.open({ kind: "end" }), { ...s, me: MODERATOR, queue: queue(Date.now()) }),
  deskmenu: (s, desk) => (desk.open({ kind: "settings" }), { ...s, me: MODERATOR, queue: queue(Date.now()) }),
  topic: (s, desk) => (desk.open({ kind: "topic" }), { ...s, me: MODERATOR }),
  ended: (s) => ({ ...s, closed: { why: "ended", text: "" }, stage: s.stage && { ...s.stage, status: "ended", started_ts: Date.now() - 92 * MINUTE, ended_ts: Date.now() } }),
  expired: closing("expired"),
  revoked: closing("revoked"),
  devices: closing("devices"),
  membership: closing("membership"),
  removed: closing("removed"),
  elsewhere: closing("elsewhere"),
  left: closing("left"),
  identity: closing("identity"),
  client: closing("client"),
  confirm: (s, desk) => (desk.note({ kind: "notice", key: "confirm", by: "4829" }), { ...s, me: MODERATOR, mic: onMic, queue: queue(Date.now()) }),
};

/** `?mock=<state>&lang=fa|en&theme=light|dark`, frozen unless `&move`. */
export function mockControls(query: URLSearchParams): Controls {
  if (query.get("lang") === "fa" || query.get("lang") === "en") chooseLang(query.get("lang") as "fa" | "en");
  if (query.get("theme") === "light" || query.get("theme") === "dark") chooseTheme(query.get("theme") as "light" | "dark");
  const desk = new Desk();
  const change = STATES[query.get("mock") ?? ""] ?? STATES.listener!;
  const stage = createStage(change(base(), desk));
  const lit = new Map([[id("maryam"), 0.72], [id("sara"), 0.4], [id("shirin"), 0.8]]);
  const quiet = query.get("mock") !== "on";
  const talking = new Set(["reconnecting", "empty", "connecting"].includes(query.get("mock") ?? "") ? [] : quiet ? [id("maryam"), id("sara")] : [id("shirin")]);
  const attach = (user: string, node: HTMLElement): (() => void) => {
    if (talking.has(user)) node.style.setProperty("--level", String(lit.get(user) ?? 0));
    return () => undefined;
  };
  return {
    stage,
    desk,
    lights: { talking: signal(talking), attach },
    microphone: { level: 0.85 },
    inClient: query.has("widget"),
    listen: () => stage.set({ sound: "playing" }),
    raiseHand: () => stage.set({ handWish: "up" }),
    lowerHand: () => stage.set({ handWish: null }),
    answerInvitation: () => stage.set({ me: LISTENER }),
    toggleMicrophone: () => stage.setMic({ wanted: !stage.state.peek().mic.wanted, taken: true }),
    changeMicrophone: () => Promise.resolve(),
    act: () => Promise.resolve(true),
    leaveOut: (user, out) => {
      const { me } = stage.state.peek();
      if (me !== null) stage.set({ me: { ...me, left_out: out ? [...me.left_out, user] : me.left_out.filter((each) => each !== user) } });
    },
    leave: () => stage.set({ closed: { why: "left", text: "" } }),
    comeBack: () => location.reload(),
  };
}
