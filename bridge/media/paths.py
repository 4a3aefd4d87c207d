"""Where one browser is: ICE-lite (RFC 8445 §2.5), with peer-reflexive candidates only. Any address whose check holds is
one of its paths; the browser nominates the one we send by. What is sent to an address that has not proved that it wants
it ends after a second.
"""

from __future__ import annotations

import secrets
from collections import deque
from typing import TYPE_CHECKING

from bridge.media import stun
from bridge.media.sdp import Offer
from bridge.media.sdp_offer import Offered
from bridge.media.stun import Address

if TYPE_CHECKING:
    from bridge.media.peer import Hub, Peer

_MAX_ADDRESSES = 8  # a peer's checked addresses; the oldest goes first
_UNVERIFIED_S = 1.0  # media to a new address that has not answered our check (decisions 1.10)
_CHECK_EVERY_S = 0.2
_SILENT_S = 3.0  # no check for so long on the path we send by: browsers make one each 2.5 s


class Credentials:
    """Ours and theirs of one ICE generation."""

    __slots__ = ("local_password", "local_ufrag", "remote_password", "remote_ufrag")

    def __init__(self, offer: Offer, worker: int, ours: Offered | None = None) -> None:
        self.local_ufrag = stun.new_ufrag(worker) if ours is None else ours.ufrag
        self.local_password = secrets.token_hex(16) if ours is None else ours.password
        self.remote_ufrag, self.remote_password = offer.ufrag, offer.password


