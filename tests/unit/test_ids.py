"""Ids: what is taken, what is refused by name, and what comes back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import ids
from bridge.errors import BadInput, shown

PARSERS: list[Callable[[object], str]] = [ids.parse_user, ids.parse_room, ids.parse_event, ids.parse_stage]


@pytest.mark.parametrize(
    ("parse", "good"),
    [
        (ids.parse_user, "@ava:example.org"),
        (ids.parse_user, "@ava.b=c/d-1_:[2001:db8::1]:8448"),
        (ids.parse_user, "@Ünï:127.0.0.1"),
        (ids.parse_room, "!opaque:example.org"),
        (ids.parse_room, "!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM"),  # room version 12: no server
        (ids.parse_event, "$31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM"),
        (ids.parse_stage, "K4BGfYOFySalmJ4QzfE67g"),
    ],
)
def test_good_ids_come_back_as_they_are(parse: Callable[[object], str], good: str) -> None:
    assert parse(good) == good


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize(
    "bad", ["", "@", "ava", "!", "$", None, 7, ["@a:b"], "@a:b\x00", "@a b:c", "\ud800", "@" + "a" * 300 + ":b"]
)
def test_bad_ids_are_refused_with_a_remedy(parse: Callable[[object], str], bad: object) -> None:
    with pytest.raises(BadInput) as refused:
        parse(bad)
    assert refused.value.remedy in str(refused.value)


@given(st.text())
def test_no_text_raises_anything_else(text: str) -> None:
    for parse in PARSERS:
        with contextlib.suppress(BadInput):
            assert parse(text) == text


def test_a_role_key_names_its_user() -> None:
    user = ids.parse_user("@ava:example.org:8448")
    assert ids.role_key(user) == "_@ava:example.org:8448"
    assert ids.user_of_role_key(ids.role_key(user)) == user
    assert ids.server_of(user) == "example.org:8448"
    assert ids.localpart_of(user) == "ava"
    for key in ("@ava:example.org", "_ava", "", "_@"):
        with pytest.raises(BadInput):
            ids.user_of_role_key(key)


def test_new_ids_differ_and_cannot_be_guessed() -> None:
    for new in (ids.new_stage_id, ids.new_session_id):
        made = {new() for _ in range(100)}
        assert len(made) == 100
        assert all(len(each) == 22 for each in made)  # 128 bits
    assert len({ids.new_peer_id() for _ in range(100)} | {ids.new_txn_id() for _ in range(100)}) == 200


def test_what_is_shown_is_short_and_never_too_deep() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert len(shown(deep)) <= 80
    assert len(shown("x" * 1000)) == 80
    assert shown(7) == "7"
    while deep:  # taken apart by hand: the interpreter would free it recursively
        deep = deep.pop()  # type: ignore[assignment]
