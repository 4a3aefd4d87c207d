/** Every sentence of the page, from bridge/text/page.*.ftl by Fluent. Reading one inside a view subscribes it to the language. */
import { FluentBundle, FluentNumber, FluentResource } from "@fluent/bundle";
import type { FluentVariable } from "@fluent/bundle";
import en from "../../bridge/text/page.en.ftl?raw";
import fa from "../../bridge/text/page.fa.ftl?raw";
import { lang } from "./preferences";
import type { Lang } from "./preferences";

export type Args = Record<string, FluentVariable>;

function bundle(locale: Lang, source: string): FluentBundle {
  const made = new FluentBundle(locale);
  const faults = made.addResource(new FluentResource(source));
  for (const each of faults) console.error(each);
  return made;
}

const bundles: Record<Lang, FluentBundle> = { en: bundle("en", en), fa: bundle("fa", fa) };

/** The sentence in the page's language. A key that does not exist shows itself, and fails the tests. */
export function t(key: string, args?: Args): string {
  const made = bundles[lang.value];
  const message = made.getMessage(key);
  if (message?.value == null) return key;
  return made.formatPattern(message.value, args);
}

/** For "3rd in line": selects by ordinal plural rules. */
export function ordinal(n: number): FluentNumber {
  return new FluentNumber(n, { type: "ordinal" } as Intl.NumberFormatOptions);
}

export function number(n: number): string {
  return new Intl.NumberFormat(lang.value).format(n);
}

/** "48 min", "1 h 32 min". */
export function duration(ms: number): string {
  const minutes = Math.max(0, Math.floor(ms / 60_000));
  if (minutes === 0) return t("duration-moment");
  if (minutes < 60) return t("duration-minutes", { minutes });
  return t("duration-hours", { hours: Math.floor(minutes / 60), minutes: minutes % 60 });
}

/** For a narrow place: "1 h 32 m". */
export function shortDuration(ms: number): string {
  const minutes = Math.max(0, Math.floor(ms / 60_000));
  if (minutes < 60) return duration(ms);
  return t("duration-short", { hours: Math.floor(minutes / 60), minutes: minutes % 60 });
}

/** The day and both times, in the calendar of the language (Jalali in Persian). */
export function fromTo(start: number, end: number): string {
  const locale = lang.value === "fa" ? "fa-IR" : "en-GB";
  const parts = new Intl.DateTimeFormat(locale, { weekday: "long", day: "numeric", month: "long", year: "numeric" }).formatToParts(start);
  const part = (type: string): string => parts.find((each) => each.type === type)?.value ?? "";
  // browsers disagree on the order of a Jalali date with its weekday; people do not
  const day = ["weekday", "day", "month", "year"].map(part).join(" ");
  const time = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit" });
  return t("from-to", { day, start: time.format(start), end: time.format(end) });
}

/** The first sign of a name as its owner writes it, for a face without a picture: whole, be it a flag or a letter with marks. */
export function initial(name: string): string {
  const from = name.replace(/^[\p{P}+\s]+/u, "") || name;
  const sign = typeof Intl.Segmenter === "function" ? new Intl.Segmenter().segment(from).containing(0)?.segment : [...from][0];
  return sign?.toLocaleUpperCase() ?? "؟";
}

/** One of eight face colours by a hash of the user id (FNV-1a), the same on every device. */
export function faceColour(user: string): string {
  let hash = 0x811c9dc5;
  for (let i = 0; i < user.length; i++) hash = Math.imul(hash ^ user.charCodeAt(i), 0x01000193);
  return `var(--face-${((hash >>> 0) % 8) + 1})`;
}
