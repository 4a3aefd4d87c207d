"""What is fuzzed: one function of bytes for each protocol that strangers or peers speak to us.

A target raises only where there is a defect. Its seeds are captures (``captures/``, made by ``python -m tests.fuzz
capture`` from a real Chromium, aiortc and our own raw peer) and the offers that the SDP tests use.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from google_crc32c import value as crc32c

from bridge.errors import BadInput
from bridge.media import control, front, opus, rtcp, rtp, sdp, stun, tcp
from bridge.media.data import DataChannels
from bridge.media.dtls import Association, Identity
from bridge.web import messages, whep
from tests.fuzz.stage import Stage

HERE = Path(__file__).parent
OFFERS = HERE.parent / "media" / "offers"
Run = Callable[[bytes], object]


@dataclass(frozen=True)
class Target:
    """``make`` is called inside a running loop; what it gives is called outside of any task of it."""

    name: str
    make: Callable[[], Run]
    seeds: Sequence[bytes]
    words: Sequence[bytes] = field(default=())


def captures(name: str) -> list[bytes]:
    """Datagrams, one a line in hexadecimal."""
    return [bytes.fromhex(line) for line in (HERE / "captures" / f"{name}.hex").read_text().split()]


def crashes(name: str) -> list[bytes]:
    """Inputs that once were too much."""
    return [each.read_bytes() for each in sorted((HERE / "crashes" / name).glob("*"))]


# -- datagrams ----------------------------------------------------------------------------------


def _stun(data: bytes) -> None:
    message = stun.parse(data)
    if message is not None:
        message.signed_by(b"password")
        stun.success(message, ("192.0.2.1", 9), b"password")
        stun.role_conflict(message, b"password")


def _rtp(data: bytes) -> None:
    for level_id in (0, 1):
        packet = rtp.parse(data, level_id)
        assert packet is None or packet.level is None or 0 <= packet.level <= 127
    rtcp.parse(data)
    if len(data) >= 12:
        rtp.ssrc_of(data)


def _front(data: bytes) -> None:
    found = front.destination(data) if data else None
    if isinstance(found, front.More):
        assert len(data) < found.bytes <= 2 + stun.MAX_SIZE


def _red(data: bytes) -> None:
    blocks = rtp.unpack_red(data)
    assert blocks is None or sum(len(each.payload) for each in blocks) <= len(data)


def _on_stage(use: Callable[[Stage], Run]) -> Callable[[], Run]:
    def make() -> Run:
        return use(_stage())

    return make


_stages: list[Stage] = []


def _stage() -> Stage:
    assert _stages, "prepare() comes first"
    return _stages[0]


async def prepare() -> None:
    """The worker that the targets share."""
    if not _stages:
        _stages.append(await Stage.make())


def finish() -> None:
    """Harmless twice."""
    while _stages:
        _stages.pop().close()


def _dtls() -> Run:
    """A stranger's first flight, and records that reach a peer whose handshake is done."""
    identity, stage = Identity(), _stage()
    fingerprints = frozenset({("sha-256", "AB:" * 31 + "AB")})

    def run(data: bytes) -> None:
        association = Association(identity, fingerprints)
        half = len(data) // 2
        for each in (data, data[:half], data[half:]):
            association.receive(each)
            association.retransmit()
            sent = list(association.outgoing())
            assert all(len(each) <= 4 * 1200 for each in sent)
        association.close()
        stage.datagram(b"\x17" + data[1:])
        assert stage.peer.is_connected

    return run


