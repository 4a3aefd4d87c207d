"""Whether one more connection has a place: so many connections, so many bits a second. Pure: no I/O, no clock.

The last twentieth of both (at most a hundred connections) is for those who may speak, so that a host whose page was
reloaded comes back into a full stage.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bridge.errors import Full

_TIGHT = 0.8  # of the bandwidth: from here on a new listener gets a low bitrate, where the stage allows it
_RETRY_MS = 10_000
_KEPT, _MOST_KEPT = 20, 100
_HEADERS = 20 + 8 + 12 + 8 + 16
"""Bytes of a packet beside its sound: IPv4, UDP, RTP, levels, the tag of SRTP."""


@dataclass(frozen=True, slots=True)
class Load:
    """Connections that are alike: ``bitrate`` in bit/s of sound, ``packet_ms`` of it in each packet."""

    count: int
    bitrate: int
    packet_ms: int

    @property
    def mbit(self) -> float:
        """What they take while somebody talks."""
        return self.count * (self.bitrate + 8 * _HEADERS * 1000 / self.packet_ms) / 1e6


class Admission:
    """``max_mbit`` 0: only the number counts. Silent stages count as if somebody talked there: all their listeners are
    sent to at once when somebody does."""

    def __init__(self, max_peers: int, max_mbit: float) -> None:
        self._max_peers, self._max_mbit = max_peers, max_mbit

    def is_tight(self, present: Iterable[Load], measured_mbit: float) -> bool:
        """Whether a new listener should take less than the stage has."""
        mbit = max(sum(each.mbit for each in present), measured_mbit)
        return self._max_mbit > 0 and mbit > _TIGHT * self._max_mbit

    def check(self, present: Iterable[Load], measured_mbit: float, new: Load, *, may_speak: bool) -> None:
        """Whether ``new`` may come to those who are ``present``; ``measured_mbit`` is what is sent now. Raises Full."""
        loads = list(present)
        peers, mbit = sum(each.count for each in loads), sum(each.mbit for each in loads)
        limit, share = self._max_peers, 1.0
        if not may_speak:
            limit -= min(limit // _KEPT, _MOST_KEPT)
            share -= 1 / _KEPT
        if peers + new.count > limit:
            raise Full(f"this relay takes {self._max_peers} connections at once", _RETRY_MS)
        if self._max_mbit and max(mbit, measured_mbit) + new.mbit > share * self._max_mbit:
            raise Full(f"this relay sends {self._max_mbit:g} Mbit/s at most", _RETRY_MS)
