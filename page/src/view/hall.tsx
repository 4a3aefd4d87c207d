/** The stage: the front row with the host raised in the middle, the others by arrival. One tab stop; arrow keys move inside. */
import { useState } from "preact/hooks";
import type { Person } from "../messages";
import { t } from "../words";
import { useControls } from "./context";
import { HallFrame } from "./shapes";
import { Speaker } from "./speaker";

const FOUR_A_ROW_FROM = 4;

export function Hall() {
  const { stage } = useControls();
  const { middle, sides, others } = stage.scene.value;
  const status = stage.state.value.stage?.status;
  const [active, setActive] = useState<string | null>(null);
  const all = [sides[0], middle, sides[1], ...others].filter((each): each is Person => each != null);
  const tabStop = all.some((each) => each.user === active) ? active : all[0]?.user;
  const speaker = (person: Person, inMiddle = false) => (
    <Speaker
      key={person.user}
      person={person}
      middle={inMiddle}
      tabIndex={person.user === tabStop ? 0 : -1}
      onFocus={() => setActive(person.user)}
    />
  );
  return (
    <HallFrame label={t("stage-label")} lost={stage.connection.value === "lost"}>
      {middle === null ? (
        <p class="hall-empty">{t(status === "none" || status === "scheduled" ? "hall-not-begun" : "hall-quiet")}</p>
      ) : (
        <div class="scene" role="group" aria-label={t("people-on-stage")} onKeyDown={moveByArrows}>
          <div class="row row-front">
            {sides[0] && speaker(sides[0])}
            {speaker(middle, true)}
            {sides[1] ? speaker(sides[1]) : sides[0] && <EmptyNiche key="balance" />}
          </div>
          {others.length > 0 && (
            <div class={others.length >= FOUR_A_ROW_FROM ? "row row-4" : "row"}>{others.map((each) => speaker(each))}</div>
          )}
        </div>
      )}
    </HallFrame>
  );
}

/** Before the first snapshot: the same hall, its niches empty. */
export function HallSkeleton() {
  return (
    <HallFrame>
      <div class="scene skeleton" aria-hidden="true">
        <div class="row row-front">
          <EmptyNiche />
          <EmptyNiche middle />
          <EmptyNiche />
        </div>
      </div>
    </HallFrame>
  );
}

function EmptyNiche({ middle = false }: { middle?: boolean }) {
  return (
    <span class={middle ? "sp sp-empty sp-middle" : "sp sp-empty"} aria-hidden="true">
      <span class="niche">
        <svg class="ring">
          <use href="#niche" />
        </svg>
      </span>
    </span>
  );
}

function moveByArrows(event: KeyboardEvent): void {
  const forward = { ArrowDown: 1, ArrowUp: -1, ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (forward === undefined) return;
  const buttons = [...(event.currentTarget as HTMLElement).querySelectorAll<HTMLElement>("button.sp")];
  const at = buttons.indexOf(document.activeElement as HTMLElement);
  const turned = document.documentElement.dir === "rtl" && event.key.length > "ArrowDown".length - 1 && /Left|Right/.test(event.key);
  buttons[(at + (turned ? -forward : forward) + buttons.length) % buttons.length]?.focus();
  event.preventDefault();
}
