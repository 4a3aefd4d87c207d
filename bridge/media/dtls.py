"""DTLS-SRTP on memory buffers: datagrams in, datagrams out, no socket, no task (RFC 6347, RFC 5764).

We are always the server (``a=setup:passive``). The other side's certificate must have one of the
fingerprints of its SDP, or the handshake fails (RFC 8122 §6.2).
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pylibsrtp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL, crypto

from bridge.media.records import ALERT, HANDSHAKE, HEAD, ServerRecords, is_end, split

MTU = 1200
_MAX_DATA = 2048  # bytes of application data in one record; SCTP's packets are as small as ours
_CIPHERS = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES256-GCM-SHA384:"
    b"ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA"
)
DIGESTS = ("sha-256", "sha-384", "sha-512")
"""Hash functions of fingerprints we take; MD5 and SHA-1 are broken (RFC 8122 §5)."""

Fingerprints = frozenset[tuple[str, str]]
"""(hash function, upper-case hexadecimal with colons)."""


@dataclass(frozen=True, slots=True)
class Profile:
    """RFC 5764 §4.1.2 and RFC 7714 §14.2; sizes in bytes."""

    name: str
    libsrtp: int
    key: int
    salt: int


PROFILES = (
    # GCM first: AES_CM_128_HMAC_SHA1_80 costs several times as much for each packet (performance.md).
    Profile("SRTP_AEAD_AES_128_GCM", pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_128_GCM, 16, 12),
    Profile("SRTP_AES128_CM_SHA1_80", pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_80, 16, 14),
)


@dataclass(frozen=True, slots=True)
class Keys:
    """Master key and salt, one after the other, for what comes in and what goes out."""

    profile: Profile
    incoming: bytes
    outgoing: bytes


def fingerprint_of(certificate: x509.Certificate, digest: str) -> str:
    """As SDP has it: hexadecimal bytes with colons. ``digest`` is one of DIGESTS."""
    der = certificate.public_bytes(serialization.Encoding.DER)
    return hashlib.new(digest.replace("-", ""), der).digest().hex(":").upper()


class Identity:
    """A worker's certificate (ECDSA P-256) and the context every association of it is made from."""

    def __init__(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, secrets.token_hex(4))])
        now = datetime.datetime.now(tz=datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=365))
            .sign(key, hashes.SHA256())
        )
        self.fingerprint = fingerprint_of(certificate, "sha-256")
        context = SSL.Context(SSL.DTLS_METHOD)
        context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # 32 KiB a peer that are used for the handshake alone
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _has_fingerprint)
        context.use_certificate(certificate)
        context.use_privatekey(key)
        context.set_cipher_list(_CIPHERS)
        context.set_tlsext_use_srtp(":".join(each.name for each in PROFILES).encode())
        self.context = context


class Identities:
    """A worker's identity of now: a new one after ``every_s`` seconds. Associations keep the one that they began with,
    and answers to their peers must say its fingerprint."""

    def __init__(self, every_s: float, clock: Callable[[], float]) -> None:
        """``clock``: monotonic, in seconds."""
        self._every_s, self._clock = every_s, clock
        self._identity, self._since = Identity(), clock()
        self._before: Identity | None = None

    @property
    def current(self) -> Identity:
        """Making one takes about a millisecond."""
        now = self._clock()
        if now - self._since >= self._every_s:
            self._before, self._identity, self._since = self._identity, Identity(), now
        return self._identity

    def of(self, fingerprint: str) -> Identity:
        """The one with that SHA-256 fingerprint, which an offer of ours may have said before the last change; else that
        of now, with which the handshake will fail."""
        now = self.current
        before = self._before
        return before if before is not None and before.fingerprint == fingerprint else now


def _has_fingerprint(connection: SSL.Connection, cert: crypto.X509, error: int, depth: int, ok: int) -> bool:
    wanted = connection.get_app_data()
    certificate = cert.to_cryptography()
    return depth == 0 and any(fingerprint_of(certificate, digest) == value for digest, value in wanted)


