"""Joining a room of another server: by whom (client-server API, ``POST /join``: ``via``), and for how long it is tried.

A homeserver that is not in the room yet must be told servers that are. A room that was made a moment ago, or a server
that is away for a moment, is joined at the second or third try; what is forbidden stays so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence

from bridge.errors import MatrixRefused, Unavailable
from bridge.ids import RoomId, UserId, server_of
from bridge.live.ports import Matrix
from bridge.rules.room import Room

log = logging.getLogger(__name__)

PATIENCE_S = 60.0
FIRST_PAUSE_S = 2.0
_LONGEST_PAUSE_S = 16.0
_SERVERS = 5


async def join_by(matrix: Matrix, room: RoomId, via: Sequence[str]) -> None:
    """Join, again and again while it may help, for about ``PATIENCE_S``. Raises MatrixRefused, Unavailable."""
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + PATIENCE_S, FIRST_PAUSE_S
    while True:
        try:
            await matrix.join(room, via)
            return
        except (MatrixRefused, Unavailable) as error:
            if not may_pass(error) or loop.time() + pause > deadline:
                raise
            log.info("room %s is not joined yet, by %s: %s; again in %.0f s", room, ", ".join(via), error, pause)
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)


def may_pass(error: MatrixRefused | Unavailable) -> bool:
    """Synapse says 404 M_UNKNOWN where it knows no server of the room, 502 where none of them answered."""
    if isinstance(error, Unavailable):
        return True
    return error.errcode == "M_UNKNOWN" or error.status in (404, 429) or error.status >= 500


def servers_of_invitation(bot: UserId, by: UserId, room: RoomId) -> list[str]:
    """The inviter's server is in the room; the one that made it most likely (a room id from version 12 on has none)."""
    _, _, maker = room.partition(":")
    return _others(bot, [server_of(by), maker])


def servers_of_successor(bot: UserId, sender: str, old: Room) -> list[str]:
    """Where the one who upgraded the room is, then the others with power in it, who will want to be in the new one."""
    joined = [user for user, member in old.members.items() if member.joined]
    level = old.power.level
    strong = sorted((user for user in joined if level(user) > old.power.users_default), key=lambda u: (-level(u), u))
    first = [server_of(UserId(sender))] if ":" in sender else []
    return _others(bot, [*first, *map(server_of, strong)])


def _others(bot: UserId, servers: Iterable[str]) -> list[str]:
    """Each once, without our own, ``_SERVERS`` at most."""
    return [each for each in dict.fromkeys(servers) if each and each != server_of(bot)][:_SERVERS]
