/** What a moderator does to a person, with the toast that says so. What can be undone is done at once, with "undo" for some seconds. */
import type { Act } from "../messages";
import { t } from "../words";
import type { Controls } from "./context";
import { useControls } from "./context";

interface Named {
  user: string;
  name: string;
}

interface Undo {
  act: Act;
  label: string;
}

export interface Deeds {
  bringUp(who: Named): void;
  notNow(who: Named): void;
  invite(who: Named): void;
  mute(who: Named): void;
  unmute(who: Named): void;
  toAudience(who: Named): void;
  makeModerator(who: Named): void;
  kick(who: Named): void;
}

export function deedsOf(controls: Pick<Controls, "act" | "desk">): Deeds {
  const run = async (deed: Act, { user, name }: Named, toast: string, undo?: Undo): Promise<void> => {
    if (!(await controls.act(deed, user))) return;
    controls.desk.toast({
      text: t(toast, { name }),
      tone: "plain",
      ...(undo && { undo: { label: undo.label, run: () => void controls.act(undo.act, user) } }),
    });
  };
  return {
    bringUp: (who) => void run("bring_up", who, "toast-brought-up"),
    notNow: (who) => void run("not_now", who, "toast-not-now"),
    invite: (who) => void run("invite", who, "toast-invited"),
    mute: (who) => void run("mute", who, "toast-muted", { act: "unmute", label: t("undo") }),
    unmute: (who) => void run("unmute", who, "toast-unmuted"),
    toAudience: (who) => void run("to_audience", who, "toast-to-audience", { act: "invite", label: t("invite-back") }),
    makeModerator: (who) => void run("make_moderator", who, "toast-moderator"),
    kick: (who) => void run("kick", who, "toast-kicked"),
  };
}

export function useDeeds(): Deeds {
  return deedsOf(useControls());
}
