// What Element Web does for a widget of the room, in small: it reads the widget from the room's state, fills in its URL, shows it
// in a frame with Element's own `allow` and `sandbox`, and answers it by matrix-widget-api's host side. `window.host` is what the
// test speaks to.
import { ClientWidgetApi, OpenIDRequestState, Widget, WidgetDriver } from "matrix-widget-api";

const CLIENT = "/_matrix/client/v3";
const ALLOW = "microphone; camera; encrypted-media; autoplay; display-capture; clipboard-write; clipboard-read;";
const SANDBOX = "allow-forms allow-popups allow-popups-to-escape-sandbox allow-same-origin allow-scripts allow-presentation allow-downloads";
const enc = encodeURIComponent;

async function call(me, method, path, body) {
  const headers = { Authorization: `Bearer ${me.token}`, "Content-Type": "application/json" };
  const answer = await fetch(me.homeserver + path, { method, headers, body: body && JSON.stringify(body) });
  const json = await answer.json();
  if (!answer.ok) throw new Error(`${method} ${path}: ${json.errcode} ${json.error}`);
  return json;
}

class Driver extends WidgetDriver {
  constructor(me) {
    super();
    this.me = me;
  }
  async validateCapabilities(asked) {
    host.asked = [...asked];
    return asked;
  }
  /** The person is asked first, as in Element; `host.agree` and `host.refuse` are their answer. */
  askOpenID(observer) {
    observer.update({ state: OpenIDRequestState.PendingUserConfirmation });
    host.consents++;
    host.refuse = () => observer.update({ state: OpenIDRequestState.Blocked });
    host.agree = async () => {
      const token = await call(this.me, "POST", `${CLIENT}/user/${enc(this.me.user)}/openid/request_token`, {});
      host.tokens.push(token);
      observer.update({ state: OpenIDRequestState.Allowed, token });
    };
  }
  getKnownRooms() {
    return [this.me.room];
  }
}

window.host = {
  asked: null, // capabilities
  consents: 0, // how often the person was asked whether the widget may know who they are
  tokens: [],
  ready: false,
  agree: null,
  refuse: null,
  /** `me`: {homeserver, user, token, room}; `look`: {clientTheme, clientLanguage}. */
  async start(me, look) {
    const content = await call(me, "GET", `${CLIENT}/rooms/${enc(me.room)}/state/im.vector.modular.widgets/eyvan`);
    const widget = new Widget(content);
    const url = new URL(widget.getCompleteUrl({ widgetRoomId: me.room, currentUserId: me.user, ...look }));
    url.searchParams.set("widgetId", widget.id);
    url.searchParams.set("parentUrl", location.href);
    const frame = document.createElement("iframe");
    frame.allow = ALLOW;
    frame.sandbox = SANDBOX;
    frame.style = "position:fixed;inset:0;width:100vw;height:100vh;border:0";
    document.body.append(frame);
    this.api = new ClientWidgetApi(widget, frame, new Driver(me));
    this.api.on("ready", () => (this.ready = true));
    frame.src = url.href;
    return content;
  },
  theme: (name) => host.api.updateTheme({ name }).then(() => true),
  language: (lang) => host.api.updateLanguage(lang).then(() => true),
};
