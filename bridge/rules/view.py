"""State events → the view of a room. Total: an event whose content cannot be read counts as empty, and is named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from bridge.errors import BadInput
from bridge.ids import UserId, parse_room, parse_user, user_of_role_key
from bridge.rules import content as c
from bridge.rules.authority import power_levels, server_acl
from bridge.rules.content import StateEvent
from bridge.rules.effects import BadEvent
from bridge.rules.room import Grant, Member, Room


def room_from(events: Iterable[StateEvent]) -> tuple[Room, list[BadEvent]]:
    """The view that all current state events make, in whatever order they come. O(events)."""
    room, bad = Room(), []
    roles: dict[UserId, Grant] = {}
    members: dict[UserId, Member] = {}
    for event in events:
        # roles and members one by one, on an empty view each: `apply` copies what stands already
        alone = event.kind in (c.ROLE, c.MEMBER)
        after, wrong = apply(Room() if alone else room, event.kind, event.key, event)
        bad += wrong
        roles.update(after.roles)
        members.update(after.members)
        room = room if alone else after
    return replace(room, roles=roles, members=members), bad


def apply(room: Room, kind: str, key: str, event: StateEvent | None) -> tuple[Room, list[BadEvent]]:
    """``room`` with what stands under (kind, key) replaced; None: nothing stands there."""
    try:
        if not c.is_encodable(key):
            raise BadInput("state_key", key, "half a surrogate pair is no text")
        return _APPLY[kind](room, key, event) if kind in _APPLY else room, []
    except BadInput as bad:
        emptied = replace(event, content={}) if event else None
        room = room if bad.field == "state_key" else _APPLY[kind](room, key, emptied)
        return room, [BadEvent(event.event_id if event else "", kind, str(bad))]


def _content(event: StateEvent | None) -> Mapping[str, Any]:
    return event.content if event else {}


def _stage(room: Room, key: str, event: StateEvent | None) -> Room:
    if key:
        return room
    stage = c.parse_stage_content(_content(event))
    return replace(
        room, stage=stage, stage_event=event.event_id if event else None, stage_sender=event.sender if event else ""
    )


def _role(room: Room, key: str, event: StateEvent | None) -> Room:
    user = user_of_role_key(key)
    role = c.parse_role_content(_content(event))
    roles = {u: grant for u, grant in room.roles.items() if u != user}
    if role is not None and event is not None:
        roles[user] = Grant(role, event.event_id, event.ts, event.sender)
    return replace(room, roles=roles)


def _member(room: Room, key: str, event: StateEvent | None) -> Room:
    user = parse_user(key, "state_key")
    body = _content(event)
    membership, name = body.get("membership"), body.get("displayname")
    members = dict(room.members)
    if event is None:
        members.pop(user, None)
    else:
        shown = c.clean_text(name, c.NAME_LENGTH) if isinstance(name, str) else ""
        members[user] = Member(membership if isinstance(membership, str) else "", shown, event.sender)
    return replace(room, members=members)


def _power(room: Room, key: str, event: StateEvent | None) -> Room:
    if key:
        return room
    body = event.content if event else None
    return replace(room, power_content=body, power=power_levels(body, room.create, room.creator))


def _create(room: Room, key: str, event: StateEvent | None) -> Room:
    if key or event is None:
        return room
    power = power_levels(room.power_content, event.content, event.sender)
    return replace(room, create=event.content, creator=event.sender, power=power)


def _acl(room: Room, key: str, event: StateEvent | None) -> Room:
    return room if key else replace(room, acl=server_acl(event.content if event else None))


def _join_rules(room: Room, key: str, event: StateEvent | None) -> Room:
    return room if key else replace(room, public=_content(event).get("join_rule") == "public")


def _name(room: Room, key: str, event: StateEvent | None) -> Room:
    name = _content(event).get("name")
    return room if key else replace(room, name=c.clean_text(name, c.NAME_LENGTH) if isinstance(name, str) else "")


def _encryption(room: Room, key: str, event: StateEvent | None) -> Room:
    return room if key else replace(room, encrypted=bool(_content(event)))


def _tombstone(room: Room, key: str, event: StateEvent | None) -> Room:
    named = _content(event).get("replacement_room")
    if isinstance(named, str) and not c.is_encodable(named):
        raise BadInput("replacement_room", named, "give a room id")
    successor = None if named is None else parse_room(named, "replacement_room")
    return room if key else replace(room, successor=successor)


_APPLY = {
    c.STAGE: _stage,
    c.ROLE: _role,
    c.MEMBER: _member,
    c.POWER_LEVELS: _power,
    c.CREATE: _create,
    c.SERVER_ACL: _acl,
    c.JOIN_RULES: _join_rules,
    c.NAME: _name,
    c.ENCRYPTION: _encryption,
    c.TOMBSTONE: _tombstone,
}
