/** The motif: the hall's arch and the niche that a person sits in. */
import type { ComponentChildren } from "preact";
import { faceColour, initial } from "../words";

/** In a box of 100 × 112. */
export const NICHE =
  "M50 0C62 6.7 76 11.2 86 22.4C95 32.5 100 44.8 100 60.5V100.8Q100 112 90 112H10Q0 112 0 100.8V60.5C0 44.8 5 32.5 14 22.4C24 11.2 38 6.7 50 0Z";
const ARCH = "M0 100C0 62 24 41 68 27C112 14 160 9 200 0C240 9 288 14 332 27C376 41 400 62 400 100";

interface HallFrameProps {
  label?: string;
  lost?: boolean;
  children?: ComponentChildren;
}

/** The hall: a gradient room, two spandrels with star-and-cross tiles, a double band along the arch. */
export function HallFrame({ label, lost = false, children }: HallFrameProps) {
  return (
    <section class={lost ? "hall lost" : "hall"} aria-label={label} data-testid={label === undefined ? undefined : "hall"}>
      <span class="spandrel" />
      <svg class="archline" viewBox="0 0 400 100" preserveAspectRatio="none" aria-hidden="true">
        <path class="a" d={ARCH} />
      </svg>
      <svg class="archline archline-in" viewBox="0 0 400 100" preserveAspectRatio="none" aria-hidden="true">
        <path class="b" d={ARCH} />
      </svg>
      <span class="jamb" />
      {children}
    </section>
  );
}

interface NicheProps {
  user: string;
  name: string;
  children?: ComponentChildren;
}

export function Niche({ user, name, children }: NicheProps) {
  return (
    <span class="niche" aria-hidden="true">
      <span class="aura" />
      <span class="face" style={{ "--face": faceColour(user) }}>
        <span>{initial(name)}</span>
      </span>
      <svg class="ring">
        <use href="#niche" />
      </svg>
      <svg class="echo">
        <use href="#niche" />
      </svg>
      {children}
    </span>
  );
}

/** A face in a list. */
export function Dot({ user, name, hand = false }: { user: string; name: string; hand?: boolean }) {
  return (
    <span class="dot" style={{ "--face": faceColour(user) }} aria-hidden="true">
      {initial(name)}
      {hand && (
        <span class="dot-mark">
          <svg class="ic">
            <use href="#i-hand" />
          </svg>
        </span>
      )}
    </span>
  );
}

/** A name as its owner writes it, in its own direction. */
export function Name({ children }: { children: string }) {
  return <bdi dir="auto">{children}</bdi>;
}

/** A name where there is one line for it: cut at its own end, whichever way the page runs. */
export function Line({ children }: { children: string }) {
  return (
    <bdi dir="auto" class="line">
      {children}
    </bdi>
  );
}
