/** The small sheets: raise a hand, the invitation, the door, the guest's way in, and the few questions worth asking twice. */
import { useEffect, useState } from "preact/hooks";
import { buzz } from "../haptics";
import { t } from "../words";
import { useControls } from "./context";
import { Command } from "./command";
import { useDeeds } from "./deeds";
import { HandsSheet } from "./hands";
import { Icon } from "./icon";
import { PeopleSheet, wide } from "./people";
import { lookUp, PersonSheet } from "./person";
import { SettingsSheet } from "./settings";
import { Niche } from "./shapes";
import { Sheet } from "./sheet";
import { titleOf } from "./top";

const MAX_NOTE = 140; // signs; the server refuses longer notes
const MAX_TOPIC = 200;

/** Whichever sheet is open; the invitation goes before all others, since somebody waits for the answer. */
export function Sheets() {
  const { desk, stage } = useControls();
  const sheet = desk.sheet.value;
  if (stage.hand.value === "invited") return <InvitationSheet />;
  if (wide.value && (sheet?.kind === "people" || sheet?.kind === "hands")) return null; // the panel shows them
  switch (sheet?.kind) {
    case "hand":
      return <HandSheet />;
    case "people":
      return <PeopleSheet />;
    case "hands":
      return <HandsSheet />;
    case "settings":
      return <SettingsSheet />;
    case "person":
      return <PersonSheet user={sheet.user} />;
    case "kick":
      return <KickSheet user={sheet.user} />;
    case "topic":
      return <TopicSheet />;
    case "end":
      return <EndSheet />;
    case "guest":
      return <GuestSheet />;
    default:
      return null;
  }
}

function HandSheet() {
  const controls = useControls();
  const [note, setNote] = useState("");
  const send = (event: Event): void => {
    event.preventDefault();
    controls.desk.close();
    controls.raiseHand(note);
  };
  const left = MAX_NOTE - [...note].length;
  return (
    <Sheet title={t("hand-title")} testid="hand-sheet">
      <form class="form" onSubmit={send}>
        <label class="mute-2 small" for="hand-note">
          {t("hand-note-label")}
        </label>
        <textarea
          id="hand-note"
          class="field"
          rows={2}
          dir="auto"
          maxLength={MAX_NOTE}
          placeholder={t("hand-note-hint")}
          value={note}
          onInput={(event) => setNote(event.currentTarget.value)}
          data-testid="hand-note"
        />
        {left <= 30 && <p class="small mute-2 num">{t("hand-note-left", { left })}</p>}
        <button type="submit" class="btn btn-hand btn-big btn-wide" data-testid="hand-send" data-autofocus>
          <Icon name="hand" />
          <span>{t("raise-hand")}</span>
        </button>
      </form>
    </Sheet>
  );
}

function InvitationSheet() {
  const controls = useControls();
  const invited = controls.stage.state.value.me?.invited;
  useEffect(() => buzz([20, 60, 20]), []);
  if (!invited) return null;
  const decline = (): void => controls.answerInvitation(false);
  const stay = (): void => undefined; // somebody waits for an answer: a press beside the sheet is none
  return (
    <Sheet title="" ownTitle look="invite" testid="invitation" onClose={stay}>
      {(titleId) => (
        <>
          <Niche user={invited.by} name={invited.by_name}>
            <span class="mark mark-on">
              <Icon name="hand" />
            </span>
          </Niche>
          <h2 id={titleId}>{t("invited-title", { name: invited.by_name })}</h2>
          <p class="mute-2">{t("invited-text")}</p>
          <div class="btns">
            <button type="button" class="btn btn-big" onClick={decline} data-testid="invite-decline">
              {t("not-now")}
            </button>
            <button type="button" class="btn btn-main btn-big" onClick={() => controls.answerInvitation(true)} data-testid="invite-accept">
              {t("come-up")}
            </button>
          </div>
        </>
      )}
    </Sheet>
  );
}

