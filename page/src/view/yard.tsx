/** The courtyard: the listeners as one button that opens their list. Each floor tile is a listener, or n of them. */
import { useEffect, useRef, useState } from "preact/hooks";
import { theme } from "../preferences";
import { number, t } from "../words";
import { useControls } from "./context";
import { Icon } from "./icon";
import { showPeople } from "./people";
import { Dot } from "./shapes";

const FACES = 6;
const CELL = 6; // px, with a gap of 2
const STEP = 8;
const ROWS = 8;

export function Yard() {
  const controls = useControls();
  const { count, hands, faces } = controls.stage.state.value.audience;
  const shown = faces.slice(0, FACES);
  return (
    <button
      type="button"
      class="yard"
      onClick={() => showPeople(controls)}
      data-testid="audience"
      data-count={count}
    >
      <span class="yard-head">
        <span class="strong">{t("audience")}</span>
        <span class="num mute-2">{number(count)}</span>
        <span class="push">
          {hands > 0 && (
            <span class="badge badge-wait">
              <Icon name="hand" small />
              {number(hands)}
              <span class="vh">{t("hands-are-up", { hands })}</span>
            </span>
          )}
          <Icon name="chevron-right" />
        </span>
      </span>
      {count === 0 && <span class="small mute-2">{t("audience-empty")}</span>}
      {shown.length > 0 && (
        <span class="dots" aria-hidden="true">
          {shown.map((each) => (
            <Dot key={each.user} user={each.user} name={each.name} hand={each.hand} />
          ))}
          {count > shown.length && <span class="dot dot-more num">{t("and-more", { count: count - shown.length })}</span>}
        </span>
      )}
      {count > shown.length && <Mosaic count={count} hands={hands} />}
    </button>
  );
}

/** How many listeners one tile stands for, so that all fit into ROWS rows of `columns`. */
export function listenersPerTile(count: number, columns: number): number {
  return Math.max(1, Math.ceil(count / Math.max(1, columns * ROWS)));
}

function Mosaic({ count, hands }: { count: number; hands: number }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [width, setWidth] = useState(0);
  const night = theme.value === "dark";
  useEffect(() => {
    const node = canvas.current;
    if (node === null) return;
    const watcher = new ResizeObserver(() => setWidth(node.clientWidth));
    watcher.observe(node);
    return () => watcher.disconnect();
  }, []);
  const columns = Math.max(1, Math.floor((width + STEP - CELL) / STEP));
  const perTile = listenersPerTile(count, columns);
  const tiles = Math.ceil(count / perTile);
  const rows = Math.ceil(tiles / columns);
  useEffect(() => {
    if (canvas.current !== null && width > 0) draw(canvas.current, { width, columns, rows, tiles, hands: Math.ceil(hands / perTile), night });
  }, [width, columns, rows, tiles, hands, perTile, night]);
  return (
    <span class="mosaic" aria-hidden="true" title={perTile > 1 ? t("audience-tile", { n: perTile }) : undefined}>
      <canvas ref={canvas} style={{ blockSize: `${Math.max(1, rows) * STEP - 2}px` }} />
      {perTile > 1 && <span class="mosaic-key">{t("audience-tile", { n: perTile })}</span>}
    </span>
  );
}

interface Drawing {
  width: number;
  columns: number;
  rows: number;
  tiles: number;
  hands: number;
  night: boolean;
}

function draw(canvas: HTMLCanvasElement, { width, columns, rows, tiles, hands, night }: Drawing): void {
  const context = canvas.getContext("2d");
  if (context === null) return;
  const scale = devicePixelRatio;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round((rows * STEP - 2) * scale);
  context.scale(scale, scale);
  const style = getComputedStyle(canvas);
  const colour = (token: string): string => style.getPropertyValue(token).trim();
  const kinds: [string, number][] = night
    ? [[colour("--tile"), 1], [colour("--accent"), 0.3], [colour("--accent"), 0.62]]
    : [[colour("--tile"), 1], [colour("--accent"), 0.34], [colour("--face-1"), 0.52]];
  const raised = handTiles(tiles, hands);
  const mirrored = style.direction === "rtl";
  for (let tile = 0; tile < tiles; tile++) {
    const [fill, alpha] = raised.has(tile) ? [colour("--saffron"), 1] : (kinds[kindOf(tile)] ?? kinds[0]!);
    context.fillStyle = fill;
    context.globalAlpha = alpha;
    const column = tile % columns;
    const x = mirrored ? width - CELL - column * STEP : column * STEP;
    context.fillRect(x, Math.floor(tile / columns) * STEP, CELL, CELL);
  }
}

/** A floor is laid once: the same tile has the same colour on every page. */
function kindOf(tile: number): number {
  const mixed = scatter(tile) % 100;
  return mixed < 46 ? 0 : mixed < 80 ? 1 : 2;
}

/** A number's own large number, without a visible pattern from one to the next (the finalizer of MurmurHash3). */
function scatter(n: number): number {
  let h = n + 0x9e3779b9;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

function handTiles(tiles: number, hands: number): Set<number> {
  const raised = new Set<number>();
  for (let i = 0; raised.size < Math.min(hands, tiles); i++) raised.add(scatter(i + 7) % tiles);
  return raised;
}
