"""The page in a client's frame: signing in by the word of the person's own homeserver, and what that is good for."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import MatrixRefused
from bridge.live.confirmations import GOOD_MS
from bridge.web.server import widget_headers
from tests.helpers.fakes import ADMIN, AVA, BEN, CYD, MOD, OTHER, ROOM, until
from tests.web.conftest import Origin, Socket


def openid(token: str, server: str = "a.org") -> dict[str, Any]:
    return {"access_token": token, "token_type": "Bearer", "matrix_server_name": server, "expires_in": 3600}


async def sign_in(origin: Origin, user: str) -> str:
    token = f"token {user} {len(origin.tokens)}".replace(" ", "-")
    origin.tokens[token] = user
    status, opened = await origin.post({"openid": openid(token), "room": ROOM})
    assert status == 200, opened
    assert (opened["user"], opened["device"], opened["stage"]) == (user, None, origin.house.stage().stage_id)
    return str(opened["session"])


def code_of(chat: list[str]) -> str:
    return next(word for word in chat[-1].replace(".", " ").split() if word.isdigit())


async def test_a_token_opens_one_session_and_its_replay_none(origin: Origin) -> None:
    origin.tokens["t1"] = AVA
    status, opened = await origin.post({"openid": openid("t1"), "room": ROOM})
    assert (status, opened["user"]) == (200, AVA)
    assert opened["expires_ts"] == origin.clock.now_ms() + 12 * 3_600_000
    status, refused = await origin.post({"openid": openid("t1"), "room": ROOM})
    assert (status, refused["errcode"], refused["reason"]) == (401, "M_UNKNOWN_TOKEN", "used")
    page = await origin.page(AVA, opened["session"])
    assert page.frames[-1]["me"]["user"] == AVA


async def test_who_gets_no_session(origin: Origin) -> None:
    origin.house.matrix.make_room(OTHER, AVA)
    origin.tokens |= {"out": "@zoe:a.org", "elsewhere": AVA, "lie": BEN}
    cases = [
        (openid("unknown"), ROOM, 401, "unknown"),
        (openid("lie"), ROOM, 401, "unknown"),  # a.org speaks for b.org
        (openid("out"), ROOM, 401, "membership"),
        (openid("elsewhere"), OTHER, 401, "membership"),  # the bot is not in that room, and tells nothing of it
    ]
    for given, room, status, reason in cases:
        got, refused = await origin.post({"openid": given, "room": room})
        assert (got, refused.get("reason")) == (status, reason), given
    for body in ({"openid": {}, "room": ROOM}, {"openid": openid("x")}, {"openid": openid("x"), "room": "hall"},
                 {"openid": "x", "room": ROOM}, {"openid": openid("x"), "room": ROOM, "guest": "y" * 22},
                 {"openid": {"access_token": 7, "matrix_server_name": "a.org"}, "room": ROOM}):  # fmt: skip
        assert (await origin.post(body))[0] == 400, body
    origin.house.matrix.message(ADMIN, "!stage end")
    await until(lambda: not origin.house.stage().state.live, "the end")
    origin.tokens["late"] = AVA
    status, refused = await origin.post({"openid": openid("late"), "room": ROOM})
    assert (status, refused["errcode"]) == (404, "M_NOT_FOUND")


async def test_it_listens_raises_a_hand_and_speaks_when_the_room_says_so(origin: Origin) -> None:
    page = await origin.page(AVA, await sign_in(origin, AVA))
    await page.send(t="offer", id=1, sdp="v=0")
    await page.next("answer", id=1)
    await page.send(t="hand", id=2, raised=True)
    await page.next("done", id=2)
    assert not origin.house.media.heard(AVA)
    origin.house.matrix.role(ADMIN, AVA, role="speaker")
    await page.part("me", lambda me: me["can_speak"])
    assert origin.house.media.heard(AVA)
    await page.send(t="act", id=3, act="to_audience", user=AVA)  # stepping down asks nobody
    await page.next("done", id=3)
    origin.house.matrix.member(ADMIN, AVA, "ban")
    assert (await page.until_closed())["reason"] == "removed"


async def test_acts_on_others_wait_for_the_persons_own_word(origin: Origin) -> None:
    matrix = origin.house.matrix
    ben = await origin.house.on_air(BEN)
    page = await origin.page(MOD, await sign_in(origin, MOD))
    await page.send(t="act", id=1, act="mute", user=BEN)
    shown = await page.next("notice", key="confirm")
    refused = await page.next("refused", id=1)
    await until(lambda: matrix.chats.get(MOD), "the question")
    code = code_of(matrix.chats[MOD])
    assert (shown["by_name"], code in refused["error"]) == (code, True)
    await page.send(t="act", id=2, act="mute", user=BEN)  # again: the same question, not another
    await page.next("refused", id=2)
    await page.send(t="act", id=3, act="end")
    await page.next("refused", id=3)
    assert len(matrix.chats[MOD]) == 1
    assert origin.house.media.heard(BEN)

    question = f"$chat-{MOD}-1"
    for sender, event, key in (
        (AVA, question, "👍"),
        (MOD, "$another", "👍"),
        (MOD, question, "👎"),
        (MOD, question, "✋"),
    ):
        matrix.reaction(sender, event, key)  # type: ignore[arg-type]
    await origin.house.quiet()
    await page.send(t="act", id=4, act="mute", user=BEN)
    await page.next("refused", id=4)
    matrix.reaction(MOD, question, "👍🏽")  # type: ignore[arg-type]
    await page.next("notice", key="confirmed")
    await page.send(t="act", id=5, act="mute", user=BEN)
    await page.next("done", id=5)
    await until(lambda: not origin.house.media.heard(BEN), "the mute")
    assert ("muted", "Mod") in ben.notices
    await until(lambda: matrix.edits and code in matrix.edits[-1][1], "the question says that it is answered")

    other = await origin.page(MOD, await sign_in(origin, MOD))  # another session asks for itself
    await other.send(t="act", id=1, act="unmute", user=BEN)
    await other.next("refused", id=1)
    by_link = await origin.page(MOD)  # who came by the bot's own message has been told nothing by others
    await by_link.send(t="act", id=1, act="unmute", user=BEN)
    await by_link.next("done", id=1)


async def test_a_question_gets_old_and_few_stand_open(origin: Origin) -> None:
    matrix = origin.house.matrix

    async def ask(page: Socket, number: int) -> dict[str, Any]:
        await page.send(t="act", id=number, act="mute", user=BEN)
        return await page.next("refused", id=number)

    pages = [await origin.page(MOD, await sign_in(origin, MOD)) for _ in range(4)]
    for page in pages[:3]:
        assert (await ask(page, 1))["errcode"] == "M_FORBIDDEN"
    assert (await ask(pages[3], 1))["errcode"] == "M_LIMIT_EXCEEDED"
    await until(lambda: len(matrix.chats[MOD]) == 3, "three questions")
    origin.clock.advance(GOOD_MS / 1000 + 1)
    matrix.reaction(MOD, f"$chat-{MOD}-1", "👍")  # type: ignore[arg-type]
    await origin.house.quiet()
    assert (await ask(pages[0], 2))["errcode"] == "M_FORBIDDEN", "too late"
    await until(lambda: len(matrix.chats[MOD]) == 4, "a new question")


async def test_a_chat_that_does_not_open(origin: Origin) -> None:
    async def refuses(_: str, __: Any) -> None:
        raise MatrixRefused("M_FORBIDDEN", 403, "no invitations, please")

    origin.house.matrix.before["tell"] = refuses
    page = await origin.page(MOD, await sign_in(origin, MOD))
    await page.send(t="act", id=1, act="end")
    await page.next("notice", key="confirm_failed")
    assert origin.house.stage().state.live


async def test_a_person_of_another_server_who_is_banned_by_acl(origin: Origin) -> None:
    origin.house.matrix.put(ADMIN, "m.room.server_acl", "", {"allow": ["*"], "deny": ["a.org"]})
    await until(lambda: not origin.house.stage().state.may_hear(AVA), "the ACL")
    origin.tokens["t"] = AVA
    assert (await origin.post({"openid": openid("t"), "room": ROOM}))[1]["reason"] == "membership"
    assert origin.house.stage().state.may_hear(CYD)


async def test_framing(origin: Origin) -> None:
    async with origin.http.get(
        f"{origin.url}/s/widget?widgetId=eyvan&parentUrl=https%3A%2F%2Felement.example"
    ) as response:
        assert response.status == 200
        policy = response.headers["Content-Security-Policy"]
        assert "frame-ancestors" not in policy
        assert "script-src 'self'" in policy
        assert "X-Frame-Options" not in response.headers
        assert "microphone=(self)" in response.headers["Permissions-Policy"]
    for path in ("/", f"/s/{origin.house.stage().stage_id}", "/s/index.html"):
        async with origin.http.get(origin.url + path) as response:
            assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"], (
                "a link's page is in no frame"
            )


@pytest.mark.parametrize("clients", [("https://app.element.io",), ("https://a.example", "vector:")])
def test_only_the_clients_that_the_operator_names(clients: tuple[str, ...]) -> None:
    policy = widget_headers(clients)["Content-Security-Policy"]
    assert policy.endswith("; frame-ancestors " + " ".join(clients))
    assert "'none'" in policy  # of all else
