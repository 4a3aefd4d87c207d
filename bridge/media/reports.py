"""What one peer and we report to each other by RTCP: how what we send arrives, and how what it sends does."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from bridge.media import rtcp
from bridge.media.rtcp import Reception, ReportBlock

_EVERY_S = 5.0  # RFC 3550 §6.2: the minimum interval, randomised over 0.8 … 1.2 of it
_LOSSY, _CLEAN = 0.02, 0.01
_CLEAN_REPORTS = 6
"""So many reports in a row (half a minute) with less loss than ``_CLEAN`` end ``lossy``: one bad report begins it, as
it covers no more than 80 packets of 60 ms."""


class LossWatch:
    """Whether a link loses so much that copies are worth their bandwidth (decisions 1.7). With hysteresis."""

    __slots__ = ("_clean", "lossy")

    def __init__(self) -> None:
        self.lossy = False
        self._clean = 0

    def note(self, loss: float) -> None:
        """The fraction lost, 0 … 1, of one report."""
        self._clean = self._clean + 1 if loss < _CLEAN else 0
        if loss > _LOSSY:
            self.lossy = True
        elif self._clean >= _CLEAN_REPORTS:
            self.lossy = False


class Reports:
    """Of one peer. ``ssrc``: of what we send it. ``loss`` and ``rtt_s`` are those of its last report about that."""

    __slots__ = ("_cname", "_next_at", "_receptions", "_ssrc", "loss", "rtt_s", "watch")

    def __init__(self, ssrc: int, cname: str, now: float) -> None:
        self.loss = 0.0
        self.rtt_s: float | None = None
        self.watch = LossWatch()
        self._ssrc, self._cname = ssrc, cname
        self._receptions: dict[int, Reception] = {}  # bounded by the caller, who lets no more SSRCs pass
        self._next_at = now + 0.5 + secrets.randbelow(1000) / 1000

    def __contains__(self, ssrc: int) -> bool:
        return ssrc in self._receptions

    def __len__(self) -> int:
        return len(self._receptions)

    def count(self, ssrc: int, sequence: int, timestamp: int, now: float) -> None:
        """One packet of the peer's."""
        reception = self._receptions.get(ssrc)
        if reception is None:
            reception = self._receptions[ssrc] = Reception(ssrc, sequence)
        reception.count(sequence, timestamp, now)

    def take(self, compound: bytes, now: float) -> Sequence[int]:
        """An authenticated compound packet. The SSRCs that say good-bye (RFC 3550 §6.6)."""
        parsed = rtcp.parse(compound)
        if parsed.info is not None and parsed.info.ssrc in self._receptions:
            self._receptions[parsed.info.ssrc].heard_report(parsed.info, now)
        for block in parsed.blocks:
            if block.ssrc == self._ssrc:
                self.loss = block.loss
                self.watch.note(block.loss)
                trip = rtcp.round_trip(block, rtcp.wall())
                self.rtt_s = trip if trip is not None else self.rtt_s
        return parsed.gone

    def is_due(self, now: float) -> bool:
        """Whether to report now; at most once in four seconds."""
        if now < self._next_at:
            return False
        self._next_at = now + _EVERY_S * (0.8 + secrets.randbelow(400) / 1000)
        return True

    def compound(self, source: int, timestamp: int, packets: int, octets: int, now: float) -> bytes:
        """SR and SDES about what we sent, and a block on ``source`` where it was heard. ``timestamp``: RTP time now."""
        blocks: list[ReportBlock] = []
        if source in self._receptions:
            blocks.append(self._receptions[source].report(now))
        return rtcp.sender_report(self._ssrc, self._cname, rtcp.wall(), timestamp, packets, octets, blocks)

    def farewell(self) -> bytes:
        return rtcp.bye(self._ssrc, self._cname)
