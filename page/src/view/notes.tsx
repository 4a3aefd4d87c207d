/** What a person must know now: connection and microphone notes, the floating note, the toast, and what readers are told. */
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { FloatingNote, ShownNotice } from "../desk";
import { ordinal, t } from "../words";
import { CopyButton } from "./command";
import { useControls } from "./context";
import { Icon } from "./icon";
import type { IconName } from "./icon";
import { ROLE_KEY } from "./speaker";

interface NoteProps {
  tone?: "plain" | "wait" | "bad" | "ok";
  icon: IconName;
  spin?: boolean;
  fact: string;
  place?: "top" | "float" | "in";
  testid: string;
  onClose?: () => void;
  children?: ComponentChildren;
}

export function Note({ tone = "plain", icon, spin, fact, place = "in", testid, onClose, children }: NoteProps) {
  return (
    <div class={`note note-${tone} note-${place} ${testid}`} data-testid={testid}>
      <Icon name={icon} spin={spin} />
      <div>
        <p class="strong">{fact}</p>
        {children}
      </div>
      {onClose !== undefined && (
        <button type="button" class="icon-btn" aria-label={t("close")} onClick={onClose} data-testid="note-close">
          <Icon name="x" />
        </button>
      )}
    </div>
  );
}

/** Under the title: the state of the connection, while it is not well. */
export function ConnectionNote() {
  const { stage } = useControls();
  const { full, media, mic, stage: info } = stage.state.value;
  const connection = stage.connection.value;
  if (full) {
    return (
      <Note tone="wait" place="top" icon="hourglass" fact={t("full")} testid="note-full">
        <p>{t("full-text")}</p>
      </Note>
    );
  }
  if (connection === "lost" && media === "blocked") {
    return (
      <Note tone="bad" place="top" icon="shield" fact={t("blocked")} testid="note-blocked">
        <p>{t("blocked-text")}</p>
        <div class="btns">
          <CopyButton label={t("copy-details")} text={() => `Eyvan · ${info?.id ?? "?"} · ICE/UDP: no sound · ${new Date().toISOString()} · ${navigator.userAgent}`} />
        </div>
      </Note>
    );
  }
  if (connection === "lost") {
    return (
      <Note tone="wait" place="top" icon="wifi-off" fact={t("lost")} testid="note-lost">
        <p>{t(mic.wanted ? "lost-text-mic" : "lost-text")}</p>
      </Note>
    );
  }
  if (connection === "connecting") {
    return (
      <Note place="top" icon="loader-circle" spin fact={t("connecting")} testid="note-connecting">
        <p>{t("connecting-text")}</p>
      </Note>
    );
  }
  return null;
}

const NOTICE: Record<ShownNotice, { tone: "plain" | "ok" | "bad" | "wait"; icon: IconName; fact: string; text: string }> = {
  muted: { tone: "bad", icon: "mic-off", fact: "muted", text: "muted-text" },
  unmuted: { tone: "ok", icon: "mic", fact: "unmuted", text: "unmuted-text" },
  to_stage: { tone: "ok", icon: "mic-vocal", fact: "to-stage", text: "to-stage-text" },
  to_audience: { tone: "plain", icon: "ear", fact: "to-audience", text: "to-audience-text" },
  hand_not_now: { tone: "wait", icon: "hand", fact: "hand-not-now", text: "hand-not-now-text" },
  invite_declined: { tone: "plain", icon: "hand", fact: "invite-declined", text: "invite-declined-text" },
  not_written: { tone: "wait", icon: "circle-alert", fact: "not-written", text: "not-written-text" },
  cut_not_written: { tone: "wait", icon: "circle-alert", fact: "cut-not-written", text: "cut-not-written-text" },
  confirm: { tone: "wait", icon: "shield", fact: "confirm", text: "confirm-text" },
  confirmed: { tone: "ok", icon: "check", fact: "confirmed", text: "confirmed-text" },
  confirm_failed: { tone: "bad", icon: "circle-alert", fact: "confirm-failed", text: "confirm-failed-text" },
};

/** Above the dock, one at a time: trouble with one's own microphone first, then what was done to one. */
export function Floating() {
  const { desk, stage } = useControls();
  const { mic, me } = stage.state.value;
  const toast = desk.current.value;
  const note = desk.floating.value;
  const outdated = note?.kind === "notice" && !stillTrue(note.key, me?.muted === true, me?.can_speak === true, stage.standing.value !== "audience");
  if (toast !== null) return <ToastNote />;
  if (mic.trouble !== null) return <MicTroubleNote />;
  if (stage.mic.value === "silent") return <SilentNote />;
  return note === null || outdated ? null : <FloatingOne note={note} />;
}

/** A note is not shown against what the page knows: what it tells may be outdated by a cut, or not yet confirmed by the relay. */
function stillTrue(key: ShownNotice, muted: boolean, maySpeak: boolean, onStage: boolean): boolean {
  switch (key) {
    case "muted":
      return muted;
    case "unmuted":
    case "to_stage":
      return maySpeak;
    case "to_audience":
      return !onStage;
    default:
      return true;
  }
}

