/** When this page is over: the stage ended, the link does not open, the person left or was removed. What now? */
import type { ComponentChildren } from "preact";
import type { Closing } from "../stage";
import { fromTo, number, shortDuration, t } from "../words";
import { Command } from "./command";
import { useControls } from "./context";
import { Icon } from "./icon";
import type { IconName } from "./icon";
import { Note } from "./notes";
import { RoomLink } from "./settings";
import { HallFrame, Line, Niche } from "./shapes";
import { titleOf } from "./top";

const FACES = 4;
/** Those for whom a fresh link is the remedy. */
const NEW_LINK = new Set<Closing>(["expired", "altered", "revoked", "devices", "membership", "unknown", "guests", "client"]);
const ICON: Partial<Record<Closing, IconName>> = { left_room: "lock", membership: "lock", removed: "user-minus", elsewhere: "headphones", left: "log-out", over: "clock", identity: "circle-alert", client: "circle-alert" };
const CLOSED_FOR_GOOD = new Set<Closing>(["removed", "over"]);
const CALM = new Set<Closing>(["left", "elsewhere", "over"]);

export function Farewell() {
  const closed = useControls().stage.state.value.closed;
  if (closed === null) return null;
  return closed.why === "ended" ? <Ended /> : <Closed why={closed.why} text={closed.text} />;
}

function Gate({ children, look = "" }: { children: ComponentChildren; look?: string }) {
  return (
    <div class={`gate ${look}`}>
      <HallFrame>{children}</HallFrame>
      <div class="pool" aria-hidden="true">
        <HallFrame />
      </div>
    </div>
  );
}

function Ended() {
  const { stage: info, spoke, peak, skew } = useControls().stage.state.value;
  const end = info?.ended_ts ?? Date.now() + skew;
  const start = info?.started_ts ?? null;
  return (
    <main class="main two" data-testid="ended">
      <Gate>
        <p>{t("thanks")}</p>
        <h1 dir="auto">{info === null ? t("closed-ended") : titleOf(info).title}</h1>
        {start !== null && <p>{fromTo(start, end)}</p>}
        <div class="row">
          {spoke.slice(0, FACES).map((each) => (
            <span key={each.user} class="sp tiny">
              <Niche user={each.user} name={each.name} />
              <span class="name">
                <Line>{each.name}</Line>
              </span>
            </span>
          ))}
        </div>
      </Gate>
      <div class="stack">
        <p class="badge ended-badge">{t("closed-ended")}</p>
        {start !== null && (
          <dl class="facts">
            <div>
              <dt>{t("lasted")}</dt>
              <dd class="num">{shortDuration(end - start)}</dd>
            </div>
            <div>
              <dt>{t("were-on-stage")}</dt>
              <dd class="num">{number(spoke.length)}</dd>
            </div>
            <div>
              <dt>{t("most-at-once")}</dt>
              <dd class="num">{number(peak)}</dd>
            </div>
          </dl>
        )}
        {info !== null && <RoomLink room={info.room_id} look="btn btn-line btn-big" />}
      </div>
    </main>
  );
}

function Closed({ why, text }: { why: Closing; text: string }) {
  const controls = useControls();
  const info = controls.stage.state.value.stage;
  return (
    <main class="main two" data-testid="closed" data-state={why}>
      <Gate look="gate-closed">
        <h1 dir="auto">{info === null ? t("app-name") : titleOf(info).title}</h1>
        <span class="niche niche-empty" aria-hidden="true">
          <svg class="ring">
            <use href="#niche" />
          </svg>
          <Icon name={ICON[why] ?? "link"} />
        </span>
      </Gate>
      <div class="stack">
        <Note tone={CALM.has(why) ? "plain" : "bad"} icon={ICON[why] ?? "link"} fact={t(`closed-${why}`)} testid="note-closed">
          <p>{t(`closed-${why}-text`)}</p>
          {why === "removed" && text !== "" && (
            <p class="mute-2" dir="auto">
              {text}
            </p>
          )}
          {NEW_LINK.has(why) && <Command text="!link" />}
        </Note>
        {!NEW_LINK.has(why) && !CLOSED_FOR_GOOD.has(why) && (
          <button type="button" class="btn btn-main btn-big" onClick={() => controls.comeBack()} data-testid="come-back">
            <Icon name="headphones" />
            <span>{t(why === "elsewhere" ? "listen-here" : why === "identity" ? "try-again" : "come-in-again")}</span>
          </button>
        )}
        {info !== null && <RoomLink room={info.room_id} look="btn btn-line btn-big" />}
      </div>
    </main>
  );
}
