/**
 * One page of one person: owns connection, sound, microphone and lights, turns presses into requests and frames into
 * state. Views read `stage` and call the methods here; nothing else talks to the server.
 */
import { effect } from "@preact/signals";
import { PageAudio } from "./audio";
import { Connection, NoAnswer, Refusal } from "./connection";
import type { Request } from "./connection";
import { buzz } from "./haptics";
import { LeftOut } from "./left-out";
import { Lights } from "./lights";
import type { LinkRefused, Place, SignIn } from "./link";
import type { Act, Bye, Notice, ToPage } from "./messages";
import { Microphone, MicrophoneRefused } from "./microphone";
import { lang, microphone as chosenMicrophone, volume } from "./preferences";
import { createStage, mayHoldMic, withPatch, withSnapshot } from "./stage";
import type { Closing, Stage } from "./stage";
import { Desk } from "./desk";
import { Sounds, soundWhatHappens } from "./sounds";
import { t } from "./words";

const WISH_LIMIT = 15_000; // ms a hand may be on its way before we say that nothing came back
const NOTICED = 1_500; // ms
const FULL_FOR = 2_000; // ms: a refusal that may do sooner is no matter of places
const LINK_TROUBLES = new Set(["expired", "altered", "revoked", "devices", "membership", "unknown", "identity", "client", "left_room"]);

export class Page {
  readonly stage: Stage = createStage();
  readonly desk = new Desk();
  readonly lights: Lights;
  readonly microphone: Microphone;
  private readonly audio: PageAudio;
  private readonly connection: Connection;
  private readonly sounds = new Sounds();
  private readonly stops: (() => void)[] = [];
  private wishTimer: ReturnType<typeof setTimeout> | undefined;
  private leftOut: LeftOut | null = null; // once the stage is known
  private forMusic = false; // what the answer to our last offer was for
  private joined = false; // on this socket the sound was offered
  private toldOn = false; // on this socket the server was last told that the microphone is on

  constructor(
    private readonly place: Place,
    private readonly signIn: SignIn,
    element: HTMLAudioElement,
    /** In a Matrix client: it shows the room's name, theme and language are its own. */
    readonly inClient = false,
  ) {
    this.audio = new PageAudio({
      element,
      offer: async (sdp) => {
        try {
          const outcome = await this.connection.request({ t: "offer", sdp });
          if (this.stage.state.peek().full) this.stage.set({ full: false });
          return outcome.t === "answer" ? outcome.sdp : "";
        } catch (error) {
          if (error instanceof Refusal && (error.retryMs ?? 0) >= FULL_FOR) this.stage.set({ full: true });
          throw error;
        }
      },
      media: (media) => this.stage.set({ media }),
      sound: (sound) => this.stage.set({ sound }),
      expectsSound: () => this.hears(),
    });
    this.lights = new Lights(() => this.audio.talking());
    this.microphone = new Microphone({
      silent: (silent) => this.stage.setMic({ silent }),
      gone: () => {
        this.stage.setMic({ trouble: "gone" });
        void this.micOff();
      },
    });
    this.connection = this.connect();
    this.stops.push(
      effect(() => void (element.volume = volume.value)),
      this.noteReturns(),
      soundWhatHappens(this.stage, (name) => this.sounds.play(name)),
    );
  }

  start(): void {
    this.connection.start();
  }

  /** Harmless twice. */
  stop(): void {
    clearTimeout(this.wishTimer);
    this.connection.stop();
    this.audio.close();
    this.microphone.release();
    this.lights.stop();
    this.desk.clear();
    for (const each of this.stops.splice(0)) each();
    this.sounds.close();
  }

  // -- what a person does ------------------------------------------------------------------------

  /** The door: a click lets sound out. */
  listen(): void {
    void this.audio.play();
  }

  raiseHand(note: string): void {
    void this.wishHand("up", note);
  }

  /** Also takes back a hand that is still on its way. */
  lowerHand(): void {
    void this.wishHand("down", "");
  }

  answerInvitation(accept: boolean): void {
    void this.ask({ t: "invite_reply", accept });
  }

  toggleMicrophone(): void {
    const state = this.stage.state.peek();
    const { mic } = state;
    if (!mayHoldMic(state)) return;
    void (mic.wanted ? this.micOff() : this.micOn());
  }

