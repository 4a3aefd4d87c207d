/** The bar and the inscription: what it is, whether it is live, for how long, how many listen. */
import { useEffect, useState } from "preact/hooks";
import type { StageInfo, Status } from "../messages";
import { duration, number, t } from "../words";
import { useControls } from "./context";
import { Icon } from "./icon";
import { Name } from "./shapes";

const STATUS_KEY: Record<Status, string> = {
  live: "status-live",
  scheduled: "status-scheduled",
  none: "status-none",
  ended: "status-ended",
};

/** The room's name is the title, the topic stands below; where they are the same it is said once. */
export function titleOf(stage: StageInfo): { title: string; topic: string } {
  const title = stage.room_name || stage.topic || t("app-name");
  return { title, topic: stage.topic === title ? "" : stage.topic };
}

export function Bar() {
  const { desk, stage, inClient } = useControls();
  const { stage: info, audience, skew } = stage.state.value;
  const topic = inClient && info !== null ? titleOf(info).topic : "";
  return (
    <header class="bar">
      {info === null ? (
        <span class="badge">{t("app-name")}</span>
      ) : (
        <span class={info.status === "live" ? "badge badge-live" : "badge"} data-testid="status" data-state={info.status}>
          {info.status === "live" && <span class="pulse" />}
          {t(STATUS_KEY[info.status])}
        </span>
      )}
      {info?.status === "live" && info.started_ts !== null && <Elapsed since={info.started_ts} skew={skew} />}
      <ConnectionDot />
      {topic !== "" && (
        <span class="bar-topic" aria-hidden="true" title={topic}>
          <Name>{topic}</Name>
        </span>
      )}
      <span class="grow" />
      {info !== null && (
        <span class="badge num" role="img" aria-label={t("listening", { count: audience.count })}>
          <Icon name="headphones" small />
          {number(audience.count)}
        </span>
      )}
      <button
        type="button"
        class="icon-btn"
        aria-label={t("more")}
        onClick={() => desk.open({ kind: "settings" })}
        data-testid="more"
      >
        <Icon name="ellipsis" />
      </button>
    </header>
  );
}

function Elapsed({ since, skew }: { since: number; skew: number }) {
  const [, tick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => tick((n) => n + 1), 15_000);
    return () => clearInterval(timer);
  }, []);
  return <span class="badge num">{duration(Date.now() + skew - since)}</span>;
}

function ConnectionDot() {
  const connection = useControls().stage.connection.value;
  if (connection !== "connecting" && connection !== "lost") return null;
  const label = t(connection === "lost" ? "connection-dot-lost" : "connection-dot-connecting");
  return <span class={`net-dot net-${connection}`} role="img" aria-label={label} />;
}

/** The client shows the room's name beside the frame: only what it does not know is seen; in a low frame, in the bar. */
function FrameTitle({ title, topic }: { title: string; topic: string }) {
  return (
    <>
      <h1 class="vh">{title}</h1>
      {topic !== "" && (
        <div class="title title-framed">
          <p data-testid="topic">
            <Name>{topic}</Name>
          </p>
        </div>
      )}
    </>
  );
}

export function Title() {
  const { stage, inClient } = useControls();
  const info = stage.state.value.stage;
  if (info === null) return <h1 class="vh">{t("app-name")}</h1>;
  const { title, topic } = titleOf(info);
  if (inClient) return <FrameTitle title={title} topic={topic} />;
  return (
    <div class="title">
      <h1>
        <Name>{title}</Name>
      </h1>
      {topic !== "" && (
        <p data-testid="topic">
          <Name>{topic}</Name>
        </p>
      )}
    </div>
  );
}
