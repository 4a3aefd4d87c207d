"""The page as a widget of every room with a live stage, for Element Web and Desktop.

::

    im.vector.modular.widgets  "eyvan"  {id, type, name, url, creatorUserId, waitForIframeLoad}; {} when it is over
    io.element.widgets.layout  ""       {"widgets": {"eyvan": {"container": "top", …}, … those of others}}

Clients ask each viewer for consent once an *event*, so it is written when its content changes and never else; the URL
names the room by a template variable and so stays the same. The layout keeps our place when the stage is over: another
write would throw away how people had arranged the room for themselves.

What should stand is compared with what does, once a second; a write that fails is made again.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from bridge.errors import EyvanError, MatrixRefused
from bridge.ids import RoomId, UserId
from bridge.live.ports import Clock, Matrix
from bridge.live.rooms import Rooms
from bridge.live.stage import LiveStage
from bridge.matrix.looking import Looking
from bridge.text import Lang, say

log = logging.getLogger(__name__)

KIND = "im.vector.modular.widgets"
LAYOUT = "io.element.widgets.layout"
WIDGET = "eyvan"
_AGAIN_MS = 30_000
_MAX_TOP = 3  # widgets above the timeline, as Element has it
_PLACE = {"container": "top", "index": 0, "width": 100, "height": 45}  # per cent


def can_be_shown(public_url: str) -> bool:
    """Clients are https pages, and load no widget by http; but browsers trust their own machine."""
    url = urlsplit(public_url)
    host = url.hostname or ""
    try:
        own = ipaddress.ip_address(host).is_loopback
    except ValueError:
        own = host == "localhost" or host.endswith(".localhost")
    return url.scheme == "https" or own


def widget_content(bot: UserId, public_url: str, name: str) -> dict[str, Any]:
    """What the client fills in stands behind the ``#``, so that it is in nobody's log (MSC2873 for theme and language).

    ``waitForIframeLoad`` false: the client waits until the page says that it is ready."""
    variables = "room=$matrix_room_id&theme=$org.matrix.msc2873.client_theme&lang=$org.matrix.msc2873.client_language"
    return {
        "id": WIDGET,
        "type": "m.custom",
        "name": name,
        "url": f"{public_url.rstrip('/')}/s/widget#{variables}",
        "creatorUserId": bot,
        "waitForIframeLoad": False,
    }


def with_place(layout: Mapping[str, Any]) -> dict[str, Any] | None:
    """The layout with our widget above the timeline; None where it has a place already, or there is none."""
    widgets = layout.get("widgets")
    widgets = dict(widgets) if isinstance(widgets, Mapping) else {}
    containers = [each.get("container") for each in widgets.values() if isinstance(each, Mapping)]
    if WIDGET in widgets or "center" in containers or containers.count("top") >= _MAX_TOP:
        return None
    alone = "top" not in containers
    place = _PLACE if alone else {"container": "top", "index": containers.count("top"), "height": _PLACE["height"]}
    return {**layout, "widgets": {**widgets, WIDGET: dict(place)}}


@dataclass(slots=True)
class _Standing:
    """What one room's widget is, as far as we know."""

    content: Mapping[str, Any]
    stage: str | None = None  # for which it was looked at
    again_ms: int = 0


class StageWidgets:
    """Owns one task, joined by ``close`` (harmless twice). Bound: one entry a room that has or had a stage.

    A bridge that stops leaves its widgets: it is back in a moment. A moderator who takes the widget away during a stage
    keeps it away until the next one."""

    def __init__(
        self, bot: UserId, public_url: str, rooms: Rooms, matrix: Matrix, clock: Clock, lang: Lang, *, pin: bool = True
    ) -> None:
        self._bot, self._rooms, self._matrix, self._clock, self._pin = bot, rooms, matrix, clock, pin
        self._public_url, self._lang = public_url, lang
        self._standing: dict[RoomId, _Standing] = {}
        self._looking = Looking(self.look, "stage widgets")

    def start(self) -> None:
        self._looking.start()

    async def close(self) -> None:
        await self._looking.close()

    async def look(self) -> None:
        """Make every room what it should be, once."""
        stages = {stage.room: stage for stage in self._rooms.all() if stage.state.loaded and stage.state.stage}
        for room in self._standing.keys() - stages.keys():
            del self._standing[room]
        for room, stage in stages.items():
            standing = self._standing.get(room)
            if standing is not None and self._clock.now_ms() < standing.again_ms:
                continue
            try:
                await self._align(room, stage)
            except EyvanError as error:
                self._standing.setdefault(room, _Standing({})).again_ms = self._clock.now_ms() + _AGAIN_MS
                level = logging.WARNING if isinstance(error, MatrixRefused) else logging.INFO
                log.log(level, "room %s: its widget is not as it should be: %s", room, error)

    async def _align(self, room: RoomId, stage: LiveStage) -> None:
        """Where the bot's power level does not let it, nothing is written and nothing said: there are other ways in."""
        power = stage.state.room.power
        if power.level(self._bot) < power.for_state(KIND):
            return
        wanted = stage.stage_id if stage.state.live and stage.state.ours else None
        standing = self._standing.get(room)
        if standing is None:  # what an earlier run left is not known yet
            standing = self._standing[room] = await self._read(room, wanted, self._content(stage))
        if wanted is None:
            standing.stage = None
            if standing.content:
                await self._matrix.write_state(room, KIND, WIDGET, {})
                standing.content = {}
        elif standing.stage != wanted:
            content = self._content(stage)
            if standing.content != content:
                await self._matrix.write_state(room, KIND, WIDGET, content)
                standing.content = content
            standing.stage = wanted
            if self._pin and power.level(self._bot) >= power.for_state(LAYOUT):
                await self._place(room)

    def _content(self, stage: LiveStage) -> dict[str, Any]:
        language = stage.state.stage.language if stage.state.stage else None
        return widget_content(self._bot, self._public_url, say(language or self._lang, "widget-name"))

    async def _read(self, room: RoomId, wanted: str | None, ours: Mapping[str, Any]) -> _Standing:
        event = await self._matrix.read_state(room, KIND, WIDGET) or {}
        content = event.get("content")
        standing = _Standing(content if isinstance(content, Mapping) else {})
        if wanted is not None and event and not standing.content and event.get("sender") != self._bot:
            standing.stage, standing.content = wanted, ours  # taken away by somebody: not for us to bring back
        return standing

    async def _place(self, room: RoomId) -> None:
        event = await self._matrix.read_state(room, LAYOUT, "") or {}
        content = event.get("content")
        layout = with_place(content if isinstance(content, Mapping) else {})
        if layout is not None:
            await self._matrix.write_state(room, LAYOUT, "", layout)


__all__ = ["KIND", "LAYOUT", "WIDGET", "StageWidgets", "can_be_shown", "widget_content", "with_place"]
