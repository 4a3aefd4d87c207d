/**
 * The peer connection: one sendrecv audio transceiver, made once without a microphone (RFC 8829 §5.2.1), so that a
 * listener who comes up needs no renegotiation: `replaceTrack` is all. Heals itself: no RTP for 3 s, or ICE lost →
 * ICE restart on the same connection (RFC 8445 §9); if that does not help in time, a new connection.
 *
 *   none → connecting → up ⇄ broken → (still nothing after BLOCKED_AFTER) blocked → up
 *
 * Owner of the RTCPeerConnection, its timers and the sound element's srcObject. `close` ends all, harmless twice.
 */
import { Refusal } from "./connection";

export type MediaState = "none" | "connecting" | "up" | "broken" | "blocked";

export interface AudioDeps {
  /** Sends the offer (SDP) and resolves to the answer's SDP. */
  offer(sdp: string): Promise<string>;
  element: HTMLAudioElement;
  media(state: MediaState): void;
  /** Whether the browser lets sound out without a click. */
  sound(state: "refused" | "playing"): void;
  /** False while nothing is sent to us on purpose, or nobody can be asked: silence is no fault then. */
  expectsSound(): boolean;
}

const WATCH_EVERY = 1_000; // ms
const SILENCE = 3_000; // without one RTP packet: the server sends at least one a second, also in silence
const GATHERING = 2_000; // host candidates alone need no longer; what is there by then is offered
const RESTART_LIMIT = 4_000; // ICE restart must be up by then, else a new connection
const FRESH_LIMIT = 8_000;
const BLOCKED_AFTER = 20_000; // without sound for this long we say that the network lets none through
const RETRY = [500, 1_000, 2_000, 4_000, 5_000];
const LIP = 250; // ms a contributing source counts as talking after its last packet

export class PageAudio {
  private pc: RTCPeerConnection | null = null;
  private track: MediaStreamTrack | null = null;
  private turn = 0;
  private failures = 0;
  private watchTimer: ReturnType<typeof setInterval> | undefined;
  private retryTimer: ReturnType<typeof setTimeout> | undefined;
  private packets = 0;
  private packetAt = 0;
  private downSince: number | null = null;
  private state: MediaState = "none";
  private csrcSeen = false;

  constructor(private readonly deps: AudioDeps) {}

  /** On each new snapshot after hello. A connection whose sound still flows is kept and its path renewed. */
  join(): void {
    this.watchTimer ??= setInterval(() => void this.watch(), WATCH_EVERY);
    this.failures = 0;
    const flows = this.state === "up" && Date.now() - this.packetAt < SILENCE;
    void this.negotiate(!flows);
  }

  /** The socket is away: no offer can be made, sound may go on. */
  pause(): void {
    this.turn++;
    clearTimeout(this.retryTimer);
  }

  close(): void {
    this.pause();
    clearInterval(this.watchTimer);
    this.watchTimer = undefined;
    this.pc?.close();
    this.pc = null;
    this.deps.element.srcObject = null;
    this.tell("none");
  }

  /** What the microphone sends from now on; null: nothing. */
  async send(track: MediaStreamTrack | null): Promise<void> {
    this.track = track;
    await this.sender()?.replaceTrack(track);
  }

  /** From a click: browsers let sound out then. */
  async play(): Promise<void> {
    try {
      await this.deps.element.play();
      this.deps.sound("playing");
    } catch (error) {
      // AbortError: a newer srcObject took over, its own play() answers
      if (error instanceof DOMException && error.name === "NotAllowedError") this.deps.sound("refused");
    }
  }

  /** CSRCs heard in the last moment (RFC 3550 §5.1), in time with the sound; null where the browser tells none. */
  talking(): Set<number> | null {
    const receiver = this.pc?.getReceivers()[0];
    const sources = receiver?.getContributingSources?.() ?? [];
    if (sources.length > 0) this.csrcSeen = true;
    if (!this.csrcSeen) return null;
    const now = performance.timeOrigin + performance.now();
    const fresh = sources.filter((each) => Math.abs(sinceEpoch(each.timestamp) - now) < LIP);
    return new Set(fresh.map((each) => each.source));
  }

  private sender(): RTCRtpSender | undefined {
    return this.pc?.getTransceivers()[0]?.sender;
  }

  private create(): RTCPeerConnection {
    this.pc?.close();
    const pc = new RTCPeerConnection({ iceServers: [] }); // nobody but our server is asked
    this.pc = pc;
    this.packets = 0;
    pc.addTransceiver(this.track ?? "audio", { direction: "sendrecv" });
    pc.ontrack = (event) => {
      if (pc !== this.pc) return;
      this.deps.element.srcObject = event.streams[0] ?? new MediaStream([event.track]);
      void this.play();
    };
    pc.onconnectionstatechange = () => {
      if (pc === this.pc) this.connectionChanged(pc.connectionState);
    };
    return pc;
  }

