/** Short buzzes: hand confirmed, invited, muted by a moderator; never for others' doings. Browsers allow them after a first touch. */
export function buzz(pattern: number[]): void {
  if (navigator.userActivation?.hasBeenActive) navigator.vibrate?.(pattern);
}