def _framing() -> Run:
    """RFC 4571: the bytes of a connection, cut anywhere; half of them from one whose check held."""
    loop = asyncio.get_event_loop()
    streams = tcp.Streams("127.0.0.1", 0, set(), 1000)
    got: list[bytes] = []
    streams.start(lambda datagram, address: got.append(datagram), lambda address: None)
    numbers = iter(range(1, 1 << 62))

    def run(data: bytes) -> None:
        ours, theirs = socket.socketpair()
        address = ("127.0.0.1", 9, next(numbers))
        stream = tcp._Stream(ours, address)
        streams._streams[address[2]] = streams._waiting[address[2]] = stream
        stream.deadline = loop.call_later(tcp.FIRST_CHECK_S, streams._refuse, stream)
        if data[:1] > b"\x7f":
            streams.keep(address)
        step = 1 + (data[-1] if data else 0)
        for at in range(1, len(data), step):
            if stream.is_closed:
                break
            stream.buffer += data[at : at + step]
            streams._take_frames(stream)
        assert len(stream.buffer) <= tcp._MAX_FRAME + 2 + step
        assert all(len(each) <= tcp._MAX_FRAME for each in got)
        got.clear()
        streams._close(stream)
        theirs.close()
        assert len(streams) == 0

    return run


def _sctp() -> Run:
    """What is authentic, of a client that offered data channels; the tag is right, which it would know."""
    sent: list[bytes] = []
    live: list[DataChannels] = []
    seconds = itertools.count()

    def run(data: bytes) -> None:
        if not live or not live[0].is_open:
            live[:] = [DataChannels(5000, 65_536, sent.append, lambda label, message: None)]
        channels = live[0]
        tag = channels._sctp._local_verification_tag.to_bytes(4, "big")
        packet = data[:4] + (bytes(4) if data[12:13] == b"\x01" else tag) + bytes(4) + data[12:]
        channels.receive(packet[:8] + struct.pack("<I", crc32c(packet)) + packet[12:], float(next(seconds)))
        sent.clear()

    return run


# -- payloads and texts -------------------------------------------------------------------------


def _opus() -> Run:
    decoder = opus.Decoder()

    def run(data: bytes) -> None:
        samples = opus.samples_in(data)
        assert 0 <= samples <= opus.MAX_SAMPLES
        for decode in (decoder.decode, lambda packet: decoder.recover(packet, 960)):
            with contextlib.suppress(opus.OpusError):
                assert len(decode(data)) <= opus.MAX_SAMPLES

    return run


_OURS = sdp.Ours(4242, "name", "ours", "p" * 24, ":".join(["AB"] * 32), ("192.0.2.7",), 40_000, 443)


def _sdp(data: bytes) -> None:
    try:
        offer = sdp.parse(data.decode("utf-8", "replace"))
    except BadInput:
        return
    answer = sdp.answer(offer, _OURS, 1, 2)
    lines = answer.removesuffix("\r\n").split("\r\n")
    assert all(line[:1].isalpha() and line[1:2] == "=" and "\n" not in line for line in lines), "one line more"


_OFFER = (OFFERS / "gstreamer-whip.sdp").read_text()


def _trickle(data: bytes) -> None:
    with contextlib.suppress(BadInput):
        offer = whep.restarted(_OFFER, data.decode("utf-8", "replace"))
        if offer is not None:
            sdp.answer(sdp.parse(offer), _OURS, 1, 2)


