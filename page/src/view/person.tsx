/** One person: who they are, and what the viewer may do. Nothing is drawn that may not be pressed. */
import type { Act } from "../messages";
import { t } from "../words";
import { useControls } from "./context";
import { useDeeds } from "./deeds";
import { Icon } from "./icon";
import type { IconName } from "./icon";
import { Dot, Name } from "./shapes";
import { Sheet } from "./sheet";
import { ROLE_KEY } from "./speaker";
import type { State } from "../stage";

interface Known {
  user: string;
  name: string;
  role: "host" | "moderator" | "speaker" | "listener";
  onStage: boolean;
  muted: boolean;
  hand: boolean;
  leftOut: boolean;
}

/** What this page knows of a person, wherever they stand; null when they are gone. */
export function lookUp({ speakers, audience, queue, me }: State, user: string): Known | null {
  const leftOut = me?.left_out.includes(user) === true;
  const speaker = speakers.find((each) => each.user === user);
  if (speaker !== undefined) {
    return { user, name: speaker.name, role: speaker.role, onStage: true, muted: speaker.mic === "muted", hand: false, leftOut };
  }
  const face = audience.faces.find((each) => each.user === user) ?? queue.find((each) => each.user === user);
  if (face === undefined) return null;
  const hand = queue.some((each) => each.user === user) || ("hand" in face && face.hand);
  return { user, name: face.name, role: "listener", onStage: false, muted: false, hand, leftOut };
}

interface Choice {
  /** Null: one's own affair, open to everybody. */
  act: Act | null;
  icon: IconName;
  label: string;
  hint?: string;
  danger?: boolean;
  testid: string;
  run(): void;
}

export function PersonSheet({ user }: { user: string }) {
  const { desk, stage } = useControls();
  const known = lookUp(stage.state.value, user);
  const choices = useChoices(known);
  if (known === null) return null;
  return (
    <Sheet title={known.name} ownTitle testid="person-sheet">
      {(titleId) => (
        <>
          <div class="person">
            <Dot user={user} name={known.name} />
            <div class="person-name">
              <h2 id={titleId}>
                <Name>{known.name}</Name>
              </h2>
              <span class="mxid">{user}</span>
            </div>
            <span class="badge">{t(ROLE_KEY[known.role])}</span>
            <button type="button" class="icon-btn" aria-label={t("close")} onClick={() => desk.close()} data-testid="close">
              <Icon name="x" />
            </button>
          </div>
          {choices.length === 0 ? (
            <p class="mute-2 small">{t("person-nothing", { name: known.name })}</p>
          ) : (
            <div class="menu">
              {choices.map((each) => (
                <button key={each.testid} type="button" class={each.danger ? "danger" : ""} onClick={each.run} data-testid={each.testid} data-user={user}>
                  <Icon name={each.icon} />
                  <span>
                    {each.label}
                    {each.hint !== undefined && <small>{each.hint}</small>}
                  </span>
                </button>
              ))}
            </div>
          )}
        </>
      )}
    </Sheet>
  );
}

function useChoices(known: Known | null): Choice[] {
  const controls = useControls();
  const { desk, stage } = controls;
  const deeds = useDeeds();
  const { me } = stage.state.value;
  if (known === null || me === null || me.user === known.user) return [];
  const then = (deed: () => void) => (): void => {
    desk.close();
    deed();
  };
  const choices: Choice[] = [];
  if (known.onStage || known.leftOut) choices.push(leaveOutChoice(known, then(() => controls.leaveOut(known.user, !known.leftOut))));
  const deedsHere: Choice[] = known.onStage
    ? [
        known.muted
          ? { act: "unmute", icon: "mic", label: t("person-unmute"), hint: t("person-unmute-hint"), testid: "unmute", run: then(() => deeds.unmute(known)) }
          : { act: "mute", icon: "mic-off", label: t("person-mute"), hint: t("person-mute-hint"), testid: "mute", run: then(() => deeds.mute(known)) },
        { act: "to_audience", icon: "arrow-down-to-line", label: t("person-to-audience"), testid: "to-audience", run: then(() => deeds.toAudience(known)) },
      ]
    : [
        known.hand
          ? { act: "bring_up", icon: "arrow-up", label: t("bring-up"), testid: "bring-up", run: then(() => deeds.bringUp(known)) }
          : { act: "invite", icon: "hand", label: t("person-invite"), hint: t("person-invite-hint"), testid: "invite", run: then(() => deeds.invite(known)) },
      ];
  choices.push(...deedsHere);
  if (known.role === "speaker" || known.role === "listener") {
    choices.push({ act: "make_moderator", icon: "shield", label: t("person-make-moderator"), testid: "make-moderator", run: then(() => deeds.makeModerator(known)) });
  }
  choices.push({
    act: "kick",
    icon: "user-minus",
    label: t("person-kick"),
    hint: t("person-kick-hint"),
    danger: true,
    testid: "kick",
    run: () => desk.open({ kind: "kick", user: known.user }),
  });
  return choices.filter((each) => each.act === null || me.can.includes(each.act));
}

function leaveOutChoice({ leftOut }: Known, run: () => void): Choice {
  return leftOut
    ? { act: null, icon: "volume-2", label: t("person-hear-again"), testid: "hear-again", run }
    : { act: null, icon: "volume-x", label: t("person-leave-out"), hint: t("person-leave-out-hint"), testid: "leave-out", run };
}
