/**
 * The WebSocket to the server: hello, snapshot, patches, requests and their outcome; back by itself after a break.
 *
 * Owner of the socket, its timers and the open requests. `start` opens, `stop` ends for good (harmless twice).
 *
 *   idle → opening (session, socket, hello) → open (first snapshot) → waiting (backoff) → opening …
 *                                                         any → stopped (bye, link refused, leave)
 */
import { LinkRefused, NotNow } from "./link";
import type { FromPage, ToPage } from "./messages";

type WithoutId<T> = T extends { id: number } ? Omit<T, "id"> : never;
export type Request = WithoutId<FromPage>;
type Outcome = Extract<ToPage, { t: "done" | "answer" }>;

/** The server understood and said no; the message is a sentence in the page's language. */
export class Refusal extends Error {
  constructor(
    readonly errcode: string,
    text: string,
    /** When asking again may do. */
    readonly retryMs: number | null = null,
  ) {
    super(text);
  }
}

/** No answer: the connection broke, or the server took too long. */
export class NoAnswer extends Error {}

export interface ConnectionDeps {
  /** Throws LinkRefused or NotNow, or anything else for "try again". */
  session(): Promise<string>;
  forgetSession(): void;
  lang(): "fa" | "en";
  socketUrl: URL;
  frame(frame: ToPage): void;
  /** `open` comes after hello is sent; the first snapshot follows it. */
  changed(state: "opening" | "broken"): void;
  full(): void;
  refused(why: LinkRefused): void;
  /** Waiting times in ms; smaller in tests. */
  timing?: Partial<Timing>;
}

interface Timing {
  firstRetry: number;
  maxRetry: number;
  idle: number; // without a frame for this long we ping
  silence: number; // after the ping without a frame for this long the connection is dead
  answer: number;
}

const TIMING: Timing = { firstRetry: 250, maxRetry: 5_000, idle: 2_000, silence: 3_000, answer: 15_000 };
const MAX_OPEN = 64; // open requests: more are refused, nobody presses that fast
const RESUME_TRIES = 2; // sockets that close between hello and snapshot until the session is taken for dead

interface Waiting {
  resolve(outcome: Outcome): void;
  reject(error: Error): void;
  timer: ReturnType<typeof setTimeout>;
}

/** Close code of a person who leaves: the seat is given up at once. After any other end it is kept for a moment. */
const LEFT = 1000;

export class Connection {
  private readonly timing: Timing;
  private readonly waiting = new Map<number, Waiting>();
  private socket: WebSocket | null = null;
  private retryTimer: ReturnType<typeof setTimeout> | undefined;
  private pulseTimer: ReturnType<typeof setTimeout> | undefined;
  private failures = 0;
  private deadOnArrival = 0;
  private nextId = 1;
  private stopped = false;
  private opening = false;
  private readonly wake = (): void => this.hurry();

  constructor(private readonly deps: ConnectionDeps) {
    this.timing = { ...TIMING, ...deps.timing };
  }

  start(): void {
    addEventListener("online", this.wake);
    void this.open();
  }

  stop(): void {
    this.stopped = true;
    removeEventListener("online", this.wake);
    clearTimeout(this.retryTimer);
    this.drop(LEFT);
  }

  /** Resolves when the server has accepted it. Throws Refusal or NoAnswer. */
  request(body: Request): Promise<Outcome> {
    const socket = this.socket;
    if (socket?.readyState !== WebSocket.OPEN) return Promise.reject(new NoAnswer("not connected"));
    if (this.waiting.size >= MAX_OPEN) return Promise.reject(new NoAnswer("too many open requests"));
    const id = this.nextId++;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.settle(id)?.reject(new NoAnswer("no answer in time")), this.timing.answer);
      this.waiting.set(id, { resolve, reject, timer });
      socket.send(JSON.stringify({ ...body, id }));
    });
  }

  resync(): void {
    this.send({ t: "resync" });
  }

  /** The network came back, or the person pressed "now": do not wait out the backoff. */
  hurry(): void {
    if (this.stopped || this.opening || this.socket !== null) return;
    clearTimeout(this.retryTimer);
    void this.open();
  }

  /** Leaves this socket and opens another one, as after a break. */
  reopen(): void {
    if (this.stopped) return;
    this.drop();
    this.deps.changed("broken");
    this.retry(null);
  }

  private async open(): Promise<void> {
    if (this.opening || this.stopped) return;
    this.opening = true;
    this.deps.changed("opening");
    try {
      const session = await this.deps.session();
      if (!this.stopped) this.join(session);
    } catch (error) {
      this.notOpened(error);
    } finally {
      this.opening = false;
    }
  }

  private notOpened(error: unknown): void {
    if (this.stopped) return;
    if (error instanceof LinkRefused) {
      this.stop();
      this.deps.refused(error);
      return;
    }
    this.deps.changed("broken");
    if (error instanceof NotNow && error.full) this.deps.full();
    this.retry(error instanceof NotNow ? error.retryMs : null);
  }

  private join(session: string): void {
    const socket = new WebSocket(this.deps.socketUrl);
    let hello = false;
    let snapshot = false;
    this.socket = socket;
    socket.onopen = () => {
      hello = socket === this.socket;
      if (hello) this.send({ t: "hello", session, lang: this.deps.lang() });
    };
    socket.onmessage = (event: MessageEvent<unknown>) => {
      if (socket !== this.socket || typeof event.data !== "string") return;
      this.pulse();
      const frame = JSON.parse(event.data) as ToPage;
      if (frame.t === "snapshot") {
        snapshot = true;
        this.failures = this.deadOnArrival = 0;
      }
      this.take(frame);
    };
    socket.onclose = () => {
      if (socket !== this.socket) return;
      if (hello && !snapshot && ++this.deadOnArrival >= RESUME_TRIES) this.deps.forgetSession();
      this.reopen();
    };
    this.pulse();
  }

  private take(frame: ToPage): void {
    switch (frame.t) {
      case "done":
      case "answer":
        this.settle(frame.id)?.resolve(frame);
        return;
      case "refused":
        this.settle(frame.id)?.reject(new Refusal(frame.errcode, frame.error, frame.retry_after_ms));
        return;
      case "pong":
        return;
      default:
        this.deps.frame(frame);
    }
  }

  private settle(id: number): Waiting | undefined {
    const waiting = this.waiting.get(id);
    this.waiting.delete(id);
    clearTimeout(waiting?.timer);
    return waiting;
  }

  /** Something came: the next look is after `idle`; then a ping must bring a frame within `silence`. */
  private pulse(): void {
    clearTimeout(this.pulseTimer);
    this.pulseTimer = setTimeout(() => {
      if (this.socket?.readyState === WebSocket.OPEN) this.send({ t: "ping" });
      this.pulseTimer = setTimeout(() => this.reopen(), this.timing.silence);
    }, this.timing.idle);
  }

  private send(frame: FromPage): void {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(frame));
  }

  /** Full jitter keeps a thousand pages from coming back in the same instant after a restart. */
  private retry(afterMs: number | null): void {
    const ceiling = Math.min(this.timing.maxRetry, this.timing.firstRetry * 2 ** this.failures++);
    const wait = afterMs ?? ceiling * (0.5 + Math.random() / 2);
    clearTimeout(this.retryTimer);
    this.retryTimer = setTimeout(() => void this.open(), wait);
  }

  private drop(code?: number): void {
    clearTimeout(this.pulseTimer);
    const socket = this.socket;
    this.socket = null;
    socket?.close(code);
    for (const id of [...this.waiting.keys()]) this.settle(id)?.reject(new NoAnswer("the connection broke"));
  }
}
