/** Who is on the stage: one niche for each, with its light, microphone mark, name and role. */
import { useLayoutEffect, useRef } from "preact/hooks";
import type { Person } from "../messages";
import { t } from "../words";
import { useControls } from "./context";
import { Icon } from "./icon";
import { Line, Niche } from "./shapes";

export const ROLE_KEY = {
  host: "role-host",
  moderator: "role-moderator",
  speaker: "role-speaker",
  listener: "role-listener",
} as const;

export const MIC_KEY = { on: "mic-is-on", off: "mic-is-off", muted: "mic-is-muted" } as const;

interface SpeakerProps {
  person: Person;
  middle?: boolean;
  tabIndex: number;
  onFocus(): void;
}

export function Speaker({ person, middle = false, tabIndex, onFocus }: SpeakerProps) {
  const { desk, lights, stage } = useControls();
  const node = useRef<HTMLButtonElement>(null);
  useLayoutEffect(() => (node.current ? lights.attach(person.user, node.current) : undefined), [lights, person.user]);
  const talking = lights.talking.value.has(person.user);
  const self = stage.state.value.me?.user === person.user;
  const leftOut = stage.state.value.me?.left_out.includes(person.user) === true;
  const coming = person.coming || (self && stage.standing.value === "coming");
  const classes = ["sp", middle && "sp-middle", talking && "talking", !person.connected && "away", coming && "coming", leftOut && "left-out"].filter(Boolean).join(" ");
  return (
    <button
      ref={node}
      type="button"
      class={classes}
      tabIndex={tabIndex}
      onFocus={onFocus}
      onClick={() => desk.open({ kind: "person", user: person.user })}
      data-testid="speaker"
      data-user={person.user}
      data-role={person.role}
      data-mic={person.mic}
      data-talking={String(talking)}
      data-connected={String(person.connected)}
      data-left-out={String(leftOut)}
      data-state={coming ? "coming" : "stage"}
    >
      <Niche user={person.user} name={person.name}>
        <MicMark person={person} leftOut={leftOut} />
      </Niche>
      <span class="name">{self ? t("you") : <Line>{person.name}</Line>}</span>
      <span class={self || coming || person.role !== "speaker" ? "role" : "vh"}>{t(coming ? "coming-up" : ROLE_KEY[person.role])}</span>
      {!coming && <span class="vh">{leftOut ? t("is-left-out") : spoken(person, talking)}</span>}
    </button>
  );
}

/** What the picture shows by colour and mark, for those who hear the page. */
function spoken(person: Person, talking: boolean): string {
  if (!person.connected) return t("not-here");
  return t(talking ? "is-talking" : MIC_KEY[person.mic]);
}

function MicMark({ person, leftOut }: { person: Person; leftOut: boolean }) {
  if (leftOut) {
    return (
      <span class="mark mark-stop">
        <Icon name="volume-x" />
      </span>
    );
  }
  if (!person.connected) {
    return (
      <span class="mark">
        <Icon name="clock" />
      </span>
    );
  }
  if (person.mic === "on") {
    return (
      <span class="mark mark-on">
        <Icon name="mic" />
      </span>
    );
  }
  return (
    <span class={person.mic === "muted" ? "mark mark-stop" : "mark"}>
      <Icon name="mic-off" />
    </span>
  );
}
