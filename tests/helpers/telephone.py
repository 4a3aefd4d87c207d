"""A Matrix client that only calls: ``m.call.*`` events over the client-server API, its sound by aiortc."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from aiortc import RTCSessionDescription

from bridge.demo.client_api import ClientApi
from bridge.ids import RoomId
from tests.helpers.relay import HANG_S
from tests.helpers.rtc import RtcClient

METADATA = "sdp_stream_metadata"
Json = Mapping[str, Any]


async def open_line(person: ClientApi, room: RoomId, bot: str) -> RoomId:
    """Ask the bot for a call in the room of a stage, as a person does; returns the direct chat."""
    chat = await _chat(person, bot)
    asked = await person.send(room, "!call")

    def is_answer(event: Mapping[str, Any]) -> bool:
        return bool(event["content"].get("m.relates_to", {}).get("m.in_reply_to", {}).get("event_id") == asked)

    if chat is None:
        chat = await person.join(await person.wait_for_invite(bot))
    while not any(map(is_answer, await person.get_messages(room, 20))):  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    return chat


async def _chat(person: ClientApi, bot: str) -> RoomId | None:
    for room in await person.joined_rooms():
        is_pair = set(await person.joined_members(room)) == {person.user, bot}
        if is_pair and await person.get_state(room, "m.room.name") is None:
            return room
    return None


class Telephone:
    """One device in one direct chat, with one call. Owns its peer connection; ``close`` ends it."""

    def __init__(self, person: ClientApi, chat: RoomId, *, version: str | int = "1") -> None:
        self.person, self.chat, self.version = person, chat, version
        self.call_id, self.party = secrets.token_hex(8), "PHONE" + secrets.token_hex(2)
        self.sound = RtcClient()
        self.answer: dict[str, Any] = {}
        self._held, self._since = 0, time.time_ns() // 1_000_000

    def content(self, **more: Any) -> dict[str, Any]:
        party = {"party_id": self.party} if self.version != 0 else {}
        return {"call_id": self.call_id, "version": self.version, **party, **more}

    async def send(self, kind: str, **more: Any) -> None:
        await self.person.send(self.chat, self.content(**more), f"m.call.{kind}")

    async def call(self, **more: Any) -> None:
        """Returns when the bot has answered and sound can flow."""

        async def over_matrix(offer: str) -> str:
            await self.send("invite", offer={"type": "offer", "sdp": offer}, lifetime=60_000, **more)
            self.answer = await self.event("answer")
            return str(self.answer["answer"]["sdp"])

        await self.sound.connect(over_matrix)
        if self.version != 0:
            await self.send("select_answer", selected_party_id=self.answer["party_id"])

    async def rung(self) -> str:
        """The bot calls: its offer. The call is this device's to answer from now on."""

        def is_it(event: Mapping[str, Any]) -> bool:
            return bool(event["type"] == "m.call.invite" and event["content"].get("invitee") == self.person.user)

        invite = (await self._find(is_it))["content"]
        self.call_id = invite["call_id"]
        return str(invite["offer"]["sdp"])

    async def pick_up(self, offer: str) -> None:
        """Returns when sound can flow and the bot has said that it takes this device."""
        await self.send("answer", answer={"type": "answer", "sdp": await self.sound.accept(offer)})
        await self.sound.connected()
        assert (await self.event("select_answer"))["selected_party_id"] == self.party

    async def hold(self, *, off: bool = False) -> None:
        """As the hold button does: a new offer, answered by negotiation."""
        (transceiver,) = self.sound.pc.getTransceivers()
        transceiver.direction = "sendrecv" if off else "sendonly"
        await self.sound.pc.setLocalDescription(await self.sound.pc.createOffer())
        # aiortc names a new session each second; a client goes on in the one it began (RFC 8829 §5.2.2)
        origin = re.search(r"(?m)^o=.*", self.sound.offer)
        assert origin is not None
        described = {
            "type": "offer",
            "sdp": re.sub(r"(?m)^o=.*", origin[0], self.sound.pc.localDescription.sdp, count=1),
        }
        self._held += 1
        await self.send("negotiate", description=described, lifetime=60_000)
        answer = (await self.event("negotiate", number=self._held))["description"]
        assert answer["type"] == "answer"
        assert ("a=recvonly" in answer["sdp"]) is not off
        await self.sound.pc.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))

    async def event(self, *kinds: str, call_id: str | None = None, number: int = 1) -> dict[str, Any]:
        """The content of the bot's first event of these kinds about this call, or of its ``number``-th."""
        names = {f"m.call.{kind}" for kind in kinds}
        wanted = call_id or self.call_id

        def is_it(event: Mapping[str, Any]) -> bool:
            mine = event["sender"] != self.person.user and event["content"].get("call_id") == wanted
            return mine and event["type"] in names

        return dict((await self._find(is_it, number))["content"])

    async def told(self, *words: str) -> str:
        """The bot's first message in the chat that has all of these words."""

        def is_it(event: Mapping[str, Any]) -> bool:
            body = str(event["content"].get("body", ""))
            return event["type"] == "m.room.message" and all(word in body for word in words)

        return str((await self._find(is_it))["content"]["body"])

    async def _find(self, is_it: Callable[[Mapping[str, Any]], bool], number: int = 1) -> Mapping[str, Any]:
        """Of the chat alone, as a first ``/sync`` of somebody who is in many rooms takes long; and of this telephone's
        time, as the chat has seen other tests."""
        began = asyncio.get_running_loop().time()
        while True:
            events = await self.person.get_messages(self.chat)
            found = [event for event in events if event["origin_server_ts"] >= self._since and is_it(event)]
            if len(found) >= number:
                return found[number - 1]
            assert asyncio.get_running_loop().time() - began < HANG_S, "it did not come"
            await asyncio.sleep(0.05)

    async def close(self) -> None:
        await self.sound.close()
