/** What a person sees and presses, on the mock states of `npm run dev`; one fake for the controls, real views. */
import { render } from "preact";
import { act } from "preact/test-utils";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { mockControls } from "../dev/mock";
import { App } from "../src/view/app";
import type { Controls } from "../src/view/context";
import { listenersPerTile } from "../src/view/yard";
import { person } from "./make";

let controls: Controls;
let root: HTMLElement;
const SHIRIN = "@shirin:bagh.example";

function show(state: string, change: Partial<Controls> = {}, lang = "en"): void {
  controls = { ...mockControls(new URLSearchParams({ mock: state, lang, theme: "light" })), ...change };
  void act(() => render(null, root));
  void act(() => render(<App controls={controls} />, root));
}

function onScreen(desktop: boolean): void {
  vi.stubGlobal("matchMedia", () => ({ matches: desktop, addEventListener: () => undefined, removeEventListener: () => undefined }));
}

const all = (id: string): HTMLElement[] => [...root.querySelectorAll<HTMLElement>(`[data-testid="${id}"]`)];
const one = (id: string): HTMLElement => {
  const found = all(id);
  if (found.length !== 1) throw new Error(`${found.length} elements with data-testid ${id}`);
  return found[0]!;
};
const press = (id: string, at = 0): void => void act(() => all(id)[at]!.click());
const key = (code: string, target: EventTarget = window, more: KeyboardEventInit = {}): void =>
  void act(() => void target.dispatchEvent(new KeyboardEvent("keydown", { code, key: code, bubbles: true, cancelable: true, ...more })));
const type = (id: string, text: string): void =>
  void act(() => {
    const field = one(id) as HTMLInputElement;
    field.value = text;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  });

beforeEach(() => {
  vi.stubGlobal("ResizeObserver", class { observe(): void {} disconnect(): void {} });
  onScreen(false);
  root = document.createElement("div");
  document.body.append(root);
});

afterEach(() => {
  void act(() => render(null, root));
  root.remove();
  vi.unstubAllGlobals();
});

describe("whoever talks out of sight", () => {
  let see: (user: string, ratio: number) => void;
  beforeEach(() => {
    vi.stubGlobal("IntersectionObserver", class {
      nodes: HTMLElement[] = [];
      constructor(told: (entries: object[]) => void) {
        see = (user, intersectionRatio) =>
          void act(() => told(this.nodes.filter((each) => each.dataset.user === user).map((target) => ({ target, intersectionRatio }))));
      }
      observe(node: HTMLElement): void {
        this.nodes.push(node);
      }
      disconnect(): void {}
    });
  });
  it("is named above the dock until the niche is in view again", () => {
    show("listener"); // Maryam and Sara talk
    expect(all("unseen")).toHaveLength(0);
    see("@kian:bagh.example", 0);
    expect(all("unseen")).toHaveLength(0);
    see("@sara:bagh.example", 0.2);
    expect(one("unseen").textContent).toMatch(/Sara.* is talking/);
    see("@maryam:bagh.example", 0);
    expect(one("unseen").textContent).toMatch(/Maryam.* is talking \+.?1/);
    see("@maryam:bagh.example", 1);
    see("@sara:bagh.example", 1);
    expect(all("unseen")).toHaveLength(0);
  });
  it("brings the niche into view at a press", () => {
    const scrolled: string[] = [];
    show("listener");
    for (const each of all("speaker")) each.scrollIntoView = () => void scrolled.push(each.dataset.user ?? "");
    see("@sara:bagh.example", 0);
    press("unseen");
    expect(scrolled).toEqual(["@sara:bagh.example"]);
  });
  it("is not oneself", () => {
    show("on"); // Shirin, whose page it is, talks
    see(SHIRIN, 0);
    expect(all("unseen")).toHaveLength(0);
  });
});