  private connectionChanged(state: RTCPeerConnectionState): void {
    if (state === "connected") {
      this.packetAt = Date.now();
      this.failures = 0;
      clearTimeout(this.retryTimer);
      this.tell("up");
    } else if ((state === "disconnected" || state === "failed") && this.state === "up") {
      this.tell("broken");
      void this.negotiate(false);
    }
  }

  /** Offer and answer. `fresh`: on a new connection, else an ICE restart. A later call overtakes this one. */
  private async negotiate(fresh: boolean): Promise<void> {
    const turn = ++this.turn;
    clearTimeout(this.retryTimer);
    if (!this.deps.expectsSound()) return; // nobody to offer to: the next snapshot joins again
    if (this.state === "none") this.tell("connecting");
    const anew = fresh || this.pc === null || this.pc.signalingState !== "stable" || this.pc.connectionState === "closed";
    try {
      const pc = anew || this.pc === null ? this.create() : this.pc;
      const { type, sdp: text = "" } = await pc.createOffer({ iceRestart: !anew });
      await pc.setLocalDescription({ type, sdp: withStereo(text) });
      await gathered(pc);
      if (turn !== this.turn) return;
      const sdp = await this.deps.offer(pc.localDescription?.sdp ?? "");
      if (turn !== this.turn) return;
      await pc.setRemoteDescription({ type: "answer", sdp });
      this.retryTimer = setTimeout(() => this.check(turn), anew ? FRESH_LIMIT : RESTART_LIMIT);
    } catch (error) {
      if (turn !== this.turn) return;
      console.warn("no sound yet:", error);
      this.again(error instanceof Refusal ? error.retryMs : null);
    }
  }

  /** After the time limit of a negotiation: is there a connection that carries sound? */
  private check(turn: number): void {
    if (turn !== this.turn) return;
    const stalled = this.deps.expectsSound() && Date.now() - this.packetAt > SILENCE;
    if (this.pc?.connectionState === "connected" && !stalled) this.tell("up");
    else this.again();
  }

  /** `asked`: ms that the server wants us to wait; spread, as it says the same to many. */
  private again(asked: number | null = null): void {
    if (this.state === "up") this.tell("broken");
    const usual = RETRY[Math.min(this.failures++, RETRY.length - 1)] ?? 0;
    const wait = asked === null ? usual : Math.max(usual, asked * (0.75 + Math.random() / 2));
    clearTimeout(this.retryTimer);
    this.retryTimer = setTimeout(() => void this.negotiate(true), wait);
  }

  private async watch(): Promise<void> {
    const pc = this.pc;
    if (this.downSince !== null && Date.now() - this.downSince > BLOCKED_AFTER) this.tell("blocked");
    if (pc === null || pc.connectionState !== "connected") return;
    let received = 0;
    for (const each of (await pc.getStats()).values() as IterableIterator<{ type: string; packetsReceived?: number }>) {
      if (each.type === "inbound-rtp") received += each.packetsReceived ?? 0;
    }
    if (pc !== this.pc) return;
    if (received !== this.packets) {
      this.packets = received;
      this.packetAt = Date.now();
      if (this.state === "broken" || this.state === "blocked") this.tell("up");
    } else if (this.state === "up" && this.deps.expectsSound() && Date.now() - this.packetAt > SILENCE) {
      this.tell("broken");
      void this.negotiate(false);
    }
  }

  private tell(state: MediaState): void {
    if (state === "up" || state === "none") this.downSince = null;
    else this.downSince ??= Date.now();
    if (state === this.state) return;
    this.state = state;
    this.deps.media(state);
  }
}

/** Chromium decodes one channel only unless our own description says that we take two (RFC 7587 §6.1: `stereo`). */
export function withStereo(sdp: string): string {
  const number = /^a=rtpmap:(\d+) opus\/48000\/2\r?$/im.exec(sdp)?.[1];
  if (number === undefined) return sdp;
  const said = new RegExp(`^(a=fmtp:${number} [^\\r\\n]*)`, "m");
  return sdp.replace(said, (line) => (/[ ;]stereo=/.test(line) ? line : `${line};stereo=1`));
}

/** All host candidates are in the local description: we do not trickle (RFC 8838), the offer is whole. */
function gathered(pc: RTCPeerConnection): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      if (pc.iceGatheringState !== "complete" && pc.signalingState !== "closed") return;
      clearTimeout(timer);
      resolve();
    };
    const timer = setTimeout(resolve, GATHERING);
    pc.addEventListener("icegatheringstatechange", done);
    done();
  });
}

/** Chromium stamps contributing sources since the epoch, Firefox and the standard since the time origin. */
function sinceEpoch(timestamp: number): number {
  return timestamp > 1e12 ? timestamp : performance.timeOrigin + timestamp;
}