function FloatingOne({ note }: { note: FloatingNote }) {
  const { desk, stage } = useControls();
  const { me } = stage.state.value;
  const onStage = stage.standing.value !== "audience";
  const close = (): void => desk.dismissNote();
  if (note.kind === "back") {
    const seconds = Math.max(1, Math.round(note.missedMs / 1000));
    const open = stage.mic.value === "on";
    return (
      <Note tone="ok" place="float" icon="check" fact={t("back")} testid="note-back" onClose={close}>
        <p>
          {t("back-text", { seconds })} {onStage && t(open ? "back-mic-on" : "back-mic-off")}
        </p>
      </Note>
    );
  }
  const { tone, icon, fact, text } = NOTICE[note.key];
  const named = note.by !== "" && (note.key === "muted" || note.key === "invite_declined") ? t(`${fact}-by`, { name: note.by }) : t(fact, { code: note.by });
  return (
    <Note tone={tone} place="float" icon={icon} fact={named} testid={`note-${note.key}`} onClose={close}>
      <p>{t(text, { code: note.by })}</p>
      {note.key === "muted" && me?.may_raise && <AskToSpeak />}
    </Note>
  );
}

function AskToSpeak() {
  const { desk } = useControls();
  return (
    <div class="btns">
      <button type="button" class="btn btn-line" onClick={() => desk.open({ kind: "hand" })} data-testid="ask-to-speak">
        <Icon name="hand" />
        <span>{t("ask-to-speak")}</span>
      </button>
    </div>
  );
}

function MicTroubleNote() {
  const controls = useControls();
  const { trouble } = controls.stage.state.value.mic;
  const close = (): void => controls.stage.setMic({ trouble: null });
  if (trouble === null) return null;
  return (
    <Note tone="bad" place="float" icon="mic-off" fact={t(`trouble-${trouble}`)} testid="note-trouble" onClose={close}>
      <p>{t(`trouble-${trouble}-text`)}</p>
      <div class="btns">
        <button type="button" class="btn btn-line" onClick={() => controls.toggleMicrophone()} data-testid="mic-retry">
          <Icon name="refresh-cw" />
          <span>{t("try-again")}</span>
        </button>
      </div>
    </Note>
  );
}

function SilentNote() {
  const { desk } = useControls();
  return (
    <Note tone="wait" place="float" icon="circle-alert" fact={t("silent")} testid="note-silent">
      <p>{t("silent-text")}</p>
      <div class="btns">
        <button type="button" class="btn btn-hand" onClick={() => desk.open({ kind: "settings" })} data-testid="choose-microphone">
          <Icon name="settings" />
          <span>{t("choose-microphone")}</span>
        </button>
      </div>
    </Note>
  );
}

function ToastNote() {
  const { desk } = useControls();
  const toast = desk.current.value;
  if (toast === null) return null;
  const undo = (): void => {
    desk.dismissToast();
    toast.undo?.run();
  };
  return (
    <div class="toast" data-testid="toast" data-tone={toast.tone}>
      <Icon name={toast.tone === "bad" ? "circle-alert" : "check"} />
      <span>{toast.text}</span>
      {toast.undo !== undefined && (
        <button type="button" class="btn" onClick={undo} data-testid="undo">
          {toast.undo.label}
        </button>
      )}
    </div>
  );
}

/**
 * Two live regions. Assertive: muted by a moderator, connection lost. Polite: hand, place in line, role, back again, toast.
 * Levels, counts and others' comings and goings are never spoken.
 */
export function Spoken() {
  const { desk, stage } = useControls();
  const { me } = stage.state.value;
  const connection = stage.connection.value;
  const toast = desk.current.value?.text ?? "";
  const position = me?.hand?.position;
  const hand = position === undefined ? "" : t("say-hand-up", { where: t("in-line", { place: ordinal(position) }) });
  const urgent = connection === "lost" ? t("lost") : me?.muted ? t("muted") : "";
  const role = useChanged(me === null ? null : stage.standing.value === "stage" ? me.role : "listener");
  return (
    <>
      <p class="vh" aria-live="assertive">
        {urgent}
      </p>
      <p class="vh" aria-live="polite">
        {[hand, role === null ? "" : t("say-role", { role: t(ROLE_KEY[role]) }), toast].filter((each) => each !== "").join(" ")}
      </p>
    </>
  );
}

/** The value once it differs from the first one; null before. */
function useChanged<T>(value: T | null): T | null {
  const [first, setFirst] = useState<T | null>(null);
  const [changed, setChanged] = useState(false);
  useEffect(() => {
    if (first === null) setFirst(value);
    else if (value !== first) setChanged(true);
  }, [value, first]);
  return changed ? value : null;
}
