"""What becomes of a datagram by its first byte and its source (RFC 7983 §7), and that strangers cost no memory."""

from __future__ import annotations

import gc
import os
import tracemalloc
from collections.abc import AsyncIterator

import pytest

from bridge.media import stun
from bridge.media.stun import Address
from tests.fuzz.stage import Stage

STRANGER: Address = ("192.0.2.200", 4711)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = await Stage.make()
    yield made
    made.close()


def expected(first: int) -> str:
    """RFC 7983 §7, without what nobody speaks to us: ZRTP, TURN channels, QUIC."""
    if first <= 3:
        return "STUN"
    if 20 <= first <= 63:
        return "DTLS"
    return "SRTP" if 128 <= first <= 191 else "junk"


async def test_the_first_byte_tells_the_protocol(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def on_stun(data: bytes, address: Address) -> bool:
        told.append("STUN")
        return True

    monkeypatch.setattr(stage.worker, "_on_stun", on_stun)
    monkeypatch.setattr(stage.peer, "on_dtls", lambda data, now: told.append("DTLS"))
    monkeypatch.setattr(stage.peer, "on_srtp", lambda data, now: told.append("SRTP"))
    for first in range(256):
        junk = stage.worker._junk
        stage.worker._on_datagram(bytes((first,)) + bytes(40), stage.address)
        if stage.worker._junk > junk:
            told.append("junk")
        assert told == [expected(first)], first
        told.clear()
        stage.worker._on_datagram(bytes((first,)) + bytes(40), STRANGER)
        assert told == (["STUN"] if first <= 3 else []), "of a stranger, only a check is looked at"
        told.clear()


def strange_datagrams(stage: Stage) -> dict[str, list[bytes]]:
    ufrag, secret = stage.raw.remote_ufrag, stage.raw.remote_password.encode()
    good = stage.raw.check_message()
    return {
        "unknown ufrag": [stun.binding_request(f"{stun.new_ufrag(0)}:x", secret, controlling=True) for _ in range(50)],
        "not our password": [stage.raw.check_message(password="not the password") for _ in range(50)],
        "not their ufrag": [stun.binding_request(f"{ufrag}:other", secret, controlling=True) for _ in range(50)],
        "no FINGERPRINT": [good[:-1] + bytes((good[-1] ^ 1,))],
        "a response nobody asked for": [stun.success(_parsed(good), ("192.0.2.1", 9), secret)],
        "no STUN": [b"\x00\x01" + os.urandom(200) for _ in range(50)],
        "DTLS": [stage.raw.client_hello() for _ in range(5)],
        "SRTP": [b"\x80\x6f" + os.urandom(1200) for _ in range(50)],
        "SRTCP": [b"\x80\xc9" + os.urandom(80) for _ in range(50)],
        "nothing known": [bytes((first,)) * 1400 for first in (10, 17, 70, 200, 255)],
        "empty": [b""],
    }


def _parsed(data: bytes) -> stun.Message:
    message = stun.parse(data)
    assert message is not None
    return message


async def test_strangers_cost_no_memory_and_get_no_answer(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is kept of a thousand datagrams of each kind, next to nothing is needed at once, no byte goes back."""
    sent: list[Address] = []
    monkeypatch.setattr(stage.worker, "send", lambda datagram, address: sent.append(address))
    sources: list[Address] = [("192.0.2.200", port) for port in range(1000, 2000)]
    take = stage.worker._on_datagram
    for kind, datagrams in strange_datagrams(stage).items():
        for source in sources:  # what Python itself keeps of a first call is there by now
            take(datagrams[source[1] % len(datagrams)], source)
        gc.collect()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            for source in sources:
                take(datagrams[source[1] % len(datagrams)], source)
            after, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert after - before < 512, f"{kind}: {after - before} bytes are kept"
        assert peak - before < 8192, f"{kind}: {peak - before} bytes at once"
    assert sent == []
    assert list(stage.worker._by_address) == [stage.address]
    assert stage.peer.is_connected
