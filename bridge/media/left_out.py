"""Whom the peers of each stage leave out ("not this one for me"), who takes a low bitrate, and what their mixers must
make for that. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from bridge.errors import BadInput, Full
from bridge.media.control import LOW, MAX_LEFT_OUT_MIXES

MOST = 20
"""Owners that one peer leaves out at most."""


@dataclass(slots=True)
class _Stage:
    peers: dict[str, str] = field(default_factory=dict)  # peer → owner
    left_out: dict[str, frozenset[str]] = field(default_factory=dict)  # peer → owners; those who leave somebody out
    low: set[str] = field(default_factory=set)  # peers
    may_speak: set[str] = field(default_factory=set)  # owners who may speak, or might: their sound can still be fading


class LeftOut:
    """Owned by ``Workers``, which says who joins, who may speak and who is gone."""

    def __init__(self) -> None:
        self._stages: dict[str, _Stage] = {}
        self._stage_of: dict[str, str] = {}  # peer → stage

    def joined(self, stage: str, peer: str, owner: str) -> None:
        """Harmless for a peer that is there already. One that was at another stage is ``gone`` from there first."""
        self._stage_of[peer] = stage
        self._stages.setdefault(stage, _Stage()).peers[peer] = owner

    def may_speak(self, peer: str) -> bool:
        """Whether the ears have changed by that."""
        name = self._stage_of[peer]
        stage, before = self._stages[name], self.ears(name)
        stage.may_speak.add(stage.peers[peer])
        return self.ears(name) != before

    def save(self, peer: str) -> None:
        """It takes a low bitrate from now on, for as long as it is connected."""
        stage = self._stages[self._stage_of[peer]]
        stage.low.add(peer)
        stage.left_out[peer] = stage.left_out.get(peer, frozenset()) | {LOW}

    def saving(self, stage: str) -> int:
        """How many peers of the stage take a low bitrate."""
        return len(self._stages[stage].low) if stage in self._stages else 0

    def of(self, peer: str) -> frozenset[str]:
        """What is left out of what this peer hears."""
        return self._stages[self._stage_of[peer]].left_out.get(peer, frozenset())

    def leave_out(self, peer: str, owners: Collection[str]) -> None:
        """In place of those before. Raises BadInput (too many), Full (no mix left); then nothing has changed."""
        if len(owners) > MOST:
            raise BadInput("owners", len(owners), f"a peer leaves out {MOST} owners at most")
        stage = self._stages[self._stage_of[peer]]
        wanted = frozenset(owners) | ({LOW} if peer in stage.low else frozenset())
        mixes = {each for other, each in stage.left_out.items() if other != peer and len(each) > 1}
        if len(wanted) > 1 and wanted not in mixes and len(mixes) >= MAX_LEFT_OUT_MIXES:
            text = f"{MAX_LEFT_OUT_MIXES} different sets of people are left out at this stage already"
            raise Full(text + "; leave out one person, or the same as others do", retry_after_ms=10_000)
        if wanted:
            stage.left_out[peer] = wanted
        else:
            stage.left_out.pop(peer, None)

    def gone(self, peer: str) -> str | None:
        """Its stage where the ears may have changed by that. Harmless twice."""
        name = self._stage_of.pop(peer, None)
        if name is None:
            return None
        stage = self._stages[name]
        owner = stage.peers.pop(peer)
        stage.low.discard(peer)
        changed = stage.left_out.pop(peer, None) is not None
        if not stage.peers:
            del self._stages[name]
        elif owner not in stage.peers.values():
            stage.may_speak.discard(owner)
        return name if changed else None

    def ears(self, stage: str) -> frozenset[frozenset[str]]:
        """As `Mixer.ears`. Who may not speak need not be kept from hearing oneself, so that a thousand listeners who
        leave out the same are one ear."""
        found = self._stages.get(stage)
        if found is None:
            return frozenset()
        return frozenset(
            left_out | ({found.peers[peer]} & found.may_speak) for peer, left_out in found.left_out.items()
        )
