/** The chip above the dock: who talks out of sight, since a voice without a face is nobody's. A press brings the niche into view. */
import { useEffect, useState } from "preact/hooks";
import { t } from "../words";
import { useControls } from "./context";
import { Icon } from "./icon";
import { Name } from "./shapes";

const NICHE = '[data-testid="speaker"]';
const SEEN_FROM = 0.5; // of the niche; less of it is hard to tell from its neighbours

export function Unseen() {
  const { lights, stage } = useControls();
  const { speakers, me } = stage.state.value;
  const hidden = useHidden(speakers.map((each) => each.user).join(" "));
  const talking = lights.talking.value;
  const [first, ...more] = speakers.filter(({ user }) => talking.has(user) && hidden.has(user) && user !== me?.user);
  if (first === undefined) return null;
  return (
    <button type="button" class="chip chip-talks" onClick={() => bringIntoView(first.user)} data-testid="unseen" data-user={first.user}>
      <Icon name="volume-2" />
      <span>
        <Name>{first.name}</Name> {t("talks")}
        {more.length > 0 && ` ${t("and-more", { count: more.length })}`}
      </span>
    </button>
  );
}

/** User ids of the speakers whose niche is scrolled away or lies behind the dock. `users`: observed anew when they change. */
function useHidden(users: string): ReadonlySet<string> {
  const [hidden, setHidden] = useState<ReadonlySet<string>>(new Set());
  useEffect(() => {
    if (typeof IntersectionObserver === "undefined") return;
    const dock = document.querySelector(".dock")?.getBoundingClientRect();
    const covered = dock === undefined ? 0 : Math.max(0, Math.round(innerHeight - dock.top));
    const now = new Set<string>();
    const watcher = new IntersectionObserver(
      (entries) => {
        for (const { target, intersectionRatio } of entries) {
          const user = (target as HTMLElement).dataset.user ?? "";
          if (intersectionRatio < SEEN_FROM) now.add(user);
          else now.delete(user);
        }
        setHidden(new Set(now));
      },
      { rootMargin: `0px 0px -${covered}px 0px`, threshold: SEEN_FROM },
    );
    for (const node of document.querySelectorAll(NICHE)) watcher.observe(node);
    return () => watcher.disconnect();
  }, [users]);
  return hidden;
}

function bringIntoView(user: string): void {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  for (const node of document.querySelectorAll<HTMLElement>(NICHE)) {
    if (node.dataset.user === user) node.scrollIntoView({ block: "center", behavior: calm ? "auto" : "smooth" });
  }
}