describe("the stage", () => {
  it("shows who is there, in which role, with which microphone, and who talks", () => {
    show("listener");
    const seen = all("speaker").map((each) => [each.dataset.user, each.dataset.role, each.dataset.mic, each.dataset.talking]);
    expect(seen).toContainEqual(["@maryam:bagh.example", "host", "on", "true"]);
    expect(seen).toContainEqual(["@babak:bagh.example", "speaker", "muted", "false"]);
    expect(seen).toHaveLength(6);
  });
  it("says to readers what the picture shows", () => {
    show("listener");
    const text = all("speaker").map((each) => each.textContent);
    expect(text.some((each) => /Maryam.*Host.*talking/.test(each))).toBe(true);
    expect(text.some((each) => /Babak.*Speaker.*muted by a moderator/.test(each))).toBe(true);
    expect(text.some((each) => /Kian.*Not here/.test(each))).toBe(true);
  });
  it("has one tab stop, and arrow keys that move inside", () => {
    show("listener");
    const stops = (): string[] => all("speaker").filter((each) => each.tabIndex === 0).map((each) => each.dataset.user!);
    expect(stops()).toHaveLength(1);
    const first = all("speaker")[0]!;
    void act(() => first.focus());
    key("ArrowRight", first);
    expect(stops()).toEqual([all("speaker")[1]!.dataset.user]);
    expect(document.activeElement).toBe(all("speaker")[1]);
  });
  it("turns arrows with the reading direction", () => {
    show("listener", {}, "fa");
    document.documentElement.dir = "rtl";
    void act(() => all("speaker")[0]!.focus());
    key("ArrowLeft", all("speaker")[0]);
    expect(document.activeElement).toBe(all("speaker")[1]);
    document.documentElement.dir = "ltr";
  });
  it("has room for the first moment and for an empty hall", () => {
    show("connecting");
    expect([all("speaker").length, all("leave").length]).toEqual([0, 0]);
    show("empty");
    expect(root.textContent).toContain("The hall is quiet");
  });
});

describe("the dock's middle", () => {
  it.each([
    ["listener", "hand", "down"], ["pending", "hand", "pending"], ["raised", "hand", "up"], ["closed", "hand", "closed"], ["invited", "hand", "invited"],
    ["guest", "hand", "closed"], ["coming", "mic", "absent"], ["off", "mic", "off"], ["asking", "mic", "asking"], ["on", "mic", "on"],
    ["silent", "mic", "silent"], ["muted", "mic", "muted"],
  ])("%s: %s %s", (state, id, want) => {
    show(state);
    expect([one(id).dataset.state, all(id === "hand" ? "mic" : "hand").length]).toEqual([want, 0]);
  });
  it("raises a hand with a note", () => {
    const raiseHand = vi.fn();
    show("listener", { raiseHand });
    press("hand");
    type("hand-note", "A ghazal");
    press("hand-send");
    expect(raiseHand).toHaveBeenCalledExactlyOnceWith("A ghazal");
    expect(all("hand-sheet")).toEqual([]);
  });
  it("takes back a hand, up or on its way", () => {
    const lowerHand = vi.fn();
    show("raised", { lowerHand });
    press("hand");
    show("pending", { lowerHand });
    press("hand");
    expect(lowerHand).toHaveBeenCalledTimes(2);
  });
  it("answers an invitation", () => {
    const answerInvitation = vi.fn();
    show("invited", { answerInvitation });
    press("invite-accept");
    press("invite-decline");
    expect(answerInvitation.mock.calls).toEqual([[true], [false]]);
  });
  it("does not take a press beside the invitation for an answer", () => {
    const answerInvitation = vi.fn();
    show("invited", { answerInvitation });
    key("Escape", one("invitation"));
    void act(() => root.querySelector<HTMLElement>(".scrim")!.click());
    expect([answerInvitation.mock.calls.length, all("invitation").length]).toEqual([0, 1]);
  });
  it("does not press what is closed", () => {
    const raiseHand = vi.fn();
    show("closed", { raiseHand });
    press("hand");
    expect([all("hand-sheet").length, raiseHand.mock.calls.length]).toEqual([0, 0]);
  });
  it("has keys, but not while somebody writes", () => {
    const toggleMicrophone = vi.fn();
    show("off", { toggleMicrophone });
    key("KeyM");
    key("KeyM", window, { ctrlKey: true });
    expect(toggleMicrophone).toHaveBeenCalledTimes(1);
    show("listener");
    key("KeyH");
    expect(all("hand-sheet")).toHaveLength(1);
    key("KeyM", one("hand-note"));
    expect(toggleMicrophone).toHaveBeenCalledTimes(1);
  });
});

