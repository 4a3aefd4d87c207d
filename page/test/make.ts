/** Frames as the server sends them, for tests. */
import type { Me, Person, Snapshot } from "../src/messages";

export const ME: Me = {
  user: "@me:a",
  name: "Me",
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

export const ON_STAGE: Me = { ...ME, role: "speaker", place: "stage", can_speak: true, may_raise: false };

export function person(user: string, change: Partial<Person> = {}): Person {
  return { user, name: user.slice(1, 2).toUpperCase() + user.slice(2), role: "speaker", mic: "off", csrc: [], connected: true, since: 1, coming: false, ...change };
}

export const HOST = person("@host:a", { role: "host", csrc: [7], since: 1 });

export function snapshot(change: Partial<Snapshot> = {}): Snapshot {
  return {
    t: "snapshot",
    seq: 1,
    stage: {
      id: "stage-id-0123456",
      status: "live",
      topic: "Poems",
      room_name: "Poetry night",
      room_id: "!room:a",
      host: "@host:a",
      started_ts: 1_000_000,
      ended_ts: null,
      hands: "everyone",
      sound: "voice",
      server_ts: 2_000_000,
    },
    me: ME,
    speakers: [HOST],
    audience: { count: 3, hands: 0, faces: [{ user: "@me:a", name: "Me", hand: false }] },
    queue: [],
    ...change,
  };
}
