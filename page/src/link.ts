/** The personal link: out of the address at once, exchanged for a session, kept so that a reload works. */
import type { ErrorBody, OpenSession, SessionOpened } from "./messages";

/** What is kept per stage. Without `link` the person came as a guest. */
export interface Kept {
  link?: string;
  device?: string;
  session?: string;
  expires?: number; // ms since the epoch
}

export interface Place {
  stage: string;
  api: URL; // ends in a slash
}

/** Where a page's session comes from. */
export interface SignIn {
  /** The session for `hello`. Throws LinkRefused (final), NotNow, or TypeError when the network is away. */
  session(): Promise<string>;
  /** It did not open: the next call gets another one. */
  forgetSession(): void;
}

/** The server said no to our link (or to guests), for good: `reason` as in ErrorBody, or a Closing. */
export class LinkRefused extends Error {
  constructor(
    readonly reason: string,
    text: string,
    readonly guest: boolean,
    /** There is no such stage, or it is over. */
    readonly gone: boolean,
  ) {
    super(text);
  }
}

/** The server cannot now; ask again after `retryMs`. `full`: it has no place left. */
export class NotNow extends Error {
  constructor(
    readonly full: boolean,
    readonly retryMs: number | null,
  ) {
    super(full ? "full" : "unavailable");
  }
}

/** `{origin}{sub-path}/s/{stage}`: the API lies beside `s`. */
export function placeOf(address: URL): Place {
  const stage = decodeURIComponent(address.pathname.split("/").pop() ?? "");
  return { stage, api: new URL("../api/v1/", address) };
}

/** Whether this is the address that clients show in a frame. */
export function isWidget(address: URL): boolean {
  return address.pathname.endsWith("/s/widget");
}

/** The token of `#l=…`, taken out of the address bar and the history, or null. */
export function takeToken(location: Location, history: History): string | null {
  const token = new URLSearchParams(location.hash.slice(1)).get("l");
  if (location.hash !== "") history.replaceState(history.state, "", location.pathname + location.search);
  return token === "" ? null : token;
}

export class LinkStore {
  private readonly key: string;

  constructor(
    stage: string,
    private readonly storage: Pick<Storage, "getItem" | "setItem">,
  ) {
    this.key = `eyvan.stage.${stage}`;
  }

  read(): Kept {
    try {
      const kept: unknown = JSON.parse(this.storage.getItem(this.key) ?? "{}");
      return typeof kept === "object" && kept !== null ? (kept as Kept) : {};
    } catch {
      return {}; // no storage in this browser mode, or not ours: a reload then asks for the link again
    }
  }

  write(kept: Kept): void {
    try {
      this.storage.setItem(this.key, JSON.stringify(kept));
    } catch {
      // private mode: this page still works, a reload will not
    }
  }

  /** A new token replaces the kept link; the same one keeps its device. */
  adopt(token: string | null): void {
    if (token !== null && token !== this.read().link) this.write({ link: token });
  }

  /** The session did not open: the next try exchanges the link again. */
  forgetSession(): void {
    const { link, device } = this.read();
    this.write({ ...(link && { link }), ...(device && { device }) });
  }
}

/**
 * The session for `hello`: the kept one while it is good, else a new one from `POST sessions`.
 * Throws LinkRefused (final), NotNow, or TypeError when the network is away.
 */
export async function openSession(place: Place, store: LinkStore, fetcher: typeof fetch, now: number): Promise<string> {
  const kept = store.read();
  if (kept.session !== undefined && (kept.expires ?? 0) > now + 5_000) return kept.session;
  const body: OpenSession = kept.link ? { link: kept.link, ...(kept.device && { device: kept.device }) } : { guest: place.stage };
  const opened = await openBy(place, body, fetcher);
  const device = opened.device ?? kept.device;
  store.write({
    ...(kept.link && { link: kept.link }),
    ...(device && { device }),
    session: opened.session,
    expires: opened.expires_ts,
  });
  return opened.session;
}

/** `POST sessions`. Throws as `openSession`. */
export async function openBy(place: Place, body: OpenSession, fetcher: typeof fetch): Promise<SessionOpened> {
  const answer = await fetcher(new URL("sessions", place.api), {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    credentials: "omit",
    referrerPolicy: "no-referrer",
  });
  if (!answer.ok) throw await refusal(answer, body.guest !== undefined);
  return (await answer.json()) as SessionOpened;
}

/** Signs in by the personal link that was opened here, or as a guest. */
export function linkSignIn(place: Place, token: string | null, storage: Pick<Storage, "getItem" | "setItem">): SignIn {
  const store = new LinkStore(place.stage, storage);
  store.adopt(token);
  return {
    session: () => openSession(place, store, fetch.bind(globalThis), Date.now()),
    forgetSession: () => store.forgetSession(),
  };
}

async function refusal(answer: Response, guest: boolean): Promise<Error> {
  const body = (await answer.json().catch(() => ({}))) as Partial<ErrorBody>;
  if (answer.status === 429) return new NotNow(true, body.retry_after_ms ?? null);
  if (answer.status >= 500) return new NotNow(false, body.retry_after_ms ?? null);
  return new LinkRefused(body.reason ?? "unknown", body.error ?? "", guest, answer.status === 404);
}
