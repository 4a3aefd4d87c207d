/** What lies on top of the stage: one sheet, one toast, one floating note, the panel's tab. Pure signals and two timers. */
import { signal } from "@preact/signals";
import type { NoticeKey } from "./messages";

export type Sheet =
  | { kind: "hand" | "people" | "hands" | "settings" | "topic" | "end" | "guest" | "keys" }
  | { kind: "person" | "kick"; user: string };

export interface Toast {
  text: string;
  tone: "plain" | "bad";
  undo?: { label: string; run(): void };
}

/** An invitation has its own sheet. */
export type ShownNotice = Exclude<NoticeKey, "invited">;
export type FloatingNote = { kind: "notice"; key: ShownNotice; by: string } | { kind: "back"; missedMs: number };

const TOAST_MS = 5_000;
const NOTE_MS = 9_000;
const STAYS = new Set<ShownNotice>(["muted", "cut_not_written", "confirm"]); // until it is closed, or the moderator opens the microphone again

export class Desk {
  readonly sheet = signal<Sheet | null>(null);
  readonly current = signal<Toast | null>(null);
  readonly floating = signal<FloatingNote | null>(null);
  readonly tab = signal<"people" | "hands">("hands");
  private toastTimer: ReturnType<typeof setTimeout> | undefined;
  private noteTimer: ReturnType<typeof setTimeout> | undefined;

  open(sheet: Sheet): void {
    this.sheet.value = sheet;
  }

  close(): void {
    this.sheet.value = null;
  }

  /** One at a time: a new toast takes the place of the one before. */
  toast(toast: Toast): void {
    clearTimeout(this.toastTimer);
    this.current.value = toast;
    this.toastTimer = setTimeout(() => this.dismissToast(), TOAST_MS);
  }

  dismissToast(): void {
    clearTimeout(this.toastTimer);
    this.current.value = null;
  }

  note(note: FloatingNote): void {
    clearTimeout(this.noteTimer);
    this.floating.value = note;
    const stays = note.kind === "notice" && STAYS.has(note.key);
    if (!stays) this.noteTimer = setTimeout(() => this.dismissNote(), NOTE_MS);
  }

  dismissNote(): void {
    clearTimeout(this.noteTimer);
    this.floating.value = null;
  }

  clear(): void {
    this.close();
    this.dismissToast();
    this.dismissNote();
  }
}
