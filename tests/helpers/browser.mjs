// One real browser, driven by JSON lines: {"id", "op", …} on stdin, {"id", "ok"|"error"} on stdout.
// Started by browser.py, which documents the operations. Ends when stdin closes.
// Nothing here needs unsafe-eval, so that the page's own Content-Security-Policy stays in force.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(new URL("../../page/package.json", import.meta.url));
const puppeteer = require("puppeteer-core");

const CHROMIUM = [
  "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
  "--disable-sync", "--no-first-run", "--no-default-browser-check", "--disable-default-apps", "--disable-domain-reliability",
  "--disable-client-side-phishing-detection", "--disable-dev-shm-usage", "--metrics-recording-only", "--no-pings",
  "--disable-features=OptimizationHints,MediaRouter,Translate,AutofillServerCommunication,CertificateTransparencyComponentUpdater",
  "--disable-background-timer-throttling", "--disable-renderer-backgrounding", "--disable-backgrounding-occluded-windows",
  "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
];
const FIREFOX = {
  "media.navigator.streams.fake": true,
  "media.navigator.permission.disabled": true,
  "media.peerconnection.enabled": true,
  "app.update.enabled": false,
  "app.normandy.enabled": false,
  "browser.safebrowsing.malware.enabled": false,
  "browser.safebrowsing.phishing.enabled": false,
  "captivedetect.canonicalURL": "",
  "datareporting.policy.dataSubmissionEnabled": false,
  "extensions.systemAddon.update.enabled": false,
  "network.captive-portal-service.enabled": false,
  "network.connectivity-service.enabled": false,
  "services.settings.server": "data:,",
  "toolkit.telemetry.enabled": false,
};
const KEPT = 500; // console lines and requests of a page; the oldest is dropped

let browser;
let settings;
const pages = new Map();

function keep(list, item) {
  list.push(item);
  if (list.length > KEPT) list.shift();
}

async function launch(given) {
  settings = given;
  const common = { headless: true, executablePath: given.executable, userDataDir: given.profile, defaultViewport: null };
  if (given.kind === "firefox") {
    const prefs = { ...FIREFOX, "intl.accept_languages": given.languages, "media.autoplay.default": given.autoplay ? 0 : 1,
      "media.autoplay.blocking_policy": 0, "layout.css.prefers-color-scheme.content-override": given.dark ? 0 : 1 };
    if (given.trusted) prefs["dom.securecontext.allowlist"] = new URL(given.trusted).hostname;
    if (given.tone) prefs["media.navigator.audio.fake_frequency"] = given.tone;
    browser = await puppeteer.launch({ ...common, browser: "firefox", extraPrefsFirefox: prefs });
  } else {
    const args = [...CHROMIUM, `--accept-lang=${given.languages}`, `--lang=${given.languages.split(",")[0]}`];
    if (given.autoplay) args.push("--autoplay-policy=no-user-gesture-required");
    if (given.trusted) args.push(`--unsafely-treat-insecure-origin-as-secure=${given.trusted}`);
    if (given.wav) args.push(`--use-file-for-fake-audio-capture=${given.wav}`);
    browser = await puppeteer.launch({ ...common, args });
  }
  return { pid: browser.process().pid, version: await browser.version() };
}