class Association:
    """One DTLS association. ``receive`` takes a datagram; after it, ``outgoing`` gives what to send.

    ``keys`` is set once the handshake is done; ``closed`` once either side has ended it or it failed."""

    def __init__(self, identity: Identity, fingerprints: Fingerprints) -> None:
        self._connection = SSL.Connection(identity.context, None)
        self._connection.set_app_data(fingerprints)
        self._connection.set_ciphertext_mtu(MTU)
        self._connection.set_accept_state()
        self.keys: Keys | None = None
        self.closed = False
        self.failure = ""
        self._flight = b""  # what we sent last

    def receive(self, datagram: bytes) -> Sequence[bytes]:
        """The application data in it. Never raises: a record that does not fit is dropped by DTLS itself (RFC 6347
        §4.1.2.7)."""
        found: list[bytes] = []
        if self.closed:
            return found
        try:
            self._connection.bio_write(datagram)
            if self.keys is None:
                self._connection.do_handshake()
                self._take_keys()
            while True:
                found.append(self._connection.recv(_MAX_DATA))
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self.closed = True
        except SSL.Error as error:
            self.failure, self.closed = _text_of(error), True
        return found

    def send(self, data: bytes) -> None:
        """Application data, of at most MTU bytes; ``outgoing`` gives the record. Dropped where there are no keys."""
        if self.keys is not None and not self.closed:
            with contextlib.suppress(SSL.Error):
                self._connection.send(data)

    def _take_keys(self) -> None:
        name = self._connection.get_selected_srtp_profile().decode()
        profile = next((each for each in PROFILES if each.name == name), None)
        if profile is None:
            self.failure, self.closed = "no SRTP profile in common", True
            return
        key, salt = profile.key, profile.salt
        secret = self._connection.export_keying_material(b"EXTRACTOR-dtls_srtp", 2 * (key + salt))  # RFC 5764 §4.2
        salts = secret[2 * key :]
        self.keys = Keys(profile, secret[:key] + salts[:salt], secret[key : 2 * key] + salts[salt:])

    def outgoing(self) -> Iterator[bytes]:
        """Datagrams to send now. OpenSSL writes a flight as one string of records: it is cut between records."""
        try:
            flight = self._connection.bio_read(1 << 16)
        except SSL.Error:
            return
        self._flight = flight
        start = at = 0
        while at + HEAD <= len(flight):
            end = at + HEAD + int.from_bytes(flight[at + 11 : at + 13], "big")
            if end - start > MTU and at > start:
                yield flight[start:at]
                start = at
            at = end
        if start < len(flight):
            yield flight[start:]

    def retransmit(self) -> None:
        """Let the retransmission timer act if it has run out (RFC 6347 §4.2.4)."""
        if self.keys is None and not self.closed and self._connection.DTLSv1_get_timeout() == 0:
            try:
                self._connection.DTLSv1_handle_timeout()
            except SSL.Error as error:
                self.failure, self.closed = _text_of(error), True

    def settled(self) -> Association | Settled:
        """What goes on in our place now that the handshake is done and its last flight was read from ``outgoing``:
        a `Settled`, or ourselves where only OpenSSL knows these records. Not for one that carries data channels:
        a `Settled` drops application data."""
        cipher = self._connection.get_cipher_name() or ""
        if self.keys is None or self.closed or not cipher.endswith("ECDSA-AES128-GCM-SHA256"):
            return self
        master, theirs, ours = (
            self._connection.master_key(),
            self._connection.client_random(),
            self._connection.server_random(),
        )
        if master is None or theirs is None or ours is None:
            return self
        try:
            return Settled(self.keys, ServerRecords(master, theirs, ours, self._flight), self._flight)
        except ValueError:
            return self

    def close(self) -> None:
        """Write close_notify (``outgoing`` gives it). Harmless twice."""
        if not self.closed and self.keys is not None:
            with contextlib.suppress(SSL.Error):
                self._connection.shutdown()
        self.closed = True


class Settled:
    """An `Association` of which the handshake is done, as its server: the same calls, a kilobyte instead of 70."""

    __slots__ = ("_flight", "_outgoing", "_records", "closed", "failure", "keys")

    def __init__(self, keys: Keys, records: ServerRecords, last_flight: bytes) -> None:
        self.keys: Keys | None = keys
        self.closed = False
        self.failure = ""
        self._records, self._flight = records, last_flight
        self._outgoing: tuple[bytes, ...] = ()

    def receive(self, datagram: bytes) -> Sequence[bytes]:
        """No application data, whatever comes. Never raises. Handshake messages here are the other side's last flight:
        it did not get ours, which goes out once more (RFC 6347 §4.2.4)."""
        if self.closed:
            return ()
        for record in split(datagram):
            content = self._records.read(record)
            if content is None:
                continue
            if record.kind == ALERT and is_end(content):
                self.closed, self._outgoing = True, ()
                return ()
            if record.kind == HANDSHAKE:
                self._outgoing = (self._flight,)
        return ()

    def send(self, data: bytes) -> None:
        """Nothing: who carries data channels is not settled."""

    def outgoing(self) -> Iterator[bytes]:
        """Datagrams to send now."""
        ready, self._outgoing = self._outgoing, ()
        yield from ready

    def retransmit(self) -> None:
        """Nothing waits for an answer any more."""

    def settled(self) -> Settled:
        return self

    def close(self) -> None:
        """Write close_notify (``outgoing`` gives it). Harmless twice."""
        if not self.closed:
            self._outgoing = (self._records.close_notify(),)
        self.closed = True


def _text_of(error: SSL.Error) -> str:
    """pyOpenSSL gives a list of (library, function, reason), or (number, text) where OpenSSL left no reason."""
    match error.args:
        case ([*reasons],):
            return "; ".join(str(each[-1]) for each in reasons)
        case (_, str(text)):
            return text
    return type(error).__name__
