"""An association after its handshake, without OpenSSL's object, against OpenSSL as the client."""

from __future__ import annotations

import contextlib
import gc
import weakref

from OpenSSL import SSL

from bridge.media.control import Join, MakeOffer, WorkerSettings
from bridge.media.dtls import Association, Identities, Identity, Settled
from bridge.media.worker import Worker
from tests.helpers.raw_peer import RawPeer

CLOSE_NOTIFY_SIZE = 13 + 8 + 2 + 16
IDENTITY, OTHER = Identity(), Identity()
OTHER.context.set_cipher_list(b"ECDHE-ECDSA-AES256-GCM-SHA384")
TRUSTED = frozenset(("sha-256", each.fingerprint) for each in (IDENTITY, OTHER))


def fresh() -> Association:
    return Association(IDENTITY, TRUSTED)


def client(identity: Identity = IDENTITY) -> Association:
    made = Association(identity, TRUSTED)
    made._connection.set_connect_state()
    with contextlib.suppress(SSL.WantReadError):
        made._connection.do_handshake()
    return made


def shake_hands(ours: Association, theirs: Association, seen: list[bytes] | None = None) -> list[bytes]:
    """Until we have the keys; our last flight is returned, not delivered. ``seen`` takes all of theirs."""
    while True:
        for datagram in theirs.outgoing():
            ours.receive(datagram)
            if seen is not None:
                seen.append(datagram)
        flight = list(ours.outgoing())
        if ours.keys is not None:
            return flight
        assert flight, ours.failure
        for datagram in flight:
            theirs.receive(datagram)


def settled_pair() -> tuple[Settled, Association]:
    server, browser = fresh(), client()
    for datagram in shake_hands(server, browser):
        browser.receive(datagram)
    settled = server.settled()
    assert isinstance(settled, Settled)
    assert settled.keys is not None
    assert settled.keys == server.keys
    assert settled.settled() is settled
    return settled, browser


def test_the_end_the_browser_tells_is_understood() -> None:
    settled, browser = settled_pair()
    browser.close()
    (told,) = browser.outgoing()
    for at in range(len(told)):
        settled.receive(told[:at] + bytes((told[at] ^ 1,)) + told[at + 1 :])
        settled.receive(told[:at])
        assert not settled.closed, f"byte {at} was changed"
    settled.receive(b"\x16\xfe\xfd" + bytes(10) + told)  # behind an empty record, as they may share a datagram
    assert settled.closed
    settled.close()
    assert list(settled.outgoing()) == []


def test_the_browser_understands_the_end_we_tell() -> None:
    settled, browser = settled_pair()
    settled.close()
    settled.close()
    (told,) = settled.outgoing()
    assert len(told) == CLOSE_NOTIFY_SIZE
    assert not browser.closed
    browser.receive(told)
    assert browser.closed
    assert not browser.failure


def test_a_last_flight_that_was_lost_is_sent_again() -> None:
    """RFC 6347 §4.2.4: the browser repeats its own last flight until ours has come."""
    server, browser = fresh(), client()
    from_browser: list[bytes] = []
    lost = shake_hands(server, browser, from_browser)
    settled = server.settled()
    assert list(settled.outgoing()) == []
    for datagram in from_browser:
        settled.receive(datagram)
    assert list(settled.outgoing()) == lost
    for datagram in lost:
        browser.receive(datagram)
    assert browser.keys is not None
    settled.close()
    for datagram in settled.outgoing():
        browser.receive(datagram)
    assert browser.closed


def test_another_cipher_keeps_the_object_of_openssl() -> None:
    server, browser = fresh(), client(OTHER)
    for datagram in shake_hands(server, browser):
        browser.receive(datagram)
    assert server.settled() is server
    server.close()
    for datagram in server.outgoing():
        browser.receive(datagram)
    assert browser.closed


def test_before_the_handshake_nothing_is_settled() -> None:
    server = fresh()
    assert server.settled() is server


def test_nothing_of_openssl_is_held() -> None:
    server, browser = fresh(), client()
    shake_hands(server, browser)
    connection = weakref.ref(server._connection)
    settled = server.settled()
    del server
    gc.collect()
    assert isinstance(settled, Settled)
    assert connection() is None


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_new_certificate_each_day_and_the_old_peers_live_on() -> None:
    """… with their own certificate in what they are answered later: it is the one of their association."""
    clock = _Clock()
    worker = Worker(WorkerSettings(bind="127.0.0.1"), lambda message: None)
    worker._identities = Identities(86_400, clock)
    worker.start()
    peers = [RawPeer() for _ in range(4)]

    def join(number: int) -> str:
        reply = worker.handle(Join(1, "stage", f"p{number}", "o", peers[number].offer, True, False))
        assert reply is not None
        peers[number].take(reply.sdp)
        return peers[number].remote_fingerprint

    async def connect(number: int) -> None:
        """The client side checks that the certificate has the fingerprint of the answer."""
        await peers[number].check()
        await peers[number].handshake()

    try:
        today = join(0)
        await connect(0)
        clock.now = 86_399
        assert join(1) == today
        called = worker.handle(MakeOffer(1))
        assert called is not None
        clock.now = 86_400
        tomorrow = join(2)
        assert tomorrow != today
        await connect(2)
        await connect(1)  # it was answered yesterday, and shakes hands today
        peers[3].take(called.sdp)  # … and this one was called yesterday, and answers today
        worker.handle(Join(1, "stage", "p3", "o", peers[3].offer, True, False, answer_to=called.sdp))
        await connect(3)
        assert peers[3].remote_fingerprint == today
        peers[0].new_credentials()
        assert join(0) == today
        await peers[0].check()  # … with the new credentials of an ICE restart
        await peers[0].packet()
    finally:
        for peer in peers:
            peer.close()
        worker.close()
