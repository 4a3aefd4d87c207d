/**
 * The page inside a Matrix client, as a widget: who the person is comes through the client by OpenID (MSC1960), theme and
 * language follow it (MSC2873). Nothing is kept on the device and no link is looked at: a site that shows this page in a
 * frame of its own gets what its own user's homeserver says, and nobody else's place.
 *
 * One capability is asked for, which clients grant unseen: `io.element.requires_client`, as a window of its own has no
 * client to ask. The microphone is asked for as everywhere: when the person first turns it on.
 */
import { WidgetApi } from "matrix-widget-api/lib/WidgetApi";
import type { IOpenIDCredentials } from "matrix-widget-api";
import { LinkRefused, openBy } from "./link";
import type { Place, SignIn } from "./link";
import type { OpenSession, SessionOpened } from "./messages";
import { follow } from "./preferences";

const READY_LIMIT = 30_000; // ms until the client must have spoken; a person may take as long as they like to agree

/** What the client says in the address: `?widgetId=…&parentUrl=…#room=…`. */
export interface Frame {
  widgetId: string;
  /** Origin of the client, or `*` where browsers know none (Element Desktop's own scheme). */
  client: string;
  room: string;
}

export function frameOf(address: URL): Frame | null {
  const widgetId = address.searchParams.get("widgetId");
  const room = new URLSearchParams(address.hash.slice(1)).get("room");
  if (!widgetId || room === null || !room.startsWith("!")) return null;
  try {
    const { origin } = new URL(address.searchParams.get("parentUrl") ?? "");
    return { widgetId, room, client: origin === "null" ? "*" : origin };
  } catch {
    return null;
  }
}

/** The part of WidgetApi that is used here. */
export type Client = Pick<WidgetApi, "on" | "once" | "start" | "requestCapability" | "sendContentLoaded" | "requestOpenIDConnectToken"> & {
  transport: Pick<WidgetApi["transport"], "reply">;
};

/** Other frames of the client's page can write to us too; the API does not look who did. */
function listenToParentAlone(): void {
  addEventListener("message", (event) => {
    if (event.source !== parent) event.stopImmediatePropagation();
  });
}

export function connectClient(frame: Frame): Client {
  listenToParentAlone();
  return new WidgetApi(frame.widgetId, frame.client) as unknown as Client;
}

/** Signs in with a fresh token of the client each time; the session lives in this page alone. `client` null: there is none. */
export class WidgetSignIn implements SignIn {
  private readonly ready: Promise<void>;
  private opened: SessionOpened | null = null;

  constructor(
    private readonly place: Place,
    private readonly room: string,
    private readonly client: Client | null,
    private readonly fetcher: typeof fetch,
  ) {
    this.ready = client === null ? Promise.reject(refused("client")) : meet(client);
    this.ready.catch(() => undefined); // told where it is waited for
  }

  async session(): Promise<string> {
    if (this.opened !== null && this.opened.expires_ts > Date.now() + 5_000) return this.opened.session;
    await this.ready;
    const openid = await this.token();
    const body: OpenSession = { openid, room: this.room };
    try {
      this.opened = await openBy(this.place, body, this.fetcher);
    } catch (error) {
      if (!(error instanceof LinkRefused) || error.gone) throw error;
      throw refused(error.reason === "membership" ? "left_room" : "identity");
    }
    return this.opened.session;
  }

  forgetSession(): void {
    this.opened = null;
  }

  private async token(): Promise<NonNullable<OpenSession["openid"]>> {
    let given: IOpenIDCredentials | undefined;
    try {
      given = await this.client?.requestOpenIDConnectToken();
    } catch {
      throw refused("identity"); // the person said no, or the client cannot
    }
    if (!given?.access_token || !given.matrix_server_name) throw refused("identity");
    return { access_token: given.access_token, matrix_server_name: given.matrix_server_name };
  }
}

function refused(reason: string): LinkRefused {
  return new LinkRefused(reason, "", false, false);
}

/** Resolves when the client has agreed to what we asked for. */
function meet(client: Client): Promise<void> {
  client.requestCapability("io.element.requires_client");
  for (const [action, field] of [["theme_change", "name"], ["language_change", "lang"]] as const) {
    client.on(`action:${action}`, (event: CustomEvent) => {
      event.preventDefault();
      const value: unknown = event.detail.data?.[field];
      if (typeof value === "string") follow(field === "name" ? { theme: value } : { lang: value });
      client.transport.reply(event.detail, {});
    });
  }
  const ready = new Promise<void>((resolve, reject) => {
    client.once("ready", resolve);
    setTimeout(() => reject(refused("client")), READY_LIMIT);
  });
  client.start();
  client.sendContentLoaded().catch(() => undefined); // a client that waits for the frame alone does not want to hear it
  return ready;
}
