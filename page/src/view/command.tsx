/** A command to write in the room, with a button that copies it. */
import { useState } from "preact/hooks";
import { t } from "../words";
import { Icon } from "./icon";

export function Command({ text }: { text: string }) {
  return (
    <div class="command">
      <code>
        <bdi dir="ltr">{text}</bdi>
      </code>
      <CopyButton text={() => text} label={t("copy-command")} />
    </div>
  );
}

export function CopyButton({ text, label }: { text: () => string; label: string }) {
  const [copied, setCopied] = useState(false);
  if (navigator.clipboard === undefined) return null; // not a secure page: no clipboard, so no button that does nothing
  const copy = (): void => {
    navigator.clipboard.writeText(text()).then(
      () => setCopied(true),
      () => setCopied(false),
    );
  };
  return (
    <button type="button" class="btn btn-line" onClick={copy} data-testid="copy">
      <Icon name={copied ? "check" : "copy"} />
      <span aria-live="polite">{copied ? t("copied") : label}</span>
    </button>
  );
}
