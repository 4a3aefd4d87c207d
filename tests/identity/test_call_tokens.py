"""Call tokens: signed, for a minute, once."""

from __future__ import annotations

import base64
import json

import jwt
import pytest

from bridge.errors import BadToken
from bridge.identity.call_tokens import LIFE_S, Call, CallTokens
from bridge.ids import RoomId, StageId, UserId

NOW = 1_800_000_000_000
CALL = Call("@ava:a.org:DEV", UserId("@ava:a.org"), "DEV", RoomId("!hall:a.org"), StageId("s" * 22))


@pytest.fixture
def tokens() -> CallTokens:
    return CallTokens("s" * 40)


def test_says_who_calls_with_what_where(tokens: CallTokens) -> None:
    token = tokens.make(CALL, NOW, may_speak=False)
    assert tokens.verify(token, NOW) == CALL
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["sub"] == CALL.identity  # Element Call reads these two
    assert claims["video"]["room"] == CALL.room
    assert claims["video"]["canPublish"] is False
    assert claims["exp"] - NOW // 1000 <= 60


def test_good_for_a_minute_and_once(tokens: CallTokens) -> None:
    token = tokens.make(CALL, NOW, may_speak=True)
    tokens.verify(token, NOW)
    tokens.verify(token, NOW)  # asking spends nothing
    assert tokens.spend(token, NOW) == CALL
    for again in (tokens.spend, tokens.verify):
        with pytest.raises(BadToken, match="used"):
            again(token, NOW + 1000)
    tokens.give_back(token, NOW)
    assert tokens.spend(token, NOW) == CALL
    with pytest.raises(BadToken, match="expired"):
        tokens.spend(tokens.make(CALL, NOW, may_speak=True), NOW + LIFE_S * 1000)


def test_spent_tokens_are_forgotten_when_they_have_expired(tokens: CallTokens) -> None:
    for number in range(50):
        tokens.spend(tokens.make(CALL, NOW + number * 10_000, may_speak=True), NOW + number * 10_000)
    assert len(tokens._spent) <= 7


def test_others_and_altered_ones_are_refused(tokens: CallTokens) -> None:
    token = tokens.make(CALL, NOW, may_speak=True)
    head, body, tag = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))

    def encoded(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    bad: list[object] = [
        None,
        "",
        "a.b.c",
        token[:-2],
        "x" * 5000,
        f"{head}.{encoded({**claims, 'sub': 'mallory'})}.{tag}",
        f"{encoded({'alg': 'none', 'typ': 'JWT'})}.{body}.",
        CallTokens("t" * 40).make(CALL, NOW, may_speak=True),
        jwt.encode({**claims, "iss": "other"}, tokens._key, algorithm="HS256"),
        jwt.encode({"iss": "eyvan", "sub": "x", "jti": "y", "exp": 2_000_000_000}, tokens._key, algorithm="HS256"),
    ]
    for each in bad:
        with pytest.raises(BadToken, match=r"not whole|not one of ours"):
            tokens.verify(each, NOW)
