"""Links and the server's frames, read as a page reads them: web/messages.py the other way round."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, cast

from bridge.errors import BadInput, BadToken, EyvanError, Unavailable
from bridge.web import messages as m


def parse_link(link: str) -> tuple[str, str, str | None]:
    """A link as (base URL without a closing slash, stage id, token or None). Raises BadInput."""
    address, _, fragment = link.partition("#")
    base, mark, stage = address.rpartition("/s/")
    if not mark or not stage or (fragment and not fragment.startswith("l=")):
        raise BadInput("link", link, "use a link as the bot sends it, …/s/STAGE#l=TOKEN")
    return base, stage, fragment[2:] or None


def read_frame(frame: dict[str, Any]) -> m.ToPage:
    """A server's frame as its type from web/messages.py. Raises BadInput for an unknown one."""
    for kind in typing.get_args(m.ToPage):
        if kind.__dataclass_fields__["t"].default == frame.get("t"):
            return cast(m.ToPage, read_as(kind, frame))
    raise BadInput("t", frame.get("t"), "the server sent a frame that messages.py does not know")


def patched(seen: m.Snapshot, patch: m.Patch) -> m.Snapshot:
    """``seen`` with the parts that changed. Raises BadInput where a patch between them was missed."""
    if patch.seq != seen.seq + 1:
        raise BadInput("seq", patch.seq, f"the patch after {seen.seq} was expected")
    parts = {each.name: getattr(patch, each.name) for each in dataclasses.fields(patch) if each.name != "t"}
    return dataclasses.replace(seen, **{name: value for name, value in parts.items() if value is not None})


def read_as(kind: Any, value: Any) -> Any:
    """``value`` (from JSON) as ``kind``: a dataclass, a list, a dict, a union or a plain type."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        inner = [each for each in args if each is not type(None)]
        return None if value is None else read_as(inner[0], value)
    if origin is list:
        return [read_as(args[0], each) for each in value]
    if not dataclasses.is_dataclass(kind):
        return value
    hints = typing.get_type_hints(kind)
    extra = set(value) - set(hints)
    if extra:
        raise BadInput(sorted(extra)[0], value, f"{kind} has no such field")
    return cast(Any, kind)(**{name: read_as(hints[name], each) for name, each in value.items()})


class RequestRefused(EyvanError):
    """The server's ``refused`` to one of our requests: ``errcode`` and a sentence."""

    def __init__(self, errcode: str, text: str) -> None:
        super().__init__(f"{errcode}: {text}")
        self.errcode = errcode


def read_opened(status: int, body: Any) -> m.SessionOpened:
    """The answer to ``POST /api/v1/sessions``. Raises Unavailable (later may do), BadToken, RequestRefused."""
    if status in (429, 502, 503, 504):
        raise Unavailable(f"{status} {body.get('error')}")
    if status == 401:
        raise BadToken(str(body.get("reason")), str(body.get("error")))
    if status != 200:
        raise RequestRefused(str(body.get("errcode")), str(body.get("error")))
    return cast(m.SessionOpened, read_as(m.SessionOpened, body))
