/**
 * Whom this page does not want to hear, kept for its tab: over reloads too, and where the server has forgotten it. A page
 * that may keep nothing (private mode, a frame) still works, without that.
 */

const MOST = 20; // as the server takes them

export class LeftOut {
  private readonly key: string;
  private readonly users: Set<string>;

  constructor(stage: string) {
    this.key = `eyvan.out.${stage}`;
    this.users = new Set(read(this.key));
  }

  set(user: string, out: boolean): void {
    if (out) this.users.add(user);
    else this.users.delete(user);
    try {
      sessionStorage.setItem(this.key, JSON.stringify([...this.users].slice(-MOST)));
    } catch {
      // see above
    }
  }

  /** Those whom the server does not leave out for us (any more). */
  missing(there: readonly string[]): string[] {
    return [...this.users].filter((each) => !there.includes(each));
  }
}

function read(key: string): string[] {
  try {
    const kept: unknown = JSON.parse(sessionStorage.getItem(key) ?? "[]");
    return Array.isArray(kept) ? kept.filter((each): each is string => typeof each === "string").slice(0, MOST) : [];
  } catch {
    return [];
  }
}