class Paths:
    """Owned by its peer, whose sender's address it sets once the peer is connected. ``address``: where we send;
    ``kind``: "udp" or "tcp" once connected; ``received`` and ``sent``: bytes before the handshake ends."""

    __slots__ = (
        "_addresses",
        "_checked_at",
        "_current",
        "_heard_at",
        "_hub",
        "_moved_at",
        "_nominated",
        "_own_check",
        "_peer",
        "_pending",
        "address",
        "is_verified",
        "kind",
        "received",
        "sent",
    )

    def __init__(self, hub: Hub, peer: Peer, offer: Offer, offered: Offered | None, now: float) -> None:
        """``offered``: it was we who called, with these credentials."""
        self._hub, self._peer = hub, peer
        self.address: Address | None = None
        self.is_verified = False
        self.kind = ""
        self.received = self.sent = 0
        self._addresses: deque[Address] = deque()
        self._nominated = False
        self._moved_at = self._checked_at = 0.0
        self._heard_at = now  # the last check from where we send
        self._own_check: bytes | None = None  # transaction id
        self._current = Credentials(offer, hub.settings.number, offered)
        self._pending: Credentials | None = None  # an ICE restart that no check has used yet
        hub.ufrag_of(self._current.local_ufrag, peer)

    @property
    def credentials(self) -> Credentials:
        """For the answer."""
        return self._pending or self._current

    def restart(self, offer: Offer) -> None:
        """Credentials of a new generation: the old pair goes on until a check with the new ones nominates another
        (RFC 8445 §9)."""
        if self._pending is not None:
            self._hub.ufrag_of(self._pending.local_ufrag, None)
        self._pending = Credentials(offer, self._hub.settings.number)
        self._hub.ufrag_of(self._pending.local_ufrag, self._peer)

    def connect(self, proved: Address | None, now: float) -> None:
        """The handshake has ended; it went to ``proved``, and has proved the way there."""
        assert self.address is not None
        self._peer.sender.address = self.address
        self.is_verified = self.address == proved or _is_stream(self.address)  # TCP's own handshake proves it
        self._note_path()
        if not self.is_verified:
            self._moved_at = now
            self._check_new_address(now)

    def look_after(self, now: float) -> None:
        """Called at least each second while the peer is connected, and each 100 ms while the way is not proved."""
        if self.is_verified:
            self._peer.sender.address = self.address
            return
        if now - self._moved_at > _UNVERIFIED_S:
            self._peer.sender.address = None
        if now - self._checked_at > _CHECK_EVERY_S:
            self._check_new_address(now)

    def close(self) -> None:
        """All addresses and ufrags are forgotten. Harmless twice."""
        for each in (self._current, self._pending):
            if each is not None:
                self._hub.ufrag_of(each.local_ufrag, None)
        for address in self._addresses:
            self._hub.forget_address(address, self._peer)

    # -- checks ------------------------------------------------------------------------------------

    def on_check(self, message: stun.Message, address: Address, now: float) -> bool:
        """A Binding request that names our ufrag. False: it does not hold, and was not answered."""
        credentials = self._credentials(message)
        if credentials is None:
            return False
        password = credentials.local_password.encode()
        if message.controlled:
            self._hub.send(stun.role_conflict(message, password), address)
            return True
        # Chromium nominates up to 2.5 s after it has chosen. In a restart whose old path is dead, any new one will do
        # until then, as at the beginning.
        is_rescue = credentials is self._pending and now - self._heard_at > _SILENT_S
        if credentials is self._pending and (message.use_candidate or is_rescue):
            self._hub.ufrag_of(self._current.local_ufrag, None)
            self._current, self._pending = credentials, None
        self._remember(address)
        response = stun.success(message, address, password)
        self.received += len(message.data)
        self.sent += len(response)
        self._hub.send(response, address)
        if message.use_candidate or is_rescue or (self.address is None and not self._nominated):
            self._move(address, now)
            self._nominated = self._nominated or message.use_candidate
        if address == self.address:
            self._heard_at = now
        return True

    def _credentials(self, message: stun.Message) -> Credentials | None:
        for each in (self._current, self._pending):
            if each is not None and message.username == f"{each.local_ufrag}:{each.remote_ufrag}":
                return each if message.signed_by(each.local_password.encode()) else None
        return None

    def on_response(self, message: stun.Message, address: Address) -> bool:
        """An answer to our own check: the new address wants what we send. False where it is none."""
        if message.transaction != self._own_check or address != self.address:
            return False
        if not message.signed_by(self._current.remote_password.encode()):
            return False
        self.is_verified, self._own_check = True, None
        self._peer.sender.address = address
        return True

    def _remember(self, address: Address) -> None:
        if address not in self._addresses:
            self._addresses.append(address)
            if len(self._addresses) > _MAX_ADDRESSES:
                oldest = next(each for each in self._addresses if each != self.address)
                self._addresses.remove(oldest)
                self._hub.forget_address(oldest, self._peer)
        self._hub.address_of(address, self._peer)

    def _move(self, address: Address, now: float) -> None:
        if address == self.address:
            return
        self.address = address
        if self._peer.is_connected:
            self.is_verified = _is_stream(address)  # TCP's handshake has proved the return path
            self._moved_at = now
            self._peer.sender.address = address  # for _UNVERIFIED_S, then only if it answers
            self._note_path()
            if not self.is_verified:
                self._check_new_address(now)

    def _note_path(self) -> None:
        assert self.address is not None
        before, self.kind = self.kind, "tcp" if _is_stream(self.address) else "udp"
        if before not in ("", self.kind):
            self._hub.moved(self.kind)

    def lost(self, address: Address) -> None:
        """A TCP connection has closed: its candidate pair is gone, and the next check that holds brings another.
        Until then the silence rules count."""
        if address in self._addresses:
            self._addresses.remove(address)
        self._hub.forget_address(address, self._peer)
        if address == self.address:
            self.address = self._peer.sender.address = None
            self._nominated = False

    def _check_new_address(self, now: float) -> None:
        assert self.address is not None
        self._hub.hurry(self._peer)
        username = f"{self._current.remote_ufrag}:{self._current.local_ufrag}"
        check = stun.binding_request(username, self._current.remote_password.encode())
        self._own_check, self._checked_at = check[8:20], now
        self._hub.send(check, self.address)


def _is_stream(address: Address) -> bool:
    return len(address) == 3
