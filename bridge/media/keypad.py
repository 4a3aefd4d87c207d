"""Keys of a telephone as they come in RTP: telephone-event (RFC 4733), named payload, never sound.

A key is several packets with one RTP timestamp: while it is down, then its end three times. A press is told once, at
the first of them that arrives. Pure.
"""

from __future__ import annotations

KEYS = "0123456789*#ABCD"
"""Events 0 to 15 (RFC 4733 §3.2); others are flashes and tones of modems."""
_SEGMENT_S = 0.2  # a key that is down for long goes on under a new timestamp (§2.5.1.3), without a pause
_MOST = 10  # presses a second: more come of nobody's fingers
_AFRESH_S = 2.0  # after so long any timestamp is a new press: the sender may have begun anew
_HALF = 1 << 31


class Keypad:
    """One peer's."""

    __slots__ = ("_at", "_is_down", "_key", "_presses", "_since", "_timestamp")

    def __init__(self) -> None:
        self._key, self._timestamp, self._at, self._is_down = -1, 0, float("-inf"), False
        self._since, self._presses = float("-inf"), 0

    def take(self, timestamp: int, payload: bytes, now: float) -> str | None:
        """The key that this packet says went down, once for each press. ``now``: s."""
        if len(payload) < 4 or payload[0] >= len(KEYS):
            return None
        key, is_down, past = payload[0], not payload[1] & 0x80, now - self._at
        ahead = (timestamp - self._timestamp) % (1 << 32)
        if past < _AFRESH_S and (ahead == 0 or ahead >= _HALF):  # the same press, or a packet that came late
            self._is_down = self._is_down and (is_down or ahead != 0)
            self._at = now if ahead == 0 else self._at
            return None
        goes_on = key == self._key and self._is_down and past < _SEGMENT_S
        self._key, self._timestamp, self._at, self._is_down = key, timestamp, now, is_down
        return None if goes_on or not self._is_human(now) else KEYS[key]

    def _is_human(self, now: float) -> bool:
        if now - self._since >= 1:
            self._since, self._presses = now, 0
        self._presses += 1
        return self._presses <= _MOST
