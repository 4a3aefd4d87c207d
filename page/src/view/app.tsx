/** The whole page: the stage, and what lies on it; or the farewell. */
import { useEffect } from "preact/hooks";
import { singleKeys } from "../preferences";
import { number, t } from "../words";
import type { Controls } from "./context";
import { ControlsProvider, useControls } from "./context";
import { canModerate, Dock } from "./dock";
import { Farewell } from "./farewell";
import { Hall, HallSkeleton } from "./hall";
import { Hands } from "./hands";
import { Sprite } from "./icon";
import { ConnectionNote, Floating, Spoken } from "./notes";
import { People, watchWidth, wide } from "./people";
import { EndButton } from "./settings";
import { Door, Sheets } from "./sheets";
import { Bar, Title } from "./top";
import { Unseen } from "./unseen";
import { Yard } from "./yard";

export function App({ controls }: { controls: Controls }) {
  useEffect(watchWidth, []);
  useEffect(() => listenToKeys(controls), [controls]);
  const closed = controls.stage.state.value.closed !== null;
  return (
    <ControlsProvider value={controls}>
      <Sprite />
      {closed ? <Farewell /> : <StagePage />}
    </ControlsProvider>
  );
}

function StagePage() {
  const { desk, stage } = useControls();
  const toast = desk.current.value;
  const sheetOpen = desk.sheet.value !== null && !wide.value;
  const { stage: info, sound } = stage.state.value;
  const begun = info !== null;
  const door = sound === "refused" && info?.status === "live";
  return (
    <>
      <div class="app">
        <div class="main">
          <Bar />
          <main class="ground">
            <Title />
            <ConnectionNote />
            {begun ? <Hall /> : <HallSkeleton />}
            {begun && <Yard />}
          </main>
          {begun && <Dock />}
        </div>
        {wide.value && begun && <Panel />}
      </div>
      <section class={`floating ${toast === null ? "" : "floating-toast"} ${sheetOpen ? "floating-up" : ""}`} aria-label={t("messages")}>
        {begun && !sheetOpen && <Unseen />}
        <Floating />
      </section>
      {door ? <Door /> : <Sheets />}
      <Spoken />
    </>
  );
}

/** On a desktop: who is here, and for moderators the hands. */
function Panel() {
  const { desk, stage } = useControls();
  const { me, queue } = stage.state.value;
  const can = me?.can ?? [];
  const moderates = canModerate(can);
  const tab = moderates ? desk.tab.value : "people";
  return (
    <aside class="panel" aria-label={t(tab === "hands" ? "tab-hands" : "tab-people")}>
      {moderates ? (
        <div class="tabs" role="tablist">
          <button type="button" role="tab" id="tab-hands" aria-controls="tab-body" aria-selected={tab === "hands"} onClick={() => (desk.tab.value = "hands")} data-testid="tab-hands">
            <span>{t("tab-hands")}</span>
            {queue.length > 0 && <span class="n num">{number(queue.length)}</span>}
          </button>
          <button type="button" role="tab" id="tab-people" aria-controls="tab-body" aria-selected={tab === "people"} onClick={() => (desk.tab.value = "people")} data-testid="tab-people">
            {t("tab-people")}
          </button>
        </div>
      ) : null}
      <h2 class={moderates ? "vh" : "panel-title"}>{t(tab === "hands" ? "hands-title" : "people-title")}</h2>
      <div id="tab-body" class="panel-body" role={moderates ? "tabpanel" : undefined} aria-labelledby={moderates ? `tab-${tab}` : undefined}>
        {tab === "hands" ? <Hands /> : <People />}
      </div>
      {can.includes("end") && (
        <div class="btns">
          <EndButton />
        </div>
      )}
    </aside>
  );
}

/** Escape closes what is open, wherever the focus is. M and H, unless switched off; never while something is written or a modifier is held. */
function listenToKeys(controls: Controls): () => void {
  const onKey = (event: KeyboardEvent): void => {
    if (event.key === "Escape") return controls.desk.close();
    if (!singleKeys.peek() || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (event.target instanceof Element && event.target.closest("input, textarea, select, [contenteditable]") !== null) return;
    // by place on the keyboard, so that a Persian layout works too
    if (event.code === "KeyM") document.querySelector<HTMLElement>('[data-testid="mic"]')?.click();
    if (event.code === "KeyH" && controls.desk.sheet.peek() === null) document.querySelector<HTMLElement>('[data-testid="hand"]')?.click();
  };
  addEventListener("keydown", onKey);
  return () => removeEventListener("keydown", onKey);
}
