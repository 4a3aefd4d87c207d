"""Frames of a page as bytes, each part of a view written down once however many pages see it.

What did not change is the same object (`bridge.live.showing`), so a part is known by identity. ``messages`` stays the
one description of what a frame holds; a test holds these bytes equal to it.
"""

from __future__ import annotations

import dataclasses
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from bridge.live.view import Me, StageInfo, View
from bridge.web import messages as m

REMEMBERED = 256  # parts; the least recently used is forgotten


class Frames:
    """One for all pages. What it remembers it keeps alive, so that an identity is never another object's."""

    def __init__(self, now_ms: Callable[[], int] | None = None) -> None:
        self._now_ms = now_ms
        self._parts: OrderedDict[int, tuple[object, bytes]] = OrderedDict()
        self.written = 0  # parts written down, as opposed to found

    def part(self, part: object) -> bytes:
        """The JSON of a part that many see."""
        known = self._parts.get(id(part))
        if known is not None:
            self._parts.move_to_end(id(part))
            return known[1]
        text = to_json(part)
        self.written += 1
        self._parts[id(part)] = (part, text)
        if len(self._parts) > REMEMBERED:
            self._parts.popitem(last=False)
        return text

    def snapshot(self, seq: int, view: View, me: Me) -> bytes:
        """As `messages.Snapshot`."""
        now = self._now_ms() if self._now_ms else view.now
        stage: StageInfo = dataclasses.replace(view.stage, server_ts=now)
        parts = {
            "stage": to_json(stage),
            "me": to_json(me),
            "speakers": self.part(view.speakers),
            "audience": self.part(view.audience),
            "queue": self.part(view.queue) if sees_queue(me) else b"[]",
        }
        return _frame("snapshot", seq, parts)

    def patch(self, seq: int, old: tuple[View, Me], new: tuple[View, Me]) -> bytes | None:
        """As `messages.Patch`; None where nothing changed."""
        (was, was_me), (view, me) = old, new
        parts: dict[str, bytes] = {}
        if view.stage is not was.stage:
            parts["stage"] = self.part(view.stage)
        if me is not was_me and me != was_me:
            parts["me"] = to_json(me)
        if view.speakers is not was.speakers:
            parts["speakers"] = self.part(view.speakers)
        if view.audience is not was.audience:
            parts["audience"] = self.part(view.audience)
        if sees_queue(me) != sees_queue(was_me) or (sees_queue(me) and view.queue is not was.queue):
            parts["queue"] = self.part(view.queue) if sees_queue(me) else b"[]"
        return _frame("patch", seq, parts) if parts else None

    def levels(self, levels: Mapping[int, int]) -> bytes:
        """As `messages.Levels`; the relay's mapping is one object for all pages."""
        known = self._parts.get(id(levels))
        if known is not None:
            return known[1]
        text = to_json(m.encode(m.Levels({str(csrc): level for csrc, level in levels.items()})))
        self.written += 1
        self._parts[id(levels)] = (levels, text)
        if len(self._parts) > REMEMBERED:
            self._parts.popitem(last=False)
        return text


def sees_queue(me: Me) -> bool:
    """The queue is for moderators; others get an empty one."""
    return "not_now" in me.can


def to_json(value: object) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_object)
    return text.encode("utf-8", "replace")  # half a surrogate pair in a name must not cost a page its view


def _object(value: Any) -> Any:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _frame(kind: str, seq: int, parts: Mapping[str, bytes]) -> bytes:
    body = b"".join(b',"%s":%s' % (name.encode(), text) for name, text in parts.items())
    return b'{"t":"%s","seq":%d%s}' % (kind.encode(), seq, body)
