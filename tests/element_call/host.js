// The host side of the widget API for an unmodified Element Call: what Element Web does for its users, in small.
// A Matrix client by fetch and /sync; `window.host` is what the test speaks to.
import { ClientWidgetApi, OpenIDRequestState, Widget, WidgetDriver } from "matrix-widget-api";

const CLIENT = "/_matrix/client/v3";
const DELAY = "org.matrix.msc4140.delay";
const STICKY = "org.matrix.msc4354.sticky_duration_ms";
const OWN_ACTIONS = ["io.element.join", "im.vector.hangup", "io.element.device_mute", "io.element.close", "set_always_on_screen"];
const acts = []; // what the widget asked of us, newest last
const fed = new Set(); // state keys of the state that it was given by a sync
let me; // {homeserver, user, device, token, room}
let api;

async function call(method, path, body, query = {}) {
  const search = new URLSearchParams(query).toString();
  const answer = await fetch(me.homeserver + path + (search ? `?${search}` : ""), {
    method,
    headers: { Authorization: `Bearer ${me.token}`, "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const json = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(`${method} ${path}: ${json.errcode} ${json.error}`), { json, status: answer.status });
  return json;
}

const enc = encodeURIComponent;
const inRoom = (...parts) => `${CLIENT}/rooms/${enc(me.room)}/${parts.map(enc).join("/")}`;
let txn = 0;
const place = (type, key) => (key === null || key === undefined ? inRoom("send", type, `w${Date.now()}.${txn++}`) : inRoom("state", type, key));

class Driver extends WidgetDriver {
  async validateCapabilities(asked) {
    return asked;
  }
  async sendEvent(type, content, key = null) {
    acts.push({ act: "send", type, key, content });
    if (type === "m.room.redaction") {
      return { roomId: me.room, eventId: (await call("PUT", inRoom("redact", content.redacts, `w${Date.now()}.${txn++}`), {})).event_id };
    }
    return { roomId: me.room, eventId: (await call("PUT", place(type, key), content)).event_id };
  }
  async sendDelayedEvent(delay, type, content, key = null) {
    acts.push({ act: "delay", type, key, delay });
    return { roomId: me.room, delayId: (await call("PUT", place(type, key), content, { [DELAY]: delay })).delay_id };
  }
  async sendStickyEvent(sticky, type, content) {
    acts.push({ act: "sticky", type, content });
    return { roomId: me.room, eventId: (await call("PUT", place(type), content, { [STICKY]: sticky })).event_id };
  }
  async sendDelayedStickyEvent(delay, sticky, type, content) {
    acts.push({ act: "delay", type, delay });
    return { roomId: me.room, delayId: (await call("PUT", place(type), content, { [STICKY]: sticky, [DELAY]: delay })).delay_id };
  }
  async delayed(id, action) {
    await call("POST", `/_matrix/client/unstable/org.matrix.msc4140/delayed_events/${enc(id)}/${action}`, {});
  }
  async cancelScheduledDelayedEvent(id) {
    await this.delayed(id, "cancel");
  }
  async restartScheduledDelayedEvent(id) {
    await this.delayed(id, "restart");
  }
  async sendScheduledDelayedEvent(id) {
    await this.delayed(id, "send");
  }
  async sendToDevice(type) {
    acts.push({ act: "to_device", type });
  }
  async readRoomTimeline() {
    return [];
  }
  async readStickyEvents() {
    const answer = await call("GET", `${CLIENT}/sync`, undefined, { timeout: 0 });
    const room = answer.rooms?.join?.[me.room];
    const inTimeline = (room?.timeline?.events ?? []).filter((event) => event.msc4354_sticky); // a sync tells each once
    return [...inTimeline, ...(room?.msc4354_sticky?.events ?? [])].map((event) => ({ ...event, room_id: me.room }));
  }
  async readEventRelations() {
    return { chunk: [] };
  }
  async readRoomState(room, type, key) {
    const events = await call("GET", inRoom("state"));
    return events.filter((event) => event.type === type && (key === undefined || event.state_key === key));
  }
  async *getTurnServers() {}
  getKnownRooms() {
    return [me.room];
  }
  async getRtcTransports() {
    return call("GET", "/_matrix/client/unstable/org.matrix.msc4143/rtc/transports");
  }
  askOpenID(observer) {
    acts.push({ act: "openid" });
    call("POST", `${CLIENT}/user/${enc(me.user)}/openid/request_token`, {}).then(
      (token) => observer.update({ state: OpenIDRequestState.Allowed, token }),
      () => observer.update({ state: OpenIDRequestState.Blocked }),
    );
  }
  processError(error) {
    return error?.json ? { matrix_api_error: { http_status: error.status, http_headers: {}, url: "", response: error.json } } : undefined;
  }
}

async function feed() {
  let since;
  for (;;) {
    try {
      const answer = await call("GET", `${CLIENT}/sync`, undefined, since ? { since, timeout: 10000 } : { timeout: 0 });
      const room = answer.rooms?.join?.[me.room];
      const news = [room?.state, room?.timeline, room?.msc4354_sticky].flatMap((part) => part?.events ?? []);
      const events = since ? news : [];
      since = answer.next_batch;
      for (const event of events) {
        const raw = { ...event, room_id: me.room };
        if (raw.state_key !== undefined) await api.feedStateUpdate(raw).catch(() => {});
        await api.feedEvent(raw).catch(() => {});
        if (raw.state_key !== undefined) fed.add(raw.state_key);
      }
    } catch (error) {
      console.warn(`sync: ${error.message}`);
      await new Promise((done) => setTimeout(done, 500));
    }
  }
}

window.host = {
  acts,
  fed,
  /** Open the call as Element Web opens it. `given` as `me` above. */
  start(given) {
    me = given;
    const url = new URL(`/${given.app ?? "ec"}/index.html`, location.href);
    const about = { widgetId: "call", parentUrl: location.href, roomId: me.room, userId: me.user, deviceId: me.device,
      baseUrl: me.homeserver, intent: "join_existing_voice", skipLobby: "true", lang: "en", theme: "dark", ...(given.more ?? {}) };
    url.hash = `?${new URLSearchParams(about)}`;
    const widget = new Widget({ id: "call", creatorUserId: me.user, type: "m.call", url: url.href, waitForIframeLoad: false, data: {} });
    const frame = document.createElement("iframe");
    frame.allow = "microphone; camera; encrypted-media; autoplay; display-capture; clipboard-write; clipboard-read;";
    frame.style = "position:fixed;inset:0;width:100vw;height:100vh;border:0";
    document.body.append(frame);
    api = new ClientWidgetApi(widget, frame, new Driver());
    for (const action of OWN_ACTIONS) {
      api.on(`action:${action}`, (event) => {
        event.preventDefault();
        acts.push({ act: action, data: event.detail.data });
        api.transport.reply(event.detail, action === "set_always_on_screen" ? { success: true } : {});
      });
    }
    api.setViewedRoomId(me.room);
    frame.src = url.href;
    feed();
    return true;
  },
  did: (act) => acts.filter((each) => each.act === act).length,
  /** Element Call's own document: it has our origin. */
  get call() {
    return document.querySelector("iframe")?.contentDocument;
  },
  text: () => window.host.call?.body?.innerText ?? "",
  sound: () => [...(window.host.call?.querySelectorAll("audio") ?? [])].find((each) => each.srcObject?.getAudioTracks().length),
  /** The button of that accessible name. */
  named(name) {
    const doc = window.host.call;
    const nameOf = (each) => each.ariaLabel || (each.getAttribute("aria-labelledby") ?? "").split(" ").map((id) => doc.getElementById(id)?.innerText ?? "").join(" ").trim() || each.innerText.trim();
    return [...(doc?.querySelectorAll("button") ?? [])].find((each) => nameOf(each) === name);
  },
  has: (name) => Boolean(window.host.named(name)),
  pressNamed(name) {
    const button = window.host.named(name);
    button?.click();
    return Boolean(button);
  },
  press(id) {
    const button = window.host.call.querySelector(`[data-testid="${id}"]`);
    button?.click();
    return Boolean(button);
  },
};

/** Element Call's sound as an element of this document, where the test's recorder looks; false while it plays none. */
window.host.listen = () => {
  const theirs = window.host.sound();
  if (!theirs || theirs.paused || theirs.muted || theirs.volume === 0) return false;
  let ours = document.querySelector('[data-testid="sound"]');
  if (!ours) {
    ours = document.createElement("audio");
    ours.dataset.testid = "sound";
    document.body.append(ours);
  }
  if (ours.srcObject !== theirs.srcObject) {
    ours.srcObject = theirs.srcObject;
    ours.play();
  }
  return !ours.paused;
};