  /** Another microphone: at once where one is open, else from the next time on. */
  async changeMicrophone(): Promise<void> {
    if (!this.stage.state.peek().mic.wanted) {
      this.microphone.release();
      return;
    }
    this.microphone.release();
    await this.openTrack();
  }

  /** True when the server has accepted it; else the person has been told why not. */
  act(act: Act, user: string | null = null, text = ""): Promise<boolean> {
    return this.ask({ t: "act", act, user, text });
  }

  leaveOut(user: string, out: boolean): void {
    void this.wishLeftOut(user, out);
  }

  leave(): void {
    const { mic } = this.stage.state.peek();
    if (mic.wanted) void this.connection.request({ t: "mic", on: false }).catch(() => undefined); // sent before the close
    this.finish("left", "");
  }

  /** After "opened elsewhere" or "left": in again on this page. */
  comeBack(): void {
    location.reload();
  }

  // -- connection --------------------------------------------------------------------------------

  private connect(): Connection {
    const socketUrl = new URL("socket", this.place.api);
    socketUrl.protocol = socketUrl.protocol === "https:" ? "wss:" : "ws:";
    return new Connection({
      session: () => this.signIn.session(),
      forgetSession: () => this.signIn.forgetSession(),
      lang: () => lang.peek(),
      socketUrl,
      frame: (frame) => this.take(frame),
      changed: (socket) => {
        this.stage.set({ socket });
        if (socket === "broken") {
          this.joined = this.toldOn = false;
          this.audio.pause();
          this.stage.setMic({ taken: false });
        }
      },
      full: () => this.stage.set({ full: true }),
      refused: (why) => this.linkRefused(why),
    });
  }

  private take(frame: ToPage): void {
    const { state } = this.stage;
    switch (frame.t) {
      case "snapshot":
        state.value = withSnapshot(state.peek(), frame, Date.now());
        this.leftOut ??= new LeftOut(frame.stage.id);
        for (const user of this.leftOut.missing(frame.me.left_out)) void this.wishLeftOut(user, true, true);
        return this.settled();
      case "patch": {
        const next = withPatch(state.peek(), frame);
        if (next === "gap") return this.connection.resync();
        if (state.peek().me?.hand == null && next.me?.hand != null) buzz([10]);
        if (state.peek().me?.can_hear === true && next.me?.can_hear === false) this.joined = false; // the relay lost us
        state.value = next;
        return this.settled();
      }
      case "levels":
        return this.lights.take(frame.levels);
      case "notice":
        return this.notice(frame);
      case "bye":
        return this.bye(frame);
    }
  }

  /** After new truth from the server: cuts reach the track at once, an open microphone is announced again. */
  private settled(): void {
    const state = this.stage.state.peek();
    const { me, mic, speakers, closed } = state;
    this.lights.setPeople(speakers);
    if (closed !== null) return this.finish(closed.why, closed.text);
    const music = state.stage?.sound === "music";
    const tuned = music === this.forMusic || !mayHoldMic(state); // only who speaks needs another answer: to send stereo
    if (this.hears() && (!this.joined || !tuned)) {
      this.joined = true;
      this.forMusic = music;
      this.audio.join();
      if (this.microphone.tune(music) && mic.wanted) void this.changeMicrophone();
    }
    if (this.toldOn && !mic.wanted) void this.announce(false); // a cut took it: else others see it open once it is allowed again
    if (!mayHoldMic(state)) {
      this.microphone.release();
      void this.audio.send(null);
    } else if (!mic.wanted) {
      this.microphone.mute();
    } else if (me?.can_speak && !mic.taken && !mic.asking) {
      void this.announce(true);
    }
  }

  private notice({ key, by_name }: Notice): void {
    if (key === "muted") buzz([40]);
    if (key === "invited") return; // `me.invited` shows it, with its answers
    this.desk.note({ kind: "notice", key, by: by_name });
  }

  private bye({ reason, error }: Bye): void {
    if (reason === "full") this.stage.set({ full: true });
    if (reason === "restart" || reason === "slow" || reason === "full") return this.connection.reopen();
    if (reason === "expired") {
      this.signIn.forgetSession(); // the link may still open a new one; if not, its refusal says what to do
      return this.connection.reopen();
    }
    this.finish(reason, error);
  }

  private linkRefused({ reason, message, guest, gone }: LinkRefused): void {
    const known = LINK_TROUBLES.has(reason) ? (reason as Closing) : "unknown";
    this.finish(gone ? "over" : guest ? "guests" : known, message);
  }