describe("sheets", () => {
  it("close by Escape and give the focus back", () => {
    show("listener");
    one("people").focus();
    press("people");
    expect(one("people-sheet").contains(document.activeElement)).toBe(true);
    key("Escape", one("people-sheet"));
    expect([all("people-sheet").length, document.activeElement]).toEqual([0, one("people")]);
  });
  it("are modal, but never over the button of an open microphone", () => {
    show("listener");
    press("people");
    expect(one("people-sheet").getAttribute("aria-modal")).toBe("true");
    show("on");
    press("people");
    expect([one("people-sheet").getAttribute("aria-modal"), root.querySelector(".scrim")]).toEqual(["false", null]);
  });
  it("find people by name", () => {
    show("listener");
    press("people");
    expect(all("person").length).toBe(14);
    type("people-search", "SAR");
    expect(all("person").map((each) => each.dataset.user)).toEqual(["@sara:bagh.example"]);
    type("people-search", "nobody");
    expect(one("people-sheet").textContent).toContain("Nobody by this name");
  });
  it("let everybody leave somebody out, for this page alone, and take it back", () => {
    show("listener");
    press("speaker");
    const { user } = one("leave-out").dataset;
    expect(all("mute")).toHaveLength(0);
    press("leave-out");
    expect(all("speaker").filter((each) => each.dataset.leftOut === "true").map((each) => each.dataset.user)).toEqual([user]);
    expect(all("speaker")[0]!.textContent).toContain("you do not hear them");
    press("speaker");
    press("hear-again");
    expect(all("speaker").every((each) => each.dataset.leftOut === "false")).toBe(true);
  });
  it("change the language of everything", () => {
    show("listener");
    press("settings");
    void act(() => all("lang").find((each) => each.dataset.value === "fa")!.click());
    expect(one("leave").textContent).toBe("خروج");
    void act(() => all("lang").find((each) => each.dataset.value === "en")!.click());
    expect(one("leave").textContent).toBe("Leave");
  });
});

describe("a moderator", () => {
  const acting = () => vi.fn<Controls["act"]>(() => Promise.resolve(true));

  it("answers hands", () => {
    const acted = acting();
    show("desk", { act: acted });
    expect(all("queued").map((each) => each.dataset.user)[0]).toBe("@niloofar:bagh.example");
    press("bring-up", 1);
    press("not-now", 0);
    expect(acted.mock.calls).toEqual([["bring_up", "@omid:bagh.example"], ["not_now", "@niloofar:bagh.example"]]);
  });
  it("chooses how the stage sounds; it shows once the room has it", () => {
    const acted = acting();
    show("desk", { act: acted });
    press("more");
    const chosen = (): string[] => all("stage-sound-choice").filter((each) => each.getAttribute("aria-checked") === "true").map((each) => each.dataset.value ?? "");
    expect(chosen()).toEqual(["voice"]);
    void act(() => all("stage-sound-choice").find((each) => each.dataset.value === "music")!.click());
    expect(acted.mock.calls).toEqual([["sound", null, "music"]]);
    expect(chosen()).toEqual(["voice"]);
  });
  it("does at once what can be undone, and offers to undo it", async () => {
    const acted = acting();
    show("person", { act: acted });
    press("mute");
    await act(async () => Promise.resolve());
    expect(one("toast").textContent).toContain("Sara");
    press("undo");
    expect(acted.mock.calls).toEqual([["mute", "@sara:bagh.example"], ["unmute", "@sara:bagh.example"]]);
  });
  it("is asked before what cannot be undone", () => {
    const acted = acting();
    show("deskmenu", { act: acted });
    press("end");
    expect(acted).not.toHaveBeenCalled();
    press("end-confirm");
    show("person", { act: acted });
    press("kick");
    press("kick-confirm");
    expect(acted.mock.calls).toEqual([["end"], ["kick", "@sara:bagh.example"]]);
  });
  it("sets the topic", () => {
    const acted = acting();
    show("topic", { act: acted });
    type("topic-field", " Rumi ");
    press("topic-save");
    expect(acted.mock.calls).toEqual([["topic", null, "Rumi"]]);
  });
  it("invites a listener, and brings up one whose hand is raised", () => {
    show("moderator");
    void act(() => controls.desk.open({ kind: "person", user: "@laleh:bagh.example" }));
    expect([all("invite").length, all("bring-up").length]).toEqual([1, 0]);
    void act(() => controls.desk.open({ kind: "person", user: "@omid:bagh.example" }));
    expect([all("invite").length, all("bring-up").length]).toEqual([0, 1]);
  });
  it("has no power over itself, a listener none at all", () => {
    show("moderator");
    void act(() => controls.desk.open({ kind: "person", user: "@arash:bagh.example" }));
    expect(all("mute").length + all("kick").length).toBe(0);
    show("listener");
    void act(() => controls.desk.open({ kind: "person", user: "@sara:bagh.example" }));
    expect(all("mute").length + all("kick").length + all("end").length + all("hands").length).toBe(0);
  });
});

