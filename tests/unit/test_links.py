"""Personal links and sessions: what was signed comes back, anything else is refused."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.errors import BadToken, ConfigError
from bridge.identity.links import LinkSigner, SessionClaims, device_hash, new_device
from bridge.ids import RoomId, UserId, new_session_id, new_stage_id
from bridge.telemetry import Redactor

SIGNER = LinkSigner("s" * 32)
ROOM = RoomId("!room:example.org")
AVA = UserId("@ava:example.org")
STAGE = new_stage_id()
NOW = 1_800_000_000_000
HOUR = 3_600_000
LINK = SIGNER.make(AVA, ROOM, STAGE, NOW, 12)
CLAIMS = SessionClaims(new_session_id(), AVA, ROOM, STAGE, "link-id", "hash")
SESSION = SIGNER.make_session(CLAIMS, NOW, NOW + HOUR)
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def refused(token: object, signer: LinkSigner = SIGNER, now: int = NOW) -> set[str]:
    """The reasons for which it is refused as a link and as a session."""
    reasons = set()
    for verify in (signer.verify, signer.verify_session):
        with pytest.raises(BadToken) as fault:
            verify(token, now)
        reasons.add(fault.value.reason)
    return reasons


def test_a_link_says_who_where_and_until_when() -> None:
    link = SIGNER.verify(LINK, NOW)
    assert (link.user, link.room, link.stage) == (AVA, ROOM, STAGE)
    assert (link.issued_ms, link.expires_ms) == (NOW, NOW + 12 * HOUR)
    assert link.id != SIGNER.verify(SIGNER.make(AVA, ROOM, STAGE, NOW, 12), NOW).id


def test_it_stands_in_a_url_as_it_is() -> None:
    assert set(LINK) | set(SESSION) <= set(ALPHABET + ".")


def test_a_session_survives_a_restart() -> None:
    session = LinkSigner("s" * 32).verify_session(SESSION, NOW)
    assert session.claims == CLAIMS
    assert (session.issued_ms, session.expires_ms) == (NOW, NOW + HOUR)


def test_guests_have_no_user() -> None:
    assert SIGNER.verify(SIGNER.make(None, ROOM, STAGE, NOW, 1), NOW).user is None
    guest = SessionClaims(new_session_id(), None, ROOM, STAGE)
    assert SIGNER.verify_session(SIGNER.make_session(guest, NOW, NOW + 1), NOW).claims == guest


@settings(deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters=":\0 "), min_size=1, max_size=60),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60),
)
def test_any_id_comes_back(local: str, room: str) -> None:
    user = UserId(f"@{local}:example.org")
    if len(user.encode()) > 255 or len(room.encode()) > 254 or any(each.isspace() for each in local):
        return
    link = SIGNER.verify(SIGNER.make(user, RoomId(f"!{room}"), STAGE, NOW, 1), NOW)
    assert (link.user, link.room) == (user, f"!{room}")


def test_the_longest_ids_fit() -> None:
    longest = UserId("@" + "\x01" * 230 + ":" + "a" * 23)
    assert SIGNER.verify(SIGNER.make(longest, RoomId("!" + "\x02" * 254), STAGE, NOW, 1), NOW).user == longest


@pytest.mark.parametrize("token", [LINK, SESSION])
def test_every_changed_character_is_refused(token: str) -> None:
    for at, old in enumerate(token):
        for new in "A" if old != "A" else "B", "." if old != "." else "-", "é", "":
            assert refused(token[:at] + new + token[at + 1 :]) == {"altered"}


@settings(deadline=None)
@given(st.integers(0, len(LINK) - 1), st.characters(exclude_categories=["Cs"]))
def test_any_altered_byte_is_refused(at: int, new: str) -> None:
    if new != LINK[at]:
        assert refused(LINK[:at] + new + LINK[at + 1 :]) == {"altered"}


@settings(deadline=None)
@given(st.one_of(st.none(), st.integers(), st.binary(), st.text(), st.lists(st.text())))
def test_junk_is_refused(junk: object) -> None:
    assert refused(junk) == {"altered"}


@pytest.mark.parametrize(
    "token", [LINK + "\n", LINK + "A", " " + LINK, LINK * 2, LINK + "=", "link1..", "x" * 10_000_000, LINK[:-1]]
)
def test_what_is_near_to_it_is_refused(token: str) -> None:
    assert refused(token) == {"altered"}


def test_another_spelling_of_the_tag_is_refused() -> None:
    """43 characters hold 258 bits: two of the last are free, and would make four spellings of one tag."""
    spellings = [LINK[:-1] + each for each in ALPHABET]
    same = [each for each in spellings if base64.urlsafe_b64decode(each[-43:] + "=") == _tag(LINK)]
    assert len(same) == 4
    for token in same:
        if token != LINK:
            assert refused(token) == {"altered"}


def _tag(token: str) -> bytes:
    return base64.urlsafe_b64decode(token[-43:] + "=")


def test_a_link_is_no_session_and_a_session_no_link() -> None:
    with pytest.raises(BadToken):
        SIGNER.verify_session(LINK, NOW)
    with pytest.raises(BadToken):
        SIGNER.verify(SESSION, NOW)
    assert refused(LINK.replace("link1", "session1")) == {"altered"}
    assert refused(SESSION.replace("session1", "link1")) == {"altered"}


def test_another_secret_refuses_it() -> None:
    assert refused(LINK, LinkSigner("t" * 32)) == {"altered"}
    assert refused(SESSION, LinkSigner("t" * 32)) == {"altered"}


def test_it_expires_to_the_millisecond() -> None:
    SIGNER.verify(LINK, NOW + 12 * HOUR - 1)
    SIGNER.verify_session(SESSION, NOW + HOUR - 1)
    with pytest.raises(BadToken) as fault:
        SIGNER.verify(LINK, NOW + 12 * HOUR)
    assert fault.value.reason == "expired"
    with pytest.raises(BadToken) as fault:
        SIGNER.verify_session(SESSION, NOW + HOUR)
    assert fault.value.reason == "expired"


def test_an_altered_token_is_never_called_expired() -> None:
    assert refused(LINK[:-1] + ("A" if LINK[-1] != "A" else "B"), now=NOW + 100 * HOUR) == {"altered"}


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ConfigError, match="32"):
        LinkSigner("s" * 31)


def test_devices() -> None:
    device = new_device()
    assert device != new_device()
    assert device_hash(device) == device_hash(device) != device_hash(device + "x")
    assert device not in device_hash(device)


def test_the_log_never_shows_one() -> None:
    hidden = Redactor()
    for token in (LINK, SESSION):
        text = hidden(f"GET /#{token} from a browser")
        assert not any(part in text for part in token.split(".")[1:])
        assert "from a browser" in text
