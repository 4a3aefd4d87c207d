/** Who is here: stage and audience in one list with search; in a sheet on a phone, in the panel on a desktop. */
import { signal } from "@preact/signals";
import { useState } from "preact/hooks";
import type { Face, Person } from "../messages";
import { number, t } from "../words";
import type { Controls } from "./context";
import { useControls } from "./context";
import { Icon } from "./icon";
import { Dot, Name } from "./shapes";
import { Sheet } from "./sheet";
import { MIC_KEY, ROLE_KEY } from "./speaker";

/** Wide enough for the panel at the inline end. */
export const wide = signal(false);

export function watchWidth(): () => void {
  const query = matchMedia("(min-width: 900px)");
  const read = (): void => void (wide.value = query.matches);
  read();
  query.addEventListener("change", read);
  return () => query.removeEventListener("change", read);
}

export function showPeople({ desk }: Controls): void {
  if (wide.value) desk.tab.value = "people";
  else desk.open({ kind: "people" });
}

export function showHands({ desk }: Controls): void {
  if (wide.value) desk.tab.value = "hands";
  else if (desk.sheet.value?.kind === "hands") desk.close();
  else desk.open({ kind: "hands" });
}

export function PeopleSheet() {
  return (
    <Sheet title={t("people-title")} look="sheet-tall" testid="people-sheet">
      <People />
    </Sheet>
  );
}

/** Under a heading of the second level, which the sheet or the panel gives. */
export function People() {
  const { speakers, audience } = useControls().stage.state.value;
  const [sought, setSought] = useState("");
  const fits = ({ name, user }: { name: string; user: string }): boolean =>
    `${name} ${user}`.toLocaleLowerCase().includes(sought.trim().toLocaleLowerCase());
  const onStage = speakers.filter(fits);
  const listening = audience.faces.filter(fits);
  const notShown = sought.trim() === "" ? Math.max(0, audience.count - audience.faces.length) : 0;
  return (
    <>
      <label class="search">
        <span class="vh">{t("people-search")}</span>
        <Icon name="search" />
        <input
          class="field"
          type="search"
          placeholder={t("people-search")}
          value={sought}
          onInput={(event) => setSought(event.currentTarget.value)}
          data-testid="people-search"
        />
      </label>
      <div class="list people" tabIndex={0} role="group" aria-label={t("people-title")}>
        {onStage.length > 0 && <PeopleGroup title={t("people-on-stage")} count={onStage.length} people={onStage} />}
        {listening.length > 0 && <PeopleGroup title={t("people-listening")} count={audience.count} people={listening} />}
        {notShown > 0 && listening.length > 0 && <p class="small mute-2 people-more">{t("people-not-shown", { count: notShown })}</p>}
        {onStage.length + listening.length === 0 && <p class="nothing">{t(sought.trim() === "" ? "audience-empty" : "people-none")}</p>}
      </div>
    </>
  );
}

function PeopleGroup({ title, count, people }: { title: string; count: number; people: (Person | Face)[] }) {
  return (
    <>
      <h3 class="group">
        {title} <span class="num mute-2">{number(count)}</span>
      </h3>
      <ul class="group-list">
        {people.map((each) => (
          <li key={each.user}>
            <PersonRow person={each} />
          </li>
        ))}
      </ul>
    </>
  );
}

function PersonRow({ person }: { person: Person | Face }) {
  const { desk, stage } = useControls();
  const speaker = "role" in person ? person : null;
  const self = stage.state.value.me?.user === person.user;
  return (
    <button
      type="button"
      class="person-row"
      onClick={() => desk.open({ kind: "person", user: person.user })}
      data-testid="person"
      data-user={person.user}
      data-role={speaker?.role ?? "listener"}
    >
      <Dot user={person.user} name={person.name} />
      <span class="person-name">
        <span class="who">
          <Name>{person.name}</Name>
          {self && <span class="mute-2"> ({t("you")})</span>}
        </span>
        {speaker !== null && <span class="small mute-2">{t(ROLE_KEY[speaker.role])}</span>}
      </span>
      {speaker !== null && (
        <span class={`row-mic row-mic-${speaker.mic}`} role="img" aria-label={t(MIC_KEY[speaker.mic])}>
          <Icon name={speaker.mic === "on" ? "mic" : "mic-off"} />
        </span>
      )}
      {"hand" in person && person.hand && (
        <span class="badge badge-wait" role="img" aria-label={t("hand-is-up")}>
          <Icon name="hand" small />
        </span>
      )}
    </button>
  );
}
