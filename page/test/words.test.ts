import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { FluentBundle, FluentResource } from "@fluent/bundle";
import { afterEach, describe, expect, it } from "vitest";
import { chooseLang } from "../src/preferences";
import { duration, faceColour, fromTo, initial, number, ordinal, t } from "../src/words";

const root = join(import.meta.dirname, "..");
const text = (lang: string): string => readFileSync(join(root, `../bridge/text/page.${lang}.ftl`), "utf8");
const keys = (lang: string): string[] => [...text(lang).matchAll(/^([a-z][\w-]*) =/gm)].map((each) => each[1]!);
const sources = (dir: string): string[] =>
  readdirSync(dir, { withFileTypes: true }).flatMap((each) => (each.isDirectory() ? sources(join(dir, each.name)) : [join(dir, each.name)]));
const plain = (words: string): string => words.replace(/[\u2068\u2069]/g, "");

afterEach(() => chooseLang("en"));

describe("the two languages", () => {
  it("have the same keys, each once, in the same order", () => {
    expect(keys("fa")).toEqual(keys("en"));
    expect(new Set(keys("en")).size).toBe(keys("en").length);
  });
  it.each(["en", "fa"])("%s parses whole and uses the same variables", (lang) => {
    const bundle = new FluentBundle(lang);
    expect(bundle.addResource(new FluentResource(text(lang)))).toEqual([]);
    for (const key of keys(lang)) expect(bundle.getMessage(key)?.value, key).toBeTruthy();
  });
  it("know every sentence that the views name", () => {
    const known = new Set(keys("en"));
    const code = sources(join(root, "src")).map((file) => readFileSync(file, "utf8")).join("\n");
    const used = [...code.matchAll(/\bt\(\s*"([\w-]+)"/g)].map((each) => each[1]!);
    expect(used.filter((key) => !known.has(key))).toEqual([]);
    expect(used.length).toBeGreaterThan(80);
  });
  it("have no sentence that nobody says", () => {
    const code = sources(join(root, "src")).map((file) => readFileSync(file, "utf8")).join("\n");
    const built = /^(closed|trouble)-|^(muted|invite-declined)-by$/; // put together from a value of a closed type
    expect(keys("en").filter((key) => !built.test(key) && !code.includes(`"${key}"`))).toEqual([]);
  });
  it("are written as people write: Persian letters, digits by Fluent, no Arabic yeh or kaf", () => {
    expect(text("fa")).not.toMatch(/[يك٠-٩]/);
    expect(text("fa").split("\n").filter((line) => /^[a-z]/.test(line) && /(^|\s)ن?می [آ-ی]/.test(line))).toEqual([]);
  });
});

describe("sentences", () => {
  it("count places in English", () => {
    expect([1, 2, 3, 4, 11, 22, 103].map((n) => plain(t("in-line", { place: ordinal(n) })))).toEqual([
      "1st in line", "2nd in line", "3rd in line", "4th in line", "11th in line", "22nd in line", "103rd in line",
    ]);
  });
  it("count places in Persian", () => {
    chooseLang("fa");
    expect([1, 3, 12].map((n) => plain(t("in-line", { place: ordinal(n) })))).toEqual(["نفر اول صف", "نفر سوم صف", "نفر ۱۲ صف"]);
  });
  it("use the digits of the language", () => {
    expect([number(4120), plain(duration(48 * 60_000)), plain(duration(92 * 60_000))]).toEqual(["4,120", "48 min", "1 h 32 min"]);
    chooseLang("fa");
    expect([plain(duration(48 * 60_000)), plain(duration(92 * 60_000))]).toEqual(["۴۸ دقیقه", "۱ ساعت و ۳۲ دقیقه"]);
  });
  it("use the calendar of the language", () => {
    const start = new Date(2026, 10, 27, 20, 0).getTime();
    expect(plain(fromTo(start, start + 92 * 60_000))).toBe("Friday 27 November 2026, 20:00 to 21:32");
    chooseLang("fa");
    expect(plain(fromTo(start, start + 92 * 60_000))).toBe("جمعه ۶ آذر ۱۴۰۵، ۲۰:۰۰ تا ۲۱:۳۲");
  });
  it("keep a name's direction to itself", () => {
    chooseLang("fa");
    expect(t("invited-title", { name: "Jonas" })).toBe("\u2068Jonas\u2069 شما را به صحنه دعوت کرد");
  });
});

describe("faces", () => {
  it("take the first sign of a name, whatever its script", () => {
    expect([initial("مریم"), initial("jonas"), initial("@bob:a"), initial("🌹 Rose"), initial("")]).toEqual(["م", "J", "B", "🌹", "؟"]);
    expect([initial("🇮🇷 Kian"), initial("(Ann)"), initial("«مهسا»"), initial("…"), initial("e\u0301mile")]).toEqual(["🇮🇷", "A", "م", "…", "E\u0301"]);
  });
  it("have one of eight colours, the same for the same person", () => {
    expect(faceColour("@maryam:bagh")).toBe(faceColour("@maryam:bagh"));
    const colours = new Set(Array.from({ length: 200 }, (_, i) => faceColour(`@user${i}:a`)));
    expect(colours.size).toBe(8);
  });
});
