/** The dock: all that a thumb needs. Its middle is the one answer to "what can I do now?": the hand, or the microphone. */
import { useEffect, useRef } from "preact/hooks";
import type { ComponentChildren } from "preact";
import { number, ordinal, t } from "../words";
import { useControls } from "./context";
import { showHands, showPeople } from "./people";
import { Icon } from "./icon";
import type { IconName } from "./icon";

export function Dock() {
  const controls = useControls();
  const { desk, stage } = controls;
  const { me, queue } = stage.state.value;
  const open = desk.sheet.value?.kind;
  const moderates = canModerate(me?.can ?? []);
  return (
    <nav class={moderates ? "dock" : "dock dock-4"} aria-label={t("controls")}>
      <button type="button" class="dk dk-leave" onClick={() => controls.leave()} data-testid="leave">
        <Icon name="log-out" />
        <span>{t("leave")}</span>
      </button>
      {moderates && <DockButton id="people" icon="users" label={t("people")} open={open === "people"} onClick={() => showPeople(controls)} />}
      {stage.standing.value !== "audience" ? <MicButton /> : <HandButton />}
      {moderates ? (
        <DockButton id="hands" icon="hand" label={t("hands")} open={open === "hands"} onClick={() => showHands(controls)}>
          {queue.length > 0 && <b class="count count-hand num">{number(queue.length)}</b>}
        </DockButton>
      ) : (
        <DockButton id="people" icon="users" label={t("people")} open={open === "people"} onClick={() => showPeople(controls)} />
      )}
      <DockButton
        id="settings"
        icon={moderates ? "sliders-horizontal" : stage.standing.value !== "audience" ? "settings-2" : "volume-2"}
        label={t(moderates ? "desk" : stage.standing.value !== "audience" ? "device" : "sound")}
        open={open === "settings"}
        onClick={() => desk.open({ kind: "settings" })}
      />
    </nav>
  );
}

/** Whether this person's page has the desk: the queue of hands and what belongs to it. */
export function canModerate(can: string[]): boolean {
  return can.includes("bring_up");
}

interface DockButtonProps {
  id: string;
  icon: IconName;
  label: string;
  open: boolean;
  onClick(): void;
  children?: ComponentChildren;
}

function DockButton({ id, icon, label, open, onClick, children }: DockButtonProps) {
  return (
    <button type="button" class="dk" aria-expanded={open} aria-haspopup="dialog" onClick={onClick} data-testid={id}>
      <Icon name={icon} />
      <span>{label}</span>
      {children}
    </button>
  );
}

interface GoProps {
  id: "hand" | "mic";
  state: string;
  look: string;
  icon: IconName;
  spin?: boolean;
  label: string;
  hint?: string;
  pressed?: boolean;
  disabled?: boolean;
  onClick?(): void;
  children?: ComponentChildren;
}

function Go({ id, state, look, icon, spin, label, hint, pressed, disabled, onClick, children }: GoProps) {
  return (
    <button
      type="button"
      class={`go ${look}`}
      aria-pressed={pressed}
      aria-disabled={disabled}
      onClick={onClick}
      data-testid={id}
      data-state={state}
    >
      <Icon name={icon} spin={spin} />
      <span>
        {label}
        {hint !== undefined && <small>{hint}</small>}
      </span>
      {children}
    </button>
  );
}

function HandButton() {
  const controls = useControls();
  const { me } = controls.stage.state.value;
  const state = controls.stage.hand.value;
  const place = { id: "hand", state } as const;
  if (me !== null && me.user === null) {
    const explain = (): void => controls.desk.open({ kind: "guest" });
    return <Go {...place} look="go-off" icon="headphones" label={t("guest-listens")} hint={t("guest-how")} onClick={explain} />;
  }
  switch (state) {
    case "down":
      return <Go {...place} look="" icon="hand" label={t("raise-hand")} onClick={() => controls.desk.open({ kind: "hand" })} />;
    case "pending":
      return (
        <Go {...place} look="go-pending" icon="loader-circle" spin label={t("sending")} hint={t("take-back")} onClick={() => controls.lowerHand()} />
      );
    case "up": {
      const where = t("in-line", { place: ordinal(me?.hand?.position ?? 1) });
      return <Go {...place} look="go-hand" icon="hand" label={where} hint={t("lower-hand")} onClick={() => controls.lowerHand()} />;
    }
    case "invited":
      return <Go {...place} look="" icon="check" label={t("come-up")} onClick={() => controls.answerInvitation(true)} />;
    case "closed":
      return <Go {...place} look="go-off" icon="hand" disabled label={t("hands-closed")} hint={t("hands-closed-why")} />;
  }
}

function MicButton() {
  const controls = useControls();
  const state = controls.stage.mic.value;
  const { me } = controls.stage.state.value;
  const live = controls.stage.connection.value === "live";
  const toggle = (): void => controls.toggleMicrophone();
  const place = { id: "mic", state } as const;
  switch (state) {
    case "absent":
      return <Go {...place} look="go-pending" icon="loader-circle" spin disabled label={t("mic-opening")} />;
    case "off":
      return <Go {...place} look="go-off" icon="mic-off" pressed={false} label={t("mic-off")} onClick={toggle} />;
    case "asking":
      return <Go {...place} look="go-pending" icon="loader-circle" spin label={t(live ? "mic-asking" : "mic-opening")} onClick={toggle} />;
    case "silent":
      return <Go {...place} look="go-hand" icon="circle-alert" pressed label={t("mic-silent")} hint={t("mic-silent-hint")} onClick={toggle} />;
    case "muted": {
      const explain = (): void => controls.desk.note({ kind: "notice", key: "muted", by: "" });
      const look = me?.muted ? "go-stop" : "go-off";
      return <Go {...place} look={look} icon="mic-off" disabled label={t("mic-muted")} hint={t("mic-muted-hint")} onClick={explain} />;
    }
    case "on":
      return (
        <Go {...place} look="go-on" icon="mic" pressed label={t("mic-on")} onClick={toggle}>
          <Meter />
        </Go>
      );
  }
}

const BARS = [0.55, 0.9, 0.65, 1, 0.5]; // each bar's share of the level: a shape, not a spectrum

function Meter() {
  const { microphone } = useControls();
  const node = useRef<HTMLSpanElement>(null);
  useEffect(() => {
    let frame = 0;
    let shown = -1;
    const paint = (): void => {
      const level = microphone.level;
      if (Math.abs(level - shown) > 0.02) {
        shown = level;
        node.current?.querySelectorAll("i").forEach((bar, i) => {
          bar.style.setProperty("--l", Math.max(0.18, level * (BARS[i] ?? 1)).toFixed(2));
        });
      }
      frame = requestAnimationFrame(paint);
    };
    paint();
    return () => cancelAnimationFrame(frame);
  }, [microphone]);
  return (
    <span class="meter" aria-hidden="true" ref={node}>
      {BARS.map((_, i) => (
        <i key={i} />
      ))}
    </span>
  );
}