/** So that Tab leads to the one button and a reader reads the welcome. */
function focusIt(node: HTMLElement | null): void {
  node?.focus({ preventScroll: true });
}

/** Shown where the browser wants a click before it lets sound out. All is connected behind it already. */
export function Door() {
  const controls = useControls();
  const { stage, audience, speakers } = controls.stage.state.value;
  const host = speakers.find((each) => each.role === "host") ?? speakers[0];
  if (stage === null) return null;
  return (
    <div class="door">
      <section class="sheet invite" role="dialog" aria-modal="true" aria-labelledby="door-title" tabIndex={-1} ref={focusIt} data-testid="door-sheet">
        {host !== undefined && (
          <Niche user={host.user} name={host.name}>
            <span class="mark mark-on">
              <Icon name="headphones" />
            </span>
          </Niche>
        )}
        <h2 id="door-title">{t("door-title", { title: titleOf(stage).title })}</h2>
        <p class="mute-2">{controls.stage.standing.value !== "audience" ? t("door-text-stage") : t("door-text", { count: audience.count })}</p>
        <div class="btns">
          <button type="button" class="btn btn-main btn-big" onClick={() => controls.listen()} data-testid="door">
            <Icon name="headphones" />
            <span>{t("door-listen")}</span>
          </button>
        </div>
        <p class="small mute-3">{t("not-e2ee")}</p>
      </section>
    </div>
  );
}

function GuestSheet() {
  return (
    <Sheet title={t("guest-title")} testid="guest-sheet">
      <p class="mute-2">{t("guest-text")}</p>
      <Command text="!link" />
    </Sheet>
  );
}

function EndSheet() {
  const controls = useControls();
  const { desk, stage } = controls;
  const count = stage.state.value.audience.count;
  const end = (): void => {
    desk.close();
    void controls.act("end");
  };
  return (
    <Sheet title={t("confirm-end")} testid="end-sheet">
      <p class="mute-2">{t("confirm-end-text", { count })}</p>
      <Question yes={t("end-stage")} testid="end-confirm" onYes={end} />
    </Sheet>
  );
}

function KickSheet({ user }: { user: string }) {
  const { desk, stage } = useControls();
  const deeds = useDeeds();
  const known = lookUp(stage.state.value, user);
  if (known === null) return null;
  const kick = (): void => {
    desk.close();
    deeds.kick(known);
  };
  return (
    <Sheet title={t("confirm-kick", { name: known.name })} testid="kick-sheet">
      <p class="mute-2">{t("confirm-kick-text")}</p>
      <Question yes={t("person-kick")} testid="kick-confirm" onYes={kick} />
    </Sheet>
  );
}

function Question({ yes, testid, onYes }: { yes: string; testid: string; onYes(): void }) {
  const { desk } = useControls();
  return (
    <div class="btns">
      <button type="button" class="btn btn-line" onClick={() => desk.close()} data-autofocus>
        {t("cancel")}
      </button>
      <button type="button" class="btn btn-live" onClick={onYes} data-testid={testid}>
        {yes}
      </button>
    </div>
  );
}

function TopicSheet() {
  const controls = useControls();
  const { desk, stage } = controls;
  const [topic, setTopic] = useState(stage.state.peek().stage?.topic ?? "");
  const save = (event: Event): void => {
    event.preventDefault();
    desk.close();
    void controls.act("topic", null, topic.trim());
  };
  return (
    <Sheet title={t("topic-title")} testid="topic-sheet">
      <form class="form" onSubmit={save}>
        <label class="mute-2 small" for="topic-field">
          {t("topic-label")}
        </label>
        <input
          id="topic-field"
          class="field"
          dir="auto"
          maxLength={MAX_TOPIC}
          value={topic}
          onInput={(event) => setTopic(event.currentTarget.value)}
          data-testid="topic-field"
          data-autofocus
        />
        <button type="submit" class="btn btn-main btn-big btn-wide" data-testid="topic-save">
          {t("topic-save")}
        </button>
      </form>
    </Sheet>
  );
}
