/** The queue of raised hands, for moderators: the first as a card with two big answers, the others as rows. */
import { useEffect, useState } from "preact/hooks";
import type { Hand } from "../messages";
import { duration, number, t } from "../words";
import { useDeeds } from "./deeds";
import { useControls } from "./context";
import { Icon } from "./icon";
import { Dot, Line, Name } from "./shapes";
import { Sheet } from "./sheet";

export function HandsSheet() {
  const count = useControls().stage.state.value.queue.length;
  return (
    <Sheet
      title={t("hands-title")}
      look="sheet-desk"
      testid="hands-sheet"
      aside
      badge={count > 0 && <span class="badge badge-wait num">{number(count)}</span>}
    >
      <Hands />
    </Sheet>
  );
}

export function Hands() {
  const { queue } = useControls().stage.state.value;
  if (queue.length === 0) {
    return (
      <div class="nothing">
        <Icon name="hand" />
        <p class="strong">{t("hands-none")}</p>
        <p class="small mute-2">{t("hands-none-text")}</p>
      </div>
    );
  }
  const [first, ...rest] = queue;
  return (
    <ul class="list" tabIndex={0} aria-label={t("hands-title")} data-testid="queue">
      {first && <FirstHand hand={first} />}
      {rest.map((each) => (
        <HandRow key={each.user} hand={each} />
      ))}
    </ul>
  );
}

/** Waiting time by the server's clock; looks again every few seconds. */
function useWaited(since: number): string {
  const { skew } = useControls().stage.state.value;
  const [, tick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => tick((n) => n + 1), 15_000);
    return () => clearInterval(timer);
  }, []);
  return duration(Date.now() + skew - since);
}

function FirstHand({ hand }: { hand: Hand }) {
  const deeds = useDeeds();
  const time = useWaited(hand.ts);
  return (
    <li class="hand hand-first" data-testid="queued" data-user={hand.user}>
      <Dot user={hand.user} name={hand.name} />
      <span class="who">
        <Name>{hand.name}</Name>
      </span>
      <span class="small num mute-2" role="img" aria-label={t("waiting-for", { time })}>
        {time}
      </span>
      <span class="said">{hand.note === "" ? t("no-note") : <Name>{hand.note}</Name>}</span>
      <div class="acts">
        <button type="button" class="btn btn-main" onClick={() => deeds.bringUp(hand)} data-testid="bring-up" data-user={hand.user}>
          <Icon name="arrow-up" />
          <span>{t("bring-up")}</span>
        </button>
        <button type="button" class="btn btn-line" onClick={() => deeds.notNow(hand)} data-testid="not-now" data-user={hand.user}>
          {t("later")}
        </button>
      </div>
    </li>
  );
}

function HandRow({ hand }: { hand: Hand }) {
  const deeds = useDeeds();
  return (
    <li class="hand hand-row" data-testid="queued" data-user={hand.user}>
      <Dot user={hand.user} name={hand.name} />
      <span>
        <span class="who">
          <Name>{hand.name}</Name>
        </span>
        <span class="said">{hand.note === "" ? t("no-note") : <Line>{hand.note}</Line>}</span>
      </span>
      <button
        type="button"
        class="icon-btn"
        aria-label={t("not-now-name", { name: hand.name })}
        onClick={() => deeds.notNow(hand)}
        data-testid="not-now"
        data-user={hand.user}
      >
        <Icon name="x" />
      </button>
      <button
        type="button"
        class="icon-btn icon-btn-main"
        aria-label={t("bring-up-name", { name: hand.name })}
        onClick={() => deeds.bringUp(hand)}
        data-testid="bring-up"
        data-user={hand.user}
      >
        <Icon name="arrow-up" />
      </button>
    </li>
  );
}