  private finish(why: Closing, text: string): void {
    this.stage.set({ closed: { why, text } });
    this.connection.stop();
    this.audio.close();
    this.microphone.release();
    this.lights.stop();
    this.desk.clear();
  }

  /** "Back again", with what was missed; a hiccup that nobody noticed is not told. */
  private noteReturns(): () => void {
    let lostAt: number | null = null;
    return effect(() => {
      const now = this.stage.connection.value;
      if (now === "lost") lostAt ??= Date.now();
      if (now !== "live" || lostAt === null) return;
      const missedMs = Date.now() - lostAt;
      lostAt = null;
      if (missedMs >= NOTICED) this.desk.note({ kind: "back", missedMs });
    });
  }

  private hears(): boolean {
    const { socket, stage } = this.stage.state.peek();
    return socket === "open" && stage?.status === "live";
  }

  // -- requests ----------------------------------------------------------------------------------

  private async ask(request: Request, quiet = false): Promise<boolean> {
    try {
      await this.connection.request(request);
      return true;
    } catch (error) {
      if (!(error instanceof Refusal || error instanceof NoAnswer)) throw error;
      const text = (error instanceof Refusal && error.message) || t("toast-no-answer");
      if (!quiet || error instanceof Refusal) this.desk.toast({ text, tone: "bad" });
      return false;
    }
  }

  /** `again`: after a break, where the server has forgotten it. */
  private async wishLeftOut(user: string, out: boolean, again = false): Promise<void> {
    const { speakers, audience } = this.stage.state.peek();
    const name = [...speakers, ...audience.faces].find((each) => each.user === user)?.name ?? user;
    this.leftOut?.set(user, out);
    if (!(await this.ask({ t: "leave_out", user, out }, again))) {
      if (this.stage.state.peek().socket === "open") this.leftOut?.set(user, false); // refused, not merely lost
      return;
    }
    if (!out || again) return;
    this.desk.toast({ text: t("toast-left-out", { name }), tone: "plain", undo: { label: t("undo"), run: () => this.leaveOut(user, false) } });
  }

  private async wishHand(wish: "up" | "down", note: string): Promise<void> {
    this.stage.set({ handWish: wish });
    clearTimeout(this.wishTimer);
    if (!(await this.ask({ t: "hand", raised: wish === "up", note: note.trim() }))) {
      if (this.stage.state.peek().handWish === wish) this.stage.set({ handWish: null });
      return;
    }
    const { me } = this.stage.state.peek();
    if (wish === "down" && me?.hand == null) this.stage.set({ handWish: null }); // it was still on its way
    this.wishTimer = setTimeout(() => {
      if (this.stage.state.peek().handWish !== wish) return;
      this.stage.set({ handWish: null });
      this.desk.toast({ text: t("toast-no-answer"), tone: "bad" });
    }, WISH_LIMIT);
  }

  private async micOn(): Promise<void> {
    this.stage.setMic({ wanted: true, asking: true, taken: false, silent: false, trouble: null });
    await this.openTrack();
  }

  private async openTrack(): Promise<void> {
    try {
      const track = await this.microphone.open(chosenMicrophone.peek());
      if (!this.stage.state.peek().mic.wanted || !mayHoldMic(this.stage.state.peek())) return this.microphone.release();
      await this.audio.send(track);
      this.stage.setMic({ asking: false });
      this.settled();
    } catch (error) {
      if (!(error instanceof MicrophoneRefused)) throw error;
      this.stage.setMic({ wanted: false, asking: false, trouble: error.trouble });
    }
  }

  private async micOff(): Promise<void> {
    this.microphone.mute();
    this.stage.setMic({ wanted: false, asking: false, taken: false, silent: false });
    await this.audio.send(null);
    await this.announce(false);
  }

  private async announce(on: boolean): Promise<void> {
    this.toldOn = on;
    if (on) this.stage.setMic({ asking: true });
    const accepted = await this.ask({ t: "mic", on }, true);
    if (!on || !this.stage.state.peek().mic.wanted) return;
    if (accepted) return this.stage.setMic({ asking: false, taken: true });
    // refused: not heard, so not shown as on. A broken socket alone keeps the wish: the next snapshot asks again.
    const open = this.stage.state.peek().socket === "open";
    if (open) this.microphone.mute();
    this.stage.setMic({ asking: false, wanted: !open });
  }
}