describe("a desktop", () => {
  beforeEach(() => onScreen(true));
  it("has people beside the stage, and the hands for moderators", () => {
    show("listener");
    expect([all("person").length, all("tab-hands").length]).toEqual([14, 0]);
    show("moderator");
    expect([all("queued").length, all("end").length]).toEqual([4, 1]);
    press("people");
    expect([all("queued").length, all("person").length, all("people-sheet").length]).toEqual([0, 14, 0]);
    press("hands");
    expect([all("queued").length, all("hands-sheet").length]).toEqual([4, 0]);
  });
});

describe("notes", () => {
  it.each([
    ["reconnecting", "note-lost"], ["blocked", "note-blocked"], ["full", "note-full"], ["connecting", "note-connecting"], ["silent", "note-silent"],
    ["muted", "note-muted"], ["denied", "note-trouble"], ["off", "note-to_stage"], ["undo", "toast"], ["door", "door"],
  ])("%s: %s", (state, id) => {
    show(state);
    expect(all(id)).toHaveLength(1);
  });
  it("of a mute goes when the moderator allows the microphone again", () => {
    show("muted");
    const { me } = controls.stage.state.peek();
    void act(() => controls.stage.set({ me: { ...me!, muted: false, can_speak: true } }));
    expect(all("note-muted")).toEqual([]);
  });
  it("speak up for a cut and a lost connection, softly for the rest", () => {
    const live = (how: string): string => root.querySelector(`[aria-live="${how}"].vh`)?.textContent ?? "";
    show("muted");
    expect(live("assertive")).toBe("A moderator muted you");
    show("reconnecting");
    expect(live("assertive")).toBe("Connection lost, trying again");
    show("raised");
    expect([live("assertive"), live("polite").replace(/[\u2068\u2069]/g, "")]).toEqual(["", "Your hand is raised. 3rd in line"]);
  });
  it("let sound out from the door's click", () => {
    const listen = vi.fn();
    show("door", { listen });
    press("door");
    expect(listen).toHaveBeenCalledOnce();
  });
});

describe("the farewell", () => {
  it("thanks, with facts", () => {
    show("ended");
    expect(one("ended").textContent?.replace(/[\u2068\u2069]/g, "")).toMatch(/Thank you for coming.*1 h 32 m.*341/);
  });
  it.each(["expired", "revoked", "devices", "membership"])("%s says how to get a new link", (state) => {
    show(state);
    expect([one("closed").dataset.state, one("closed").textContent?.includes("!link")]).toEqual([state, true]);
  });
  it.each(["left", "elsewhere"])("%s offers a way back", (state) => {
    const comeBack = vi.fn();
    show(state, { comeBack });
    press("come-back");
    expect(comeBack).toHaveBeenCalledOnce();
  });
  it("offers none to who was removed", () => {
    show("removed");
    expect(all("come-back").length).toBe(0);
  });
});

describe("the courtyard", () => {
  it("counts listeners and hands", () => {
    show("listener");
    expect([one("audience").dataset.count, one("audience").textContent]).toEqual(["312", expect.stringContaining("+\u2068306\u2069")]);
  });
  it.each([[0, 43, 1], [312, 39, 1], [313, 39, 2], [4120, 43, 12], [100_000, 40, 313]])("%i listeners in %i columns: %i a tile", (count, columns, want) => {
    expect(listenersPerTile(count, columns)).toBe(want);
  });
});

it("shows a newcomer on the stage only once the server names them", () => {
  show("listener");
  controls.stage.set({ speakers: [...controls.stage.state.peek().speakers, person(SHIRIN, { since: 9 })] });
  return act(() => undefined).then(() => expect(all("speaker").map((each) => each.dataset.user)).toContain(SHIRIN));
});
