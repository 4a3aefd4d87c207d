"""Whose voice is where, by the members' own state events; and addresses that are never asked."""

from __future__ import annotations

from typing import Any

import pytest
from yarl import URL

from bridge.errors import BadInput, Unavailable
from bridge.identity.safe_http import SafeHttp
from bridge.matrix.matrixrtc import member_content
from bridge.matrix.partner_calls import membership_of

BEN = "@ben:b.org"
SERVICE = "https://rtc.b.org/livekit/jwt"
NOW = 1_000_000


def event(**more: Any) -> dict[str, Any]:
    content = {**member_content(BEN, SERVICE + "/", "!r:a.org", NOW, NOW), "device_id": "PHONE", **more}
    return {"sender": BEN, "room_id": "!r:a.org", "origin_server_ts": NOW, "content": content}


def test_a_membership_names_service_room_and_device() -> None:
    member = membership_of(event(), NOW)
    assert member is not None
    assert (member.identity, member.service, member.alias) == (f"{BEN}:PHONE", SERVICE, "!r:a.org")


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"foci_preferred": []},
        {"foci_preferred": [{"type": "mesh"}]},
        {"foci_preferred": [{"type": "livekit", "livekit_service_url": 7}]},
        {"foci_preferred": "livekit"},
        {"device_id": ""},
        {"device_id": "x" * 256},
        {"created_ts": NOW - 10_000, "expires": 9_999},
    ],
)
def test_what_is_no_membership(content: dict[str, Any]) -> None:
    said = event(**content) if content else {**event(), "content": {}}
    assert membership_of(said, NOW) is None


def test_a_sender_that_is_no_user_is_named() -> None:
    with pytest.raises(BadInput, match="sender"):
        membership_of({**event(), "sender": 3}, NOW)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "[::1]", "[::ffff:192.168.0.1]", "169.254.169.254"])
async def test_a_service_at_a_private_address_is_not_asked(address: str) -> None:
    http = SafeHttp()
    try:
        with pytest.raises(Unavailable, match="public internet"):
            await http.post(URL(f"https://{address}/sfu/get"), {})
        with pytest.raises(Unavailable, match="public internet"):
            await http.socket(URL(f"wss://{address}/rtc"), 1000)
        with pytest.raises(Unavailable, match="only wss"):
            await http.socket(URL("ws://203.0.113.1/rtc"), 1000)
    finally:
        await http.close()


async def test_a_candidate_at_a_private_address_is_passed_over() -> None:
    from bridge.media.partner_sfu import Sfu

    http = SafeHttp()
    sfu = Sfu(None, None, http.check)  # type: ignore[arg-type]
    lines = {
        "a=candidate:1 1 udp 1 10.0.0.1 7881 typ host\r\n": False,
        "a=candidate:1 1 tcp 1 1.1.1.1 7881 typ host\r\n": False,
        "a=candidate:1 1 udp 1 x.local 7881 typ host\r\n": False,
        "a=candidate:1 1 udp\r\n": False,
        "a=candidate:1 1 udp 1 1.1.1.1 7881 typ host\r\n": True,
        "a=mid:0\r\n": True,
    }
    assert {line: sfu._may_stand(line) for line in lines} == lines
    await sfu._pc.close()
    await http.close()
