/**
 * A sheet: from below on a phone, a dialog on a desktop. Focus goes in and back to its opener; Escape closes (app.tsx hears it).
 * Modal, unless a microphone is open: then it stands above the dock so that its button is never covered.
 */
import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef } from "preact/hooks";
import { t } from "../words";
import { useControls } from "./context";
import { Icon } from "./icon";

interface SheetProps {
  title: ComponentChildren;
  /** The title is drawn by the content, with this id. */
  ownTitle?: boolean;
  look?: string;
  testid: string;
  badge?: ComponentChildren;
  /** Never modal: the work goes on beside it. */
  aside?: boolean;
  onClose?: () => void;
  children: ComponentChildren | ((titleId: string) => ComponentChildren);
}

const FOCUSABLE = "button:not([tabindex='-1']), input, textarea, select, a[href], [tabindex='0']";

export function Sheet({ title, ownTitle = false, look = "", testid, badge, aside = false, onClose, children }: SheetProps) {
  const { desk, stage } = useControls();
  const node = useRef<HTMLElement>(null);
  const id = useId();
  const close = onClose ?? (() => desk.close());
  const live = stage.mic.value === "on" || stage.mic.value === "silent";
  const modal = !aside && !live;
  useFocus(node);
  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.key === "Tab" && modal && node.current !== null) keepInside(event, node.current);
  };
  return (
    <>
      {modal && <div class="scrim" onClick={close} />}
      <section
        ref={node}
        class={`sheet ${look} ${modal ? "" : "sheet-above"}`}
        role="dialog"
        aria-modal={modal}
        aria-labelledby={id}
        tabIndex={-1}
        onKeyDown={onKeyDown}
        data-testid={testid}
      >
        {!ownTitle && (
          <div class="sheet-head">
            <h2 id={id}>{title}</h2>
            {badge}
            <button type="button" class="icon-btn" aria-label={t("close")} onClick={close} data-testid="close">
              <Icon name="x" />
            </button>
          </div>
        )}
        {typeof children === "function" ? children(id) : children}
      </section>
    </>
  );
}

function useFocus(node: { current: HTMLElement | null }): void {
  useEffect(() => {
    const opener = document.activeElement as HTMLElement | null;
    const first = node.current?.querySelector<HTMLElement>("[data-autofocus]");
    (first ?? node.current)?.focus({ preventScroll: true });
    return () => {
      if (opener?.isConnected) opener.focus({ preventScroll: true });
    };
  }, [node]);
}

function keepInside(event: KeyboardEvent, node: HTMLElement): void {
  const all = [...node.querySelectorAll<HTMLElement>(FOCUSABLE)];
  const first = all[0];
  const last = all[all.length - 1];
  if (first === undefined || last === undefined) return;
  const at = document.activeElement;
  if (event.shiftKey && (at === first || at === node)) last.focus();
  else if (!event.shiftKey && at === last) first.focus();
  else return;
  event.preventDefault();
}
