"""Power levels of room versions 1 … 12, creators, server ACLs, the operator's permissions."""

from __future__ import annotations

import time
from typing import Any

import pytest

from bridge.ids import ServerName, UserId
from bridge.rules.authority import CREATOR, Permission, Policy, ServerAcl, power_levels, server_acl
from bridge.rules.content import ROLE, STAGE
from tests.rules.room import ADMIN, AVA, BEN, CYD, HOST

VERSIONS = [str(n) for n in range(1, 13)]


def power(content: Any, version: str = "11", creator: str = ADMIN, **create: Any) -> Any:
    return power_levels(content, {"room_version": version, **create}, creator)


@pytest.mark.parametrize("version", VERSIONS)
def test_defaults_with_a_power_level_event(version: str) -> None:
    levels = power({}, version)
    assert (levels.for_state(ROLE), levels.kick, levels.redact, levels.level(AVA)) == (50, 50, 50, 0)
    assert levels.level(ADMIN) == (CREATOR if version == "12" else 0)
    assert levels.roles_are_guarded


@pytest.mark.parametrize("version", VERSIONS)
def test_without_a_power_level_event_the_creator_rules_and_state_is_open(version: str) -> None:
    levels = power(None, version, creator=ADMIN)
    assert levels.level(ADMIN) == (CREATOR if version == "12" else 100)
    assert levels.level(AVA) == 0
    assert levels.for_state(ROLE) == 0
    assert not levels.roles_are_guarded


@pytest.mark.parametrize(
    ("version", "named"), [("1", True), ("10", True), ("11", False), ("12", False), ("org.x", False)]
)
def test_up_to_version_10_the_content_names_the_creator(version: str, named: bool) -> None:
    levels = power_levels(None, {"room_version": version, "creator": AVA}, ADMIN)
    assert (levels.level(AVA) > 0) is named
    assert (levels.level(ADMIN) > 0) is not named


def test_a_room_without_a_version_is_of_version_1() -> None:
    assert power_levels(None, {"creator": AVA}, ADMIN).level(AVA) == 100


def test_creators_of_version_12_outrank_every_number() -> None:
    levels = power({"users": {HOST: 2**53}}, "12", additional_creators=[AVA, 7, None])
    assert levels.level(ADMIN) == levels.level(AVA) == CREATOR
    assert levels.level(ADMIN) > levels.level(HOST) == 2**53
    assert power({}, "12", additional_creators="junk").creators == {ADMIN}
    assert power({}, "11", additional_creators=[AVA]).level(AVA) == 0


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("value", "level"),
    [(50, 50), ("50", 50), (" 50 ", 50), ("+50", 50), ("-5", -5), (True, 0), ("x", 0), (None, 0), ([50], 0), ("5 0", 0),
     ("٥٠", 0), ("9" * 17, 0), ({}, 0)],
)  # fmt: skip
def test_levels_as_numbers_as_text_and_as_junk(version: str, value: object, level: int) -> None:
    assert power({"users": {AVA: value}}, version).level(AVA) == level
    assert power({"users_default": value}, version).level(AVA) == level
    assert power({"events": {ROLE: value}, "state_default": 0}, version).for_state(ROLE) == level


@pytest.mark.parametrize("field", ["users", "events"])
@pytest.mark.parametrize("junk", [None, 7, "x", [1]])
def test_a_table_that_is_none_counts_as_absent(field: str, junk: object) -> None:
    assert power({field: junk}) == power({})


def test_each_named_level_is_its_own() -> None:
    levels = power({"kick": 60, "redact": 61, "state_default": 62, "events": {STAGE: 63}, "users_default": 1})
    assert (levels.kick, levels.redact, levels.for_state(ROLE), levels.for_state(STAGE), levels.level(AVA)) == (
        60, 61, 62, 63, 1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("role", "default", "guarded"), [(50, 0, True), (1, 0, True), (0, 0, False), (50, 50, False), (50, 60, False)]
)
def test_roles_are_guarded_only_above_everybodys_level(role: int, default: int, guarded: bool) -> None:
    assert power({"events": {ROLE: role}, "users_default": default}).roles_are_guarded is guarded


@pytest.mark.parametrize(
    ("acl", "server", "let_in"),
    [
        (None, "a.org", True),
        ({}, "a.org", False),  # redacted, or no ``allow``: nobody
        ({"deny": []}, "a.org", False),
        ({"allow": ["*"]}, "a.org", True),
        ({"allow": ["*"], "deny": ["a.org"]}, "a.org", False),
        ({"allow": ["*"], "deny": ["a.org"]}, "A.ORG", False),
        ({"allow": ["*"], "deny": ["a.org"]}, "a.org:8448", False),
        ({"allow": ["*"], "deny": ["a.org"]}, "b.a.org", True),
        ({"allow": ["*"], "deny": ["*.a.org"]}, "b.a.org", False),
        ({"allow": ["*"], "deny": ["*.a.org"]}, "a.org", True),
        ({"allow": ["*"], "deny": ["?.org"]}, "a.org", False),
        ({"allow": ["*"], "deny": ["?.org"]}, "ab.org", True),
        ({"allow": ["*"], "deny": ["a.org"]}, "aXorg", True),
        ({"allow": ["a*b*c"]}, "aXbXc", True),
        ({"allow": ["a*b*c"]}, "abbc", True),
        ({"allow": ["a*b*c"]}, "acb", False),
        ({"allow": ["a**c"]}, "abc", True),
        ({"allow": ["*b"]}, "bab", True),
        ({"allow": ["[a-z].org"]}, "a.org", False),
        ({"allow": ["a.org", 7, None]}, "a.org", True),
        ({"allow": "a.org"}, "a.org", False),
        ({"allow": ["*"], "allow_ip_literals": False}, "1.2.3.4", False),
        ({"allow": ["*"], "allow_ip_literals": False}, "1.2.3.4:8448", False),
        ({"allow": ["*"], "allow_ip_literals": False}, "[::1]", False),
        ({"allow": ["*"], "allow_ip_literals": False}, "[::1]:8448", False),
        ({"allow": ["*"], "allow_ip_literals": False}, "4.example", True),
        ({"allow": ["*"], "allow_ip_literals": True}, "1.2.3.4", True),
        ({"allow": ["*"], "allow_ip_literals": "no"}, "1.2.3.4", True),
        ({"allow": ["*"], "deny": ["1.2.*"]}, "1.2.3.4", False),
        ({"allow": ["*"], "deny": ["[::1]"]}, "[::1]:443", False),
    ],
)  # fmt: skip
def test_server_acls(acl: dict[str, Any] | None, server: str, let_in: bool) -> None:
    assert server_acl(acl).admits(ServerName(server)) is let_in


def test_a_pattern_of_many_stars_does_not_halt_us() -> None:
    """Backtracking would take longer than the universe has; the limit is generous."""
    began = time.monotonic()
    acl = ServerAcl(allow=("*a" * 100 + "b",))
    assert not acl.admits(ServerName("a" * 230))
    assert ServerAcl(allow=("*a" * 100 + "*b",)).admits(ServerName("a" * 229 + "b"))
    assert time.monotonic() - began < 20


def test_the_most_exact_permission_counts() -> None:
    names = {"*": Permission.listen, "b.org": Permission.none, AVA: Permission.admin}
    policy = Policy(permissions=names)
    assert policy.permission(AVA) is Permission.admin
    assert policy.permission(UserId("@other:b.org")) is Permission.none
    assert policy.permission(CYD) is Permission.listen
    assert Policy(permissions={}).permission(BEN) is Permission.none
    assert Policy().permission(BEN) is Permission.host
