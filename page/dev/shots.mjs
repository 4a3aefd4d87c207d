/**
 * Looks at every state of the page in a real browser: screenshots, axe-core, sizes of targets, overflow.
 *
 *   node dev/shots.mjs [state …]     all states when none is named; exits with 1 where a check finds something
 *   --out DIR                        where the pictures go (default: a temporary directory)
 *   --frames                         as a widget in a client's frame, at its sizes
 *   --keep                           only the chosen pictures, into docs/screens/
 */
import { mkdirSync, mkdtempSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import puppeteer from "puppeteer-core";
import { createServer } from "vite";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const SIZES = { phone: [390, 844], desktop: [1280, 800], small: [320, 640], landscape: [844, 390], full: [1920, 1080] };
/** A client's frame: Element's panel above the timeline is wide and short, the one at its side narrow. */
const FRAMES = { frame360: [360, 300], frame640: [640, 360], frame700: [700, 250], frame900: [900, 600], side: [320, 700] };
const STATES = [
  "listener", "many", "crowd", "crowddesk", "crowdpeople", "crowdhands", "small", "empty", "note", "pending", "raised", "closed", "invited", "connecting", "reconnecting", "blocked", "full", "door",
  "guest", "people", "settings", "on", "off", "asking", "silent", "muted", "denied", "coming", "device", "desk", "moderator", "nohands", "person",
  "undo", "end", "deskmenu", "topic", "ended", "expired", "membership", "removed", "elsewhere", "left",
];
const IN_FRAMES = [
  "listener", "many", "empty", "note", "raised", "invited", "connecting", "reconnecting", "full", "door", "people", "settings", "on", "muted", "silent", "denied",
  "desk", "moderator", "person", "confirm", "undo", "end", "ended", "removed", "identity", "client",
];
const KEEP = [
  ["listener", "phone", "fa", "light"], ["listener", "phone", "en", "dark"], ["listener", "desktop", "en", "light"], ["many", "desktop", "fa", "dark"],
  ["note", "phone", "en", "light"], ["raised", "phone", "fa", "dark"], ["invited", "phone", "fa", "light"], ["reconnecting", "phone", "en", "dark"],
  ["door", "phone", "en", "dark"], ["on", "phone", "fa", "dark"], ["silent", "phone", "en", "light"], ["muted", "phone", "fa", "light"],
  ["desk", "phone", "fa", "light"], ["moderator", "desktop", "fa", "light"], ["moderator", "desktop", "en", "dark"], ["person", "phone", "en", "dark"],
  ["people", "phone", "fa", "light"], ["settings", "phone", "fa", "dark"], ["end", "desktop", "en", "light"], ["ended", "phone", "fa", "dark"],
  ["ended", "desktop", "en", "light"], ["expired", "phone", "en", "light"], ["crowd", "phone", "fa", "light"], ["listener", "landscape", "en", "dark"],
  ["listener", "frame640", "en", "dark"], ["moderator", "frame900", "fa", "light"], ["confirm", "frame640", "fa", "light"],
];
const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
  "--force-color-profile=srgb",
];

const args = process.argv.slice(2);
const framed = args.includes("--frames");
const keep = args.includes("--keep");
const outAt = args.indexOf("--out");
const out = keep ? join(ROOT, "../docs/screens") : outAt >= 0 ? args[outAt + 1] : mkdtempSync(join(tmpdir(), "eyvan-shots-"));
const named = args.filter((each, i) => !each.startsWith("--") && (outAt < 0 || i !== outAt + 1));

