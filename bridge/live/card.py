"""The bot's texts in the room: the stage card and the message with a personal link. Text → (plain, HTML)."""

from __future__ import annotations

import html as escape
import re

from bridge.live.view import View
from bridge.rules.content import StageContent
from bridge.text import Lang, say

_NAMES = 12


_RTL = re.compile("[\u0590-\u08ff]")
_LRM = "\u200e"


def _around(text: str) -> str:
    """A command in a line from right to left keeps its order between two marks; they stand outside of it, as people
    copy what is inside."""
    return _LRM if _RTL.search(text) else ""


def html_of(text: str) -> str:
    """Plain lines as HTML, with commands (`` `!hand` ``) as code."""
    mark = _around(text)
    parts = escape.escape(text, quote=False).split("`")
    marked = "".join(f"{mark}<code>{part}</code>{mark}" if i % 2 else part for i, part in enumerate(parts))
    return marked.replace("\n", "<br>")


def plain_of(text: str) -> str:
    return text.replace("`", _around(text))


def about(count: int) -> int:
    """A number of listeners to two digits: each edit of the card is an event on every server of the room."""
    scale = 1
    while count // scale >= 100:
        scale *= 10
    return count // scale * scale


def card(lang: Lang, view: View, prefix: str, public_url: str, stage: StageContent) -> tuple[str, str]:
    """Who is on stage, hands, listeners, how to join."""
    names = [person.name for person in view.speakers[:_NAMES]]
    more = len(view.speakers) - len(names)
    topic = view.stage.topic or view.stage.room_name or say(lang, "card-untitled")
    lines = [
        say(lang, "card-live", topic=topic),
        say(lang, "card-speakers", names=", ".join(names) or "–", more=more),
        say(lang, "card-audience", listeners=about(view.audience.count), hands=view.audience.hands),
        "",
        say(lang, "card-join", prefix=prefix),
    ]
    if stage.guests:
        lines.append(say(lang, "card-guest", url=f"{public_url}/s/{stage.stage_id}"))
    text = "\n".join(lines)
    first, rest = text.split("\n", 1)
    return plain_of(text), f"<strong>{html_of(first)}</strong><br>{html_of(rest)}"


def link_message(lang: Lang, topic: str, url: str, prefix: str) -> tuple[str, str]:
    intro = say(lang, "link-intro", topic=topic or say(lang, "card-untitled"))
    after = say(lang, "link-after", prefix=prefix)
    shown = escape.escape(url, quote=True)
    text = f"{intro}\n{url}\n{plain_of(after)}"
    return text, f'{html_of(intro)}<br><a href="{shown}">{shown}</a><br>{html_of(after)}'


def player_message(lang: Lang, topic: str, whep: str, token: str, stream: str, prefix: str) -> tuple[str, str]:
    """Both secrets stand in code, as people copy them."""
    args = {"topic": topic or say(lang, "card-untitled"), "prefix": prefix}
    said = say(lang, "player-intro", whep=f"`{whep}`", token=f"`{token}`", stream=f"`{stream}`", **args)
    text = f"{said}\n{say(lang, 'link-after', **args)}"
    return plain_of(text), html_of(text)
