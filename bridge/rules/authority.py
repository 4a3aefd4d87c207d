"""Who may do what: power levels, creators, bans, server ACLs, and the operator's permissions.

Two things are kept apart. *Authority* is what a person may do to others: it comes from the room's power level, or
from ``role: moderator`` (a co-host, who may act on listeners and speakers only). *Place* is where a person is: on
the stage or in the audience; an explicit role decides it, an administrator who just listens is in the audience.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from typing import Any

from bridge.ids import ServerName, UserId, server_of
from bridge.rules.content import ROLE

CREATOR = 2**60
"""The level of a creator from room version 12 on: above every number that fits canonical JSON (MSC4289)."""

_CREATORS_RULE_FROM = 12
_SENDER_CREATES_FROM = 11


class Permission(IntEnum):
    """What the operator lets somebody do at most, whatever the room says."""

    none = 0
    listen = 10
    speak = 20
    host = 30
    admin = 40


@dataclass(frozen=True, slots=True)
class Policy:
    """The operator's rules. ``permissions``: user id, server name or ``*`` → level; the most exact one counts."""

    permissions: Mapping[str, Permission] = field(default_factory=lambda: {"*": Permission.host})
    speaker_limit: int = 20
    guests: bool = False
    hands: str = "everyone"
    empty_grace_ms: int = 300_000

    def permission(self, user: UserId) -> Permission:
        for name in (user, server_of(user), "*"):
            if name in self.permissions:
                return self.permissions[name]
        return Permission.none


@dataclass(frozen=True, slots=True)
class PowerLevels:
    """``m.room.power_levels`` with the specification's defaults (client-server API v1.15)."""

    users: Mapping[str, int] = field(default_factory=dict)
    users_default: int = 0
    events: Mapping[str, int] = field(default_factory=dict)
    state_default: int = 0
    kick: int = 50
    redact: int = 50
    creators: frozenset[str] = frozenset()

    def level(self, user: str) -> int:
        return CREATOR if user in self.creators else self.users.get(user, self.users_default)

    def for_state(self, kind: str) -> int:
        return self.events.get(kind, self.state_default)

    @property
    def roles_are_guarded(self) -> bool:
        """False where anybody could hand out roles: then roles in state mean nothing."""
        return self.for_state(ROLE) > self.users_default


def power_levels(content: Mapping[str, Any] | None, create: Mapping[str, Any], creator: str) -> PowerLevels:
    """Total: a value of a wrong type counts as absent. ``create``: content of ``m.room.create``, sent by ``creator``.

    Without a power level event the creator has 100 and state needs 0 (room version 11, "Authorization rules")."""
    number = _number(create.get("room_version", "1"))
    creators: frozenset[str] = frozenset()
    if number is not None and number >= _CREATORS_RULE_FROM:
        more = create.get("additional_creators")
        creators = frozenset((creator, *_patterns(more)))
    elif number is not None and number < _SENDER_CREATES_FROM and isinstance(create.get("creator"), str):
        creator = create["creator"]  # up to room version 10 the content names the creator
    if content is None:
        return PowerLevels(users={} if creators else {creator: 100}, creators=creators)
    return PowerLevels(
        users=_levels(content.get("users")),
        users_default=_level(content, "users_default", 0),
        events=_levels(content.get("events")),
        state_default=_level(content, "state_default", 50),
        kick=_level(content, "kick", 50),
        redact=_level(content, "redact", 50),
        creators=creators,
    )


def _number(value: object) -> int | None:
    """Old room versions allow levels as text."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d{1,16}\s*", value, re.ASCII):
        return int(value)
    return None


def _level(content: Mapping[str, Any], name: str, default: int) -> int:
    value = _number(content.get(name))
    return default if value is None else value


def _levels(table: object) -> dict[str, int]:
    if not isinstance(table, Mapping):
        return {}
    numbers = {name: _number(value) for name, value in table.items()}
    return {name: value for name, value in numbers.items() if value is not None}


@dataclass(frozen=True, slots=True)
class ServerAcl:
    """``m.room.server_acl``: a server is let in when no deny pattern fits it and an allow pattern does."""

    allow: tuple[str, ...] = ("*",)
    deny: tuple[str, ...] = ()
    allow_ip_literals: bool = True

    def admits(self, server: ServerName) -> bool:
        return _admits(self, server)


@lru_cache(maxsize=8192)
def _admits(acl: ServerAcl, server: ServerName) -> bool:
    """Remembered, as every gate of every listener asks it again at each change, of lists with hundreds of patterns."""
    name = re.sub(r":\d{1,5}\Z", "", server)
    if not acl.allow_ip_literals and (name.startswith("[") or _IPV4.fullmatch(name)):
        return False
    if any(_glob(pattern).fullmatch(name) for pattern in acl.deny):
        return False
    return any(_glob(pattern).fullmatch(name) for pattern in acl.allow)


_IPV4 = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}", re.ASCII)


@lru_cache(maxsize=1024)
def _glob(pattern: str) -> re.Pattern[str]:
    """ACL patterns know ``*`` and ``?`` only; letters' case does not count.

    Atomic groups: the first fit of each part is final, so that a pattern of many stars costs no more than its length
    times the name's. Anybody who may write an ACL could halt us otherwise."""
    first, *rest = ("".join("." if c == "?" else re.escape(c) for c in part) for part in re.split(r"\*+", pattern))
    text = first if not rest else first + "".join(f"(?>.*?{part})" for part in rest[:-1]) + f".*{rest[-1]}"
    return re.compile(text, re.IGNORECASE | re.DOTALL)


def server_acl(content: Mapping[str, Any] | None) -> ServerAcl:
    """Total. None: there is no ACL event. One with no ``allow`` (a redacted one, too) lets nobody in, as the
    specification has it."""
    if content is None:
        return ServerAcl()
    ip = content.get("allow_ip_literals", True)
    return ServerAcl(
        _patterns(content.get("allow")), _patterns(content.get("deny")), ip if isinstance(ip, bool) else True
    )


def _patterns(value: object) -> tuple[str, ...]:
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()
