/** What the views may see and do: the part of Page they are written against, so that tests and mocks can stand in for it. */
import type { ReadonlySignal } from "@preact/signals";
import { createContext } from "preact";
import { useContext } from "preact/hooks";
import type { Desk } from "../desk";
import type { Act } from "../messages";
import type { Stage } from "../stage";

export interface Controls {
  readonly stage: Stage;
  readonly desk: Desk;
  readonly lights: {
    readonly talking: ReadonlySignal<ReadonlySet<string>>;
    attach(user: string, node: HTMLElement): () => void;
  };
  readonly microphone: { readonly level: number };
  /** In a Matrix client's frame: the room's name, theme and language are the client's to show and to choose. */
  readonly inClient: boolean;
  listen(): void;
  raiseHand(note: string): void;
  lowerHand(): void;
  answerInvitation(accept: boolean): void;
  toggleMicrophone(): void;
  changeMicrophone(): Promise<void>;
  act(act: Act, user?: string | null, text?: string): Promise<boolean>;
  /** This page alone does not hear that person any more, or does again; nobody else notices. */
  leaveOut(user: string, out: boolean): void;
  leave(): void;
  comeBack(): void;
}

const PageContext = createContext<Controls | null>(null);
export const ControlsProvider = PageContext.Provider;

export function useControls(): Controls {
  const controls = useContext(PageContext);
  if (controls === null) throw new Error("a view outside of ControlsProvider");
  return controls;
}