async function open({ url, page: name, before }) {
  const page = await browser.newPage();
  const seen = { page, console: [], requests: [] };
  pages.set(name, seen);
  page.on("console", (message) => keep(seen.console, `${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => keep(seen.console, `pageerror: ${error?.stack ?? error}`));
  page.on("request", (request) => keep(seen.requests, request.url()));
  if (before) await page.evaluateOnNewDocument(before);
  if (settings.kind !== "firefox") {
    const session = await page.createCDPSession(); // puppeteer's requests leave WebSockets out
    session.on("Network.webSocketCreated", ({ url: socket }) => keep(seen.requests, socket));
    await session.send("Network.enable");
  }
  const [width, height] = settings.viewport;
  await page.setViewport({ width, height });
  if (settings.kind !== "firefox") {
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: settings.dark ? "dark" : "light" }]);
  }
  await page.goto(url, { waitUntil: "domcontentloaded", timeout: 60_000 });
}

// Runs in the page. ScriptProcessor because a worklet's module would need a hole in the page's CSP. Its events carry the
// time of each block (Chromium: when it was told, so a little off), so that a block lost on a busy machine is known and
// the recording begins again.
async function record(selector, seconds) {
  const audio = document.querySelector(selector);
  if (!audio?.srcObject?.getAudioTracks().length) throw new Error(`${selector} has no sound to play`);
  if (audio.paused || audio.muted) throw new Error(`${selector} is ${audio.paused ? "paused" : "muted"}`);
  const context = new AudioContext();
  await context.resume();
  const source = context.createMediaStreamSource(audio.srcObject);
  const size = 16384;
  const tap = context.createScriptProcessor(size, 1, 1);
  const blocks = [];
  const done = new Promise((resolve, reject) => {
    const limit = setTimeout(() => reject(new Error(`no ${seconds} s without a gap; AudioContext ${context.state}`)), 60_000 + 4000 * seconds);
    let due = null;
    tap.onaudioprocess = (event) => {
      const late = due !== null && Math.abs(event.playbackTime - due) > size / context.sampleRate / 2;
      if (late) blocks.length = 0;
      due = event.playbackTime + size / context.sampleRate;
      blocks.push(event.inputBuffer.getChannelData(0).slice());
      // The first block may hold the silence from before the source was connected.
      if ((blocks.length - 1) * size >= seconds * context.sampleRate) {
        clearTimeout(limit);
        tap.onaudioprocess = null;
        resolve();
      }
    };
  });
  source.connect(tap);
  tap.connect(context.destination);
  try {
    await done;
  } finally {
    source.disconnect();
    tap.disconnect();
    await context.close();
  }
  const bytes = new DataView(new ArrayBuffer(2 * size * (blocks.length - 1)));
  blocks.slice(1).forEach((block, n) =>
    block.forEach((x, i) => bytes.setInt16(2 * (n * size + i), Math.max(-1, Math.min(1, x)) * 32767, true)));
  let text = "";
  const raw = new Uint8Array(bytes.buffer);
  for (let at = 0; at < raw.length; at += 32768) text += String.fromCharCode(...raw.subarray(at, at + 32768));
  return { rate: context.sampleRate, pcm: btoa(text) };
}

async function wait(page, condition, limit) {
  const until = Date.now() + limit * 1000;
  for (;;) {
    let value;
    let fault = "";
    try {
      value = await page.evaluate(condition);
    } catch (error) {
      fault = ` (${error.message.split("\n")[0]})`; // the page may be on its way to another document
    }
    if (value) return value;
    if (Date.now() > until) {
      const shown = await page.evaluate("document.body?.innerText.slice(0, 600)").catch(() => "");
      throw new Error(`waited ${limit} s for ${condition}${fault}; the page shows: ${shown}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const operations = {
  launch,
  open,
  async click(page, { selector, limit }) {
    await wait(page, `(() => { const it = document.querySelector(${JSON.stringify(selector)});
      return it && !it.disabled && it.getClientRects().length > 0 })()`, limit);
    const element = await page.$(selector);
    await element.click();
  },
  async type(page, { selector, text }) {
    await page.focus(selector);
    await (page.keyboard ?? page.page().keyboard).type(text);
  },
  press: (page, { key }) => (page.keyboard ?? page.page().keyboard).press(key),
  /** A frame of the page, from then on spoken to by its own name. */
  async frame(page, { name, part, limit }) {
    const until = Date.now() + limit * 1000;
    for (;;) {
      const found = page.frames().find((frame) => frame.url().includes(part));
      if (found) return void pages.set(name, { ...pages.get(name), page: found, console: [], requests: [] });
      if (Date.now() > until) throw new Error(`no frame of ${part}; there are ${page.frames().map((frame) => frame.url())}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  },
  text: (page, { selector }) => page.evaluate(`document.querySelector(${JSON.stringify(selector)})?.innerText ?? null`),
  wait: (page, { condition, limit }) => wait(page, condition, limit),
  eval: (page, { js }) => page.evaluate(js),
  screenshot: (page, { path }) => page.screenshot({ path }).then(() => null),
  hear: (page, { selector, seconds }) => page.evaluate(record, selector, seconds),
  offline: (page, { offline }) => page.setOfflineMode(offline),
  reload: (page) => page.reload({ waitUntil: "domcontentloaded" }).then(() => null),
  console: (_page, _given, seen) => seen.console,
  requests: (_page, _given, seen) => seen.requests,
  async closePage(page, { page: name }) {
    pages.delete(name);
    await page.close();
  },
};

async function answer(line) {
  const given = JSON.parse(line);
  let reply;
  try {
    const operation = operations[given.op];
    const seen = pages.get(given.page);
    const own = given.op === "launch" || given.op === "open";
    if (!own && !seen) throw new Error(`no page ${given.page}`);
    reply = { id: given.id, ok: (own ? await operation(given) : await operation(seen.page, given, seen)) ?? null };
  } catch (error) {
    reply = { id: given.id, error: error.message ?? String(error) };
  }
  process.stdout.write(JSON.stringify(reply) + "\n");
}

const lines = createInterface({ input: process.stdin });
lines.on("line", (line) => void answer(line));
lines.on("close", async () => {
  const pid = browser?.process()?.pid;
  await Promise.race([browser?.close().catch(() => {}), new Promise((resolve) => setTimeout(resolve, 5000))]);
  try {
    if (pid) process.kill(pid, "SIGKILL");
  } catch {
    // it is gone already
  }
  process.exit(0);
});
