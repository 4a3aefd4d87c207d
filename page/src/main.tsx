/** Composition: link or client, page, views. */
import { effect } from "@preact/signals";
import { render } from "preact";
import { isWidget, linkSignIn, placeOf, takeToken } from "./link";
import { Page } from "./page";
import { applyToDocument } from "./preferences";
import "./style/tokens.css";
import "./style/base.css";
import "./style/stage.css";
import "./style/parts.css";
import "./style/sheets.css";
import "./style/wide.css";
import { App } from "./view/app";
import type { Controls } from "./view/context";
import { titleOf } from "./view/top";
import { t } from "./words";

function soundElement(): HTMLAudioElement {
  const element = document.createElement("audio");
  element.dataset.testid = "sound";
  element.autoplay = true;
  document.body.append(element);
  return element;
}

/** Browsers that forbid storage throw at the name itself; this page then keeps all for its own life. */
function storage(): Pick<Storage, "getItem" | "setItem"> {
  try {
    return localStorage;
  } catch {
    const kept = new Map<string, string>();
    return { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => void kept.set(key, value) };
  }
}

/** By the personal link in the address, or as a guest. */
function openLink(address: URL): Page {
  const place = placeOf(address);
  addEventListener("hashchange", () => {
    if (location.hash !== "") location.reload(); // another personal link was opened in this tab
  });
  return new Page(place, linkSignIn(place, takeToken(location, history), storage()), soundElement());
}

/** In a client's frame; what speaks to clients is loaded there alone. */
async function openWidget(address: URL): Promise<Page> {
  const { connectClient, frameOf, WidgetSignIn } = await import("./widget");
  const place = placeOf(address);
  const frame = parent === window ? null : frameOf(address);
  const client = frame === null ? null : connectClient(frame);
  return new Page(place, new WidgetSignIn(place, frame?.room ?? "", client, fetch.bind(globalThis)), soundElement(), true);
}

async function open(): Promise<Controls> {
  const address = new URL(location.href);
  const page = isWidget(address) ? await openWidget(address) : openLink(address);
  page.start();
  addEventListener("pagehide", (event) => {
    if (!event.persisted) page.stop();
  });
  return page;
}

async function main(): Promise<void> {
  applyToDocument();
  const root = document.getElementById("page");
  if (root === null) return;
  const mocked = import.meta.env.DEV && new URLSearchParams(location.search).has("mock");
  const controls = mocked ? (await import("../dev/mock")).mockControls(new URLSearchParams(location.search)) : await open();
  effect(() => {
    document.documentElement.dataset.connection = controls.stage.connection.value;
    const info = controls.stage.state.value.stage;
    document.title = info === null ? t("app-name") : `${titleOf(info).title} · ${t("app-name")}`;
  });
  render(<App controls={controls} />, root);
}

void main();
