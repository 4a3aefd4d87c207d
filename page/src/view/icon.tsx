/** The icons in use, from lucide-static (ISC), in one inline sprite. */
import arrowDownToLine from "lucide-static/icons/arrow-down-to-line.svg?raw";
import arrowUp from "lucide-static/icons/arrow-up.svg?raw";
import check from "lucide-static/icons/check.svg?raw";
import chevronRight from "lucide-static/icons/chevron-right.svg?raw";
import circleAlert from "lucide-static/icons/circle-alert.svg?raw";
import clock from "lucide-static/icons/clock.svg?raw";
import copy from "lucide-static/icons/copy.svg?raw";
import ear from "lucide-static/icons/ear.svg?raw";
import ellipsis from "lucide-static/icons/ellipsis.svg?raw";
import hand from "lucide-static/icons/hand.svg?raw";
import headphones from "lucide-static/icons/headphones.svg?raw";
import hourglass from "lucide-static/icons/hourglass.svg?raw";
import link from "lucide-static/icons/link.svg?raw";
import loaderCircle from "lucide-static/icons/loader-circle.svg?raw";
import lock from "lucide-static/icons/lock.svg?raw";
import logOut from "lucide-static/icons/log-out.svg?raw";
import messageCircle from "lucide-static/icons/message-circle.svg?raw";
import mic from "lucide-static/icons/mic.svg?raw";
import micOff from "lucide-static/icons/mic-off.svg?raw";
import micVocal from "lucide-static/icons/mic-vocal.svg?raw";
import moon from "lucide-static/icons/moon.svg?raw";
import pencil from "lucide-static/icons/pencil.svg?raw";
import refreshCw from "lucide-static/icons/refresh-cw.svg?raw";
import search from "lucide-static/icons/search.svg?raw";
import settings from "lucide-static/icons/settings.svg?raw";
import settings2 from "lucide-static/icons/settings-2.svg?raw";
import shield from "lucide-static/icons/shield.svg?raw";
import slidersHorizontal from "lucide-static/icons/sliders-horizontal.svg?raw";
import sun from "lucide-static/icons/sun.svg?raw";
import userMinus from "lucide-static/icons/user-minus.svg?raw";
import users from "lucide-static/icons/users.svg?raw";
import volumeX from "lucide-static/icons/volume-x.svg?raw";
import volume2 from "lucide-static/icons/volume-2.svg?raw";
import wifiOff from "lucide-static/icons/wifi-off.svg?raw";
import x from "lucide-static/icons/x.svg?raw";
import { NICHE } from "./shapes";

const SOURCES = {
  "arrow-down-to-line": arrowDownToLine,
  "arrow-up": arrowUp,
  check,
  "chevron-right": chevronRight,
  "circle-alert": circleAlert,
  clock,
  copy,
  ear,
  ellipsis,
  hand,
  headphones,
  hourglass,
  link,
  "loader-circle": loaderCircle,
  lock,
  "log-out": logOut,
  "message-circle": messageCircle,
  mic,
  "mic-off": micOff,
  "mic-vocal": micVocal,
  moon,
  pencil,
  "refresh-cw": refreshCw,
  search,
  settings,
  "settings-2": settings2,
  shield,
  "sliders-horizontal": slidersHorizontal,
  sun,
  "user-minus": userMinus,
  users,
  "volume-2": volume2,
  "volume-x": volumeX,
  "wifi-off": wifiOff,
  x,
};

export type IconName = keyof typeof SOURCES;

/** Those that point along the reading direction turn with it. */
const DIRECTIONAL = new Set<IconName>(["chevron-right", "log-out"]);

const SPRITE = Object.entries(SOURCES)
  .map(([name, svg]) => {
    const inner = svg.slice(svg.indexOf(">", svg.indexOf("<svg")) + 1, svg.lastIndexOf("</svg>"));
    return `<symbol id="i-${name}" viewBox="0 0 24 24">${inner}</symbol>`;
  })
  .join("");

const CLIPS = `
<symbol id="niche" viewBox="0 0 100 112" overflow="visible"><path d="${NICHE}" vector-effect="non-scaling-stroke"/></symbol>
<clipPath id="clip-niche" clipPathUnits="objectBoundingBox"><path d="M.5 0C.62 .06 .76 .1 .86 .2C.95 .29 1 .4 1 .54V.9Q1 1 .9 1H.1Q0 1 0 .9V.54C0 .4 .05 .29 .14 .2C.24 .1 .38 .06 .5 0Z"/></clipPath>
<clipPath id="clip-spandrel" clipPathUnits="objectBoundingBox"><path d="M0 0H.5C.4 .09 .28 .14 .17 .27C.06 .41 0 .62 0 1ZM1 0H.5C.6 .09 .72 .14 .83 .27C.94 .41 1 .62 1 1Z"/></clipPath>`;

/** Stands once in the document; icons and clip paths refer to it by id. */
export function Sprite() {
  return <svg class="defs" aria-hidden="true" dangerouslySetInnerHTML={{ __html: SPRITE + CLIPS }} />;
}

export function Icon({ name, small = false, spin = false }: { name: IconName; small?: boolean; spin?: boolean }) {
  const classes = ["ic", small && "ic-s", spin && "spin", DIRECTIONAL.has(name) && "ic-dir"].filter(Boolean).join(" ");
  return (
    <svg class={classes} aria-hidden="true">
      <use href={`#i-${name}`} />
    </svg>
  );
}
