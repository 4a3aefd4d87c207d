/** What a person chose on this device: language, theme, volume, microphone, sounds, single keys. The first paint's copy of these rules is public/theme.js. */
import { effect, signal } from "@preact/signals";

export type Lang = "fa" | "en";
export type Theme = "light" | "dark";
const THEME_COLOUR: Record<Theme, string> = { light: "#F1EBE0", dark: "#0E1420" };

function kept(key: string): string | null {
  try {
    return localStorage.getItem(`eyvan.${key}`);
  } catch {
    return null;
  }
}

function keep(key: string, value: string): void {
  try {
    localStorage.setItem(`eyvan.${key}`, value);
  } catch {
    // a browser without storage: the choice holds for this page's life
  }
}

const root = document.documentElement;
const volumeKept = Number(kept("volume") ?? "1");

export const lang = signal<Lang>(root.lang === "fa" ? "fa" : "en");
export const theme = signal<Theme>(root.dataset.theme === "dark" ? "dark" : "light");
export const volume = signal(volumeKept >= 0 && volumeKept <= 1 ? volumeKept : 1);
export const microphone = signal(kept("microphone") ?? "");
export const sounds = signal(kept("sounds") !== "off");
export const singleKeys = signal(kept("keys") !== "off");

export function chooseLang(value: Lang): void {
  lang.value = value;
  keep("lang", value);
}

export function chooseTheme(value: Theme): void {
  theme.value = value;
  keep("theme", value);
}

/** What a client says of its own look and language (MSC2873); what it does not know is left as it is. Not kept. */
export function follow({ theme: name = "", lang: code = "" }: { theme?: string; lang?: string }): void {
  if (/dark|black/i.test(name)) theme.value = "dark";
  else if (/light/i.test(name)) theme.value = "light";
  if (code !== "") lang.value = /^fa\b/i.test(code) ? "fa" : "en";
}

export function chooseVolume(value: number): void {
  volume.value = value;
  keep("volume", String(value));
}

export function chooseMicrophone(id: string): void {
  microphone.value = id;
  keep("microphone", id);
}

export function chooseSounds(on: boolean): void {
  sounds.value = on;
  keep("sounds", on ? "on" : "off");
}

export function chooseSingleKeys(on: boolean): void {
  singleKeys.value = on;
  keep("keys", on ? "on" : "off");
}

/** Writes language, direction and theme to `<html>`; returns what stops it. */
export function applyToDocument(): () => void {
  return effect(() => {
    root.lang = lang.value;
    root.dir = lang.value === "fa" ? "rtl" : "ltr";
    root.dataset.theme = theme.value;
    document.querySelector('meta[name="theme-color"]')?.setAttribute("content", THEME_COLOUR[theme.value]);
  });
}