/** Each state on the phone in both languages and themes crosswise, on the desktop once, at 320 px and on its side in both languages. */
function* plan() {
  if (keep) return yield* KEEP;
  if (framed) {
    for (const state of named.length > 0 ? named : IN_FRAMES) {
      for (const size of Object.keys(FRAMES)) yield* [[state, size, "fa", "light"], [state, size, "en", "dark"]];
    }
    return;
  }
  for (const state of named.length > 0 ? named : STATES) {
    yield [state, "phone", "fa", "light"];
    yield [state, "phone", "en", "dark"];
    yield [state, "desktop", "fa", "dark"];
    yield [state, "desktop", "en", "light"];
    yield [state, "small", "fa", "light"];
    yield [state, "small", "en", "light"];
    yield [state, "landscape", "fa", "light"];
    yield [state, "landscape", "en", "dark"];
    if (state.startsWith("crowd")) yield* [[state, "full", "fa", "light"], [state, "full", "en", "dark"]];
  }
}

/** In the page: controls under 44 × 44 px, and what sticks out at the sides. */
function measure() {
  const faults = [];
  for (const node of document.querySelectorAll("button, a[href], input, select, textarea")) {
    const { width, height } = node.getBoundingClientRect();
    if (width === 0 || node.closest("p, .vh")?.matches("p")) continue;
    if (width < 43.9 || height < 43.9) faults.push(`small target ${Math.round(width)}×${Math.round(height)}: ${node.outerHTML.slice(0, 90)}`);
  }
  if (document.documentElement.scrollWidth > innerWidth) faults.push(`wider than the window by ${document.documentElement.scrollWidth - innerWidth} px`);
  for (const node of document.querySelectorAll(".dock *, .sheet *, .note *, .toast *, .bar *, .panel *")) {
    if (node.closest(".said, .bar-topic") !== null) continue; // one line, the rest by ellipsis
    const box = node.getBoundingClientRect();
    if (box.width > 1 && (box.left < -1 || box.right > innerWidth + 1)) faults.push(`sticks out: ${node.outerHTML.slice(0, 90)}`);
    const cut = node.scrollWidth > node.clientWidth + 1 && getComputedStyle(node).overflowX === "hidden" && !node.matches(".vh");
    if (cut && node.clientWidth > 0) faults.push(`text is cut: ${node.outerHTML.slice(0, 90)}`);
  }
  return faults;
}

const server = await createServer({ root: ROOT, logLevel: "warn", server: { port: 0, host: "127.0.0.1" } });
await server.listen();
const base = server.resolvedUrls.local[0];
const browser = await puppeteer.launch({ executablePath: "/usr/bin/chromium", args: FLAGS });
const axe = await readFile(join(ROOT, "node_modules/axe-core/axe.min.js"), "utf8");
mkdirSync(out, { recursive: true });
let faults = 0;
try {
  const page = await browser.newPage();
  page.on("pageerror", (error) => (faults++, console.log("page error:", error.message)));
  page.on("console", (line) => line.type() === "error" && (faults++, console.log("console:", line.text(), page.url())));
  for (const [state, size, lang, theme] of plan()) {
    const [width, height] = SIZES[size] ?? FRAMES[size];
    const widget = size in FRAMES ? "&widget" : "";
    await page.setViewport({ width, height, deviceScaleFactor: 1 });
    await page.goto(`${base}?mock=${state}&lang=${lang}&theme=${theme}${widget}`, { waitUntil: "networkidle0" });
    await page.evaluate(() => document.fonts.ready);
    await page.evaluate(() => Promise.all(document.getAnimations().filter((a) => a.effect.getTiming().iterations !== Infinity).map((a) => a.finished)));
    await page.evaluate(() => document.activeElement?.blur()); // a ring that follows no key is not what a person sees
    const name = `${state}-${size}-${lang}-${theme}`;
    await page.screenshot({ path: join(out, `${name}.png`) });
    const found = await page.evaluate(measure);
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"] }));
    for (const each of violations) found.push(`axe ${each.id}: ${each.help}: ${each.nodes.map((n) => n.html.slice(0, 110)).join(" | ")}`);
    for (const each of found) console.log(`${name}: ${each}`);
    faults += found.length;
  }
} finally {
  await browser.close();
  await server.close();
}
console.log(`${faults} faults; pictures in ${out}`);
process.exit(faults === 0 ? 0 : 1);
