// Generated from bridge/web/messages.py by `python -m bridge.web.messages`. Do not edit.

export type Place = "stage" | "audience";
export type Role = "host" | "moderator" | "speaker" | "listener";
export type Mic = "on" | "off" | "muted";
export type Status = "none" | "scheduled" | "live" | "ended";
export type Act = "invite" | "bring_up" | "not_now" | "to_audience" | "mute" | "unmute" | "kick" | "make_moderator" | "end" | "topic" | "sound";
export type ByeReason = "ended" | "removed" | "left_room" | "expired" | "elsewhere" | "restart" | "slow" | "full";
export type NoticeKey = "muted" | "unmuted" | "to_stage" | "to_audience" | "hand_not_now" | "invited" | "invite_declined" | "not_written" | "cut_not_written" | "confirm" | "confirmed" | "confirm_failed";

export interface StageInfo {
  id: string;
  status: "none" | "scheduled" | "live" | "ended";
  topic: string;
  room_name: string;
  room_id: string;
  host: string | null;
  started_ts: number | null;
  ended_ts: number | null;
  hands: "everyone" | "members" | "off";
  sound: "voice" | "music" | "low";
  server_ts: number;
}

export interface Person {
  user: string;
  name: string;
  role: "host" | "moderator" | "speaker" | "listener";
  mic: "on" | "off" | "muted";
  csrc: number[];
  connected: boolean;
  since: number;
  coming: boolean;
}

export interface Face {
  user: string;
  name: string;
  hand: boolean;
}

export interface Audience {
  count: number;
  hands: number;
  faces: Face[];
}

export interface Hand {
  user: string;
  name: string;
  ts: number;
  note: string;
  via: "reaction" | "command" | "web" | "event" | "call";
}

export interface MyHand {
  position: number;
}

export interface Invitation {
  by: string;
  by_name: string;
}

export interface Me {
  user: string | null;
  name: string;
  role: "host" | "moderator" | "speaker" | "listener";
  place: "stage" | "audience";
  muted: boolean;
  can_speak: boolean;
  can_hear: boolean;
  hand: MyHand | null;
  invited: Invitation | null;
  can: ("invite" | "bring_up" | "not_now" | "to_audience" | "mute" | "unmute" | "kick" | "make_moderator" | "end" | "topic" | "sound")[];
  may_raise: boolean;
  left_out: string[];
}

export interface Snapshot {
  seq: number;
  stage: StageInfo;
  me: Me;
  speakers: Person[];
  audience: Audience;
  queue: Hand[];
  t: "snapshot";
}

export interface Patch {
  seq: number;
  stage?: StageInfo | null;
  me?: Me | null;
  speakers?: Person[] | null;
  audience?: Audience | null;
  queue?: Hand[] | null;
  t: "patch";
}

export interface MediaAnswer {
  id: number;
  sdp: string;
  t: "answer";
}

export interface Done {
  id: number;
  t: "done";
}

export interface RefusedAnswer {
  id: number;
  errcode: string;
  error: string;
  retry_after_ms: number | null;
  t: "refused";
}

export interface Levels {
  levels: Record<string, number>;
  t: "levels";
}

export interface Notice {
  key: "muted" | "unmuted" | "to_stage" | "to_audience" | "hand_not_now" | "invited" | "invite_declined" | "not_written" | "cut_not_written" | "confirm" | "confirmed" | "confirm_failed";
  by_name: string;
  t: "notice";
}

export interface Bye {
  reason: "ended" | "removed" | "left_room" | "expired" | "elsewhere" | "restart" | "slow" | "full";
  error: string;
  t: "bye";
}

export interface Pong {
  t: "pong";
}

export interface Hello {
  session: string;
  lang?: "fa" | "en";
  t: "hello";
}

export interface Offer {
  id: number;
  sdp: string;
  t: "offer";
}

export interface RaiseHand {
  id: number;
  raised: boolean;
  note?: string;
  t: "hand";
}

export interface InviteReply {
  id: number;
  accept: boolean;
  t: "invite_reply";
}

export interface MicState {
  id: number;
  on: boolean;
  t: "mic";
}

export interface LeaveOut {
  id: number;
  user: string;
  out: boolean;
  t: "leave_out";
}

export interface DoAct {
  id: number;
  act: "invite" | "bring_up" | "not_now" | "to_audience" | "mute" | "unmute" | "kick" | "make_moderator" | "end" | "topic" | "sound";
  user?: string | null;
  text?: string;
  t: "act";
}

export interface Resync {
  t: "resync";
}

export interface Ping {
  t: "ping";
}

export interface OpenSession {
  link?: string | null;
  device?: string | null;
  guest?: string | null;
  openid?: Record<string, string | number> | null;
  room?: string | null;
}

export interface SessionOpened {
  session: string;
  device: string | null;
  stage: string;
  expires_ts: number;
  user: string | null;
}

export interface ErrorBody {
  errcode: string;
  error: string;
  reason?: string | null;
  retry_after_ms?: number | null;
}

export type ToPage = Snapshot | Patch | MediaAnswer | Done | RefusedAnswer | Levels | Notice | Bye | Pong;

export type FromPage = Hello | Offer | RaiseHand | InviteReply | MicState | LeaveOut | DoAct | Resync | Ping;