def _control(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        control.decode(data)


def _page(data: bytes) -> None:
    try:
        frame = json.loads(data)
    except (ValueError, RecursionError):
        return
    for decode in (messages.decode, messages.decode_open):
        with contextlib.suppress(BadInput):
            decode(frame)


def _framed(datagrams: Sequence[bytes]) -> list[bytes]:
    whole = [b"\xff" + b"".join(len(each).to_bytes(2, "big") + each for each in datagrams[:3]) + b"\x40"]
    return whole + [
        bytes((kind,)) + len(each).to_bytes(2, "big") + each + b"\x09" for each in datagrams for kind in (0, 255)
    ]


def _doubled(packet: bytes) -> bytes:
    """As RED of payload type 63 (RFC 2198), with its own sound twice."""
    found = rtp.parse(packet)
    sound = found.payload if found is not None else b""
    head = packet[: len(packet) - len(sound)]
    return head[:1] + bytes((head[1] & 0x80 | 63,)) + head[2:] + rtp.pack_red(111, sound, sound[: rtp.MAX_COPY], 960)


_FRAGMENT = (
    b"a=ice-ufrag:abcd\r\na=ice-pwd:0123456789abcdef01234567\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n"
    + (b"a=candidate:1 1 udp 2122260223 192.0.2.9 40000 typ host\r\na=end-of-candidates\r\n")
)
_CONTROL: list[control.Message] = [
    control.Join(1, "stage", "peer", "@ava:example.org", "v=0", True, False),
    control.Gate(2, "peer", False, True),
    control.Start(control.WorkerSettings(announce=("192.0.2.1",))),
    control.Reply(1, None, "v=0", 7),
    control.Frames("stage", 7, ("AAAA",)),
]
_PAGE = [
    b'{"t":"hello","session":"session1.x","lang":"fa"}',
    b'{"t":"offer","id":1,"sdp":"v=0"}',
    b'{"t":"act","id":2,"act":"mute","user":"@ben:example.org","text":"x"}',
    b'{"t":"raise_hand","id":3,"raised":true,"note":"x"}',
    b'{"link":"link1.x","device":"d","guest":null}',
]
_JSON_WORDS = [b'"t"', b"null", b"{", b"[", b"1e999", b'"\\ud800"', b"-1", b"true"]
_SDP_WORDS = [
    *(b"\r\na=" + each for each in (
        b"group:BUNDLE ", b"mid:", b"rtpmap:111 opus/48000/2", b"extmap:", b"setup:", b"fingerprint:sha-256 ", b"fmtp:",
        b"ice-ufrag:", b"ice-pwd:", b"maxptime:", b"sctp-port:5000", b"max-message-size:",
        b"candidate:1 1 tcp 1 192.0.2.1 9 typ host tcptype active",
    )),
    b"\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111", b"\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel",
    "²".encode(), "\u2028".encode(), b"\x0b", b"\x85", b"9" * 50, b"\0",
]  # fmt: skip


def targets() -> dict[str, Target]:
    """By name. Reads the captures."""
    checks, flights, protected = captures("stun"), captures("dtls"), captures("srtp")
    clear, reports = captures("rtp"), captures("rtcp")
    payloads = [packet.payload for each in clear if (packet := rtp.parse(each)) is not None and packet.payload]
    offers = [each.read_bytes() for each in sorted(OFFERS.glob("*.sdp"))]
    made = [
        Target("stun", lambda: _stun, checks),
        Target("check", _on_stage(lambda stage: stage.check), [each[20:-32] for each in checks]),
        Target("dtls", _dtls, flights),
        Target("sctp", _sctp, captures("sctp")),
        Target("srtp", _on_stage(lambda stage: stage.datagram), protected + reports + checks + flights),
        Target("rtp", lambda: _rtp, clear + reports),
        Target("authentic rtp", _on_stage(lambda stage: stage.rtp), clear + [_doubled(each) for each in clear]),
        Target("authentic rtcp", _on_stage(lambda stage: stage.rtcp), reports),
        Target("red", lambda: _red, [rtp.pack_red(111, each, each, 2880) for each in payloads]),
        Target("opus", _opus, payloads),
        Target("sdp", lambda: _sdp, offers, _SDP_WORDS),
        Target("trickle", lambda: _trickle, [_FRAGMENT], _SDP_WORDS),
        Target("front", lambda: _front, [b"\x16\x03\x01\x02", *(each[1:] for each in _framed(checks + flights))]),
        Target("framing", _framing, _framed(checks + flights)),
        Target("control", lambda: _control, [control.encode(each)[4:] for each in _CONTROL], _JSON_WORDS),
        Target("page", lambda: _page, _PAGE, _JSON_WORDS),
    ]
    return {each.name.replace(" ", "-"): each for each in made}
