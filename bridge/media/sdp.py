"""SDP offers and our answers (RFC 8829, RFC 9143 BUNDLE, RFC 8839 ICE, RFC 7587 Opus).

An offer is read into the few values that matter and answered for the first audio section that takes sound: Opus
alone, ICE-lite, DTLS passive, one bundled transport with rtcp-mux. Where that section brings none, the first one that
does is answered too: LiveKit's clients hear and speak in sections apart. Every other section is answered inactive
where it is bundled (rejecting the section that carries the bundle would end it in Chromium), else
rejected. Candidates of the offer are not looked at: checks from any address will tell (peer-reflexive).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bridge.errors import BadInput
from bridge.media import rtp
from bridge.media.dtls import DIGESTS, Fingerprints

MAX_OFFER = 64 * 1024
"""Bytes."""
SCTP_PORT, SCTP_MAX_MESSAGE = 5000, 64 * 1024
"""Ours of data channels, in bytes the second."""
_MAX_SECTIONS = 64
_MAX_LINES = 4000
_DATA_PROFILES = ("UDP/DTLS/SCTP", "TCP/DTLS/SCTP")
_ANSWERED_EXTENSIONS = (rtp.AUDIO_LEVEL, rtp.CSRC_AUDIO_LEVEL, rtp.MID)
_EVENTS = ("telephone-event/48000", "telephone-event/8000")
_DIRECTIONS = {"sendrecv": "sendrecv", "recvonly": "sendonly", "sendonly": "recvonly", "inactive": "inactive"}
_FINGERPRINT = re.compile(r"[0-9A-F]{2}(:[0-9A-F]{2}){31,63}\Z")
_MEDIA = re.compile(r"(?P<kind>[a-z]+) (?P<port>\d+)(/\d+)? (?P<profile>[A-Z/]+) (?P<formats>\S+( \S+)*)\Z")
_ICE_CHARS = re.compile(r"[A-Za-z0-9+/]{4,256}\Z")
_MID = re.compile(r"[!-~]{1,64}\Z")


@dataclass(slots=True)
class Section:
    """One m-line with its attributes, as written: name → values in order."""

    kind: str
    port: int
    profile: str
    formats: list[str]
    attributes: dict[str, list[str]] = field(default_factory=dict)

    def one(self, name: str) -> str | None:
        values = self.attributes.get(name)
        return values[0] if values else None

    @property
    def mid(self) -> str | None:
        return self.one("mid")

    @property
    def direction(self) -> str:
        """The offerer's (RFC 8866 §6.7)."""
        return next((each for each in _DIRECTIONS if each in self.attributes), "sendrecv")


@dataclass(frozen=True, slots=True)
class DataOffer:
    """An application section of RFC 8841: ``port`` is SCTP's, ``max_message`` in bytes."""

    section: int
    port: int
    max_message: int


@dataclass(frozen=True, slots=True)
class Offer:
    """What of an offer matters. ``direction`` is ours, the answer's; ``payload_type`` that of Opus."""

    session: str  # from o=: the same for every offer of one peer connection (RFC 8829 §5.2.2)
    ufrag: str
    password: str
    fingerprints: Fingerprints
    payload_type: int
    red: int  # payload type of redundancy around it (RFC 2198), 0 where it was not offered
    max_ptime: int  # ms of sound that a packet to them may hold (RFC 8866 §6.4); we never go below 20
    direction: str
    extensions: Mapping[str, tuple[int, str]]  # URI → (id, the offered direction or "")
    audio: int  # which section takes our sound
    voice: int  # which section brings theirs; the same where one does both, or none
    data: DataOffer | None  # data channels
    sections: Sequence[Section]
    bundled: Sequence[str]  # mids
    events: frozenset[int] = frozenset()  # payload types of a telephone's keys (RFC 4733)

    def extension(self, uri: str) -> int:
        """The id of a header extension, 0 where it was not offered."""
        return self.extensions.get(uri, (0, ""))[0]


def parse(text: object) -> Offer:
    """An SDP offer. Raises BadInput naming the attribute in fault."""
    if not isinstance(text, str) or not text.startswith("v=0"):
        raise BadInput("offer", text, "send an SDP offer, which begins with v=0")
    if len(text) > MAX_OFFER or len(text.encode("utf-8", "replace")) > MAX_OFFER:
        raise BadInput("offer", f"{len(text)} characters", "an offer may have 64 KiB at most")
    session, origin, sections = _split(text)
    number = _first(sections, ("sendrecv", "recvonly"))
    number = _first(sections, tuple(_DIRECTIONS)) if number is None else number
    if number is None:
        raise BadInput("offer m=audio", None, "offer at least one audio section")
    audio = sections[number]
    bundled = _bundle(session, audio)
    if "rtcp-mux" not in audio.attributes:
        raise BadInput("offer a=rtcp-mux", None, "offer rtcp-mux: there is one port for all (RFC 8834 §4.5)")
    voice = _first(sections, ("sendrecv", "sendonly")) if audio.direction == "recvonly" else None
    carriers = [audio.attributes, session, *(each.attributes for each in sections if each.mid in bundled[:1])]
    opus = _opus(audio)
    setup = _found(carriers, "setup", ["actpass"])[0]
    if setup not in ("actpass", "active"):
        raise BadInput("offer a=setup", setup, "use actpass: we are the DTLS server (RFC 8842 §5.2)")
    return Offer(
        session=origin,
        ufrag=_ice(carriers, "ice-ufrag", 4),
        password=_ice(carriers, "ice-pwd", 22),
        fingerprints=_fingerprints(_found(carriers, "fingerprint", [])),
        payload_type=opus,
        red=_red(audio, opus),
        max_ptime=_max_ptime(audio.one("maxptime")),
        direction=_DIRECTIONS[audio.direction],
        extensions=_extensions(audio),
        audio=number,
        voice=number if voice is None or sections[voice].mid not in bundled else voice,
        data=_data_offer(sections, bundled),
        sections=sections,
        bundled=bundled,
        events=_events(sections[number if voice is None else voice]),
    )


def _split(text: str) -> tuple[dict[str, list[str]], str, list[Section]]:
    lines = text.splitlines()
    if len(lines) > _MAX_LINES:
        raise BadInput("offer", f"{len(lines)} lines", f"an offer may have {_MAX_LINES} lines at most")
    session: dict[str, list[str]] = {}
    origin = ""
    sections: list[Section] = []
    for line in lines:
        if line.startswith("m="):
            match = _MEDIA.match(line[2:].strip())
            if match is None or len(sections) == _MAX_SECTIONS:
                raise BadInput("offer m=", line, f"give '<media> <port> <proto> <formats>', {_MAX_SECTIONS} at most")
            port = _number(match["port"], 65535) or 0
            sections.append(Section(match["kind"], port, match["profile"], match["formats"].split()))
        elif line.startswith("a="):
            name, _, value = line[2:].strip().partition(":")
            into = sections[-1].attributes if sections else session
            into.setdefault(name, []).append(value)
        elif line.startswith("o="):
            origin = line.split()[1] if len(line.split()) > 1 else ""
    return session, origin, sections


def _number(text: str, highest: int) -> int | None:
    """A number as SDP writes it: ASCII digits, five at most. None for anything else, and beyond ``highest``."""
    value = int(text) if re.fullmatch(r"[0-9]{1,5}", text) else None
    return value if value is not None and value <= highest else None


def _first(sections: Sequence[Section], directions: Sequence[str]) -> int | None:
    """The first audio section with one of these directions."""
    found = (i for i, each in enumerate(sections) if each.kind == "audio" and each.direction in directions)
    return next(found, None)


def _bundle(session: Mapping[str, list[str]], audio: Section) -> list[str]:
    for group in session.get("group", []):
        tag, *mids = group.split() or [""]
        if tag == "BUNDLE" and audio.mid in mids:
            for mid in mids:
                if not _MID.match(mid):
                    raise BadInput("offer a=group", mid, "a mid has 1 to 64 visible characters")
            return mids
    return []


def _found(carriers: Sequence[Mapping[str, list[str]]], name: str, otherwise: list[str]) -> list[str]:
    return next((each[name] for each in carriers if each.get(name)), otherwise)


def _ice(carriers: Sequence[Mapping[str, list[str]]], name: str, shortest: int) -> str:
    value = _found(carriers, name, [""])[0]
    if len(value) < shortest or not _ICE_CHARS.match(value):
        raise BadInput(f"offer a={name}", value, f"give {shortest} to 256 ICE characters (RFC 8839 §5.4)")
    return value


def _fingerprints(values: Sequence[str]) -> Fingerprints:
    found = set()
    for value in values:
        digest, _, hexadecimal = value.partition(" ")
        if digest.lower() in DIGESTS and _FINGERPRINT.match(hexadecimal.strip().upper()):
            found.add((digest.lower(), hexadecimal.strip().upper()))
    if not found:
        raise BadInput("offer a=fingerprint", values[0] if values else None, "give one by " + ", ".join(DIGESTS))
    return frozenset(found)


def _payload_types(audio: Section, codec: str) -> list[int]:
    found = []
    for value in audio.attributes.get("rtpmap", []):
        number, _, name = value.partition(" ")
        kind = _number(number, 127)
        usable = kind is not None and not 64 <= kind < 96  # RFC 5761 §4
        if kind is not None and usable and number in audio.formats and name.strip().lower() == codec:
            found.append(kind)
    return found


def _opus(audio: Section) -> int:
    for kind in _payload_types(audio, "opus/48000/2"):
        return kind
    raise BadInput("offer a=rtpmap", audio.attributes.get("rtpmap", [None])[0], "offer opus/48000/2 (RFC 7587)")


def _events(audio: Section) -> frozenset[int]:
    named = (value.lower().split(" ", 1) for value in audio.attributes.get("rtpmap", []) if " " in value)
    kinds = (_number(number, 127) for number, name in named if name.strip() in _EVENTS and number in audio.formats)
    return frozenset(kind for kind in kinds if kind is not None)


def _red(audio: Section, opus: int) -> int:
    """The payload type of redundancy around Opus, two blocks at least; 0 where there is none."""
    for kind in _payload_types(audio, "red/48000/2"):
        wanted = [each.split(" ", 1)[1] for each in audio.attributes.get("fmtp", []) if each.startswith(f"{kind} ")]
        blocks = wanted[0].strip().split("/") if wanted else []
        if kind != opus and len(blocks) > 1 and set(blocks) == {str(opus)}:
            return kind
    return 0


def _max_ptime(value: str | None) -> int:
    """RFC 7587 §6.1: 120 ms where nothing is said; what is no number says nothing."""
    given = _number((value or "").strip(), 99_999)
    return 120 if given is None else given


def _data_offer(sections: Sequence[Section], bundled: Sequence[str]) -> DataOffer | None:
    """The first bundled section of data channels. An older form of them, or one rejected before, is none."""
    for index, section in enumerate(sections):
        port = _number(section.one("sctp-port") or "", 65535)
        is_known = section.kind == "application" and section.formats == ["webrtc-datachannel"]
        if (
            is_known
            and section.profile in _DATA_PROFILES
            and section.mid is not None
            and section.mid in bundled
            and port
        ):
            return DataOffer(index, port, _max_message(section.one("max-message-size") or ""))
    return None


def _max_message(text: str) -> int:
    """RFC 8841 §6.1: 64 kB where nothing is said; 0 is any size, and no more than that is ever sent."""
    return int(text) if re.fullmatch(r"[1-9][0-9]{0,9}", text) else 65_536


def _extensions(audio: Section) -> dict[str, tuple[int, str]]:
    found: dict[str, tuple[int, str]] = {}
    for value in audio.attributes.get("extmap", []):
        number, _, uri = value.partition(" ")
        number, _, direction = number.partition("/")
        uri = uri.split(" ")[0]
        identifier = _number(number, 14)  # one-byte form, RFC 8285
        if uri in _ANSWERED_EXTENSIONS and identifier:
            found.setdefault(uri, (identifier, direction))
    return found


# -- the answer ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ours:
    """What is ours in an answer: an SSRC, ICE credentials, the worker's fingerprint and candidates."""

    ssrc: int
    cname: str
    ufrag: str
    password: str
    fingerprint: str
    addresses: Sequence[str]
    port: int
    tcp_port: int = 0  # 0: no TCP candidates
    data: bool = False  # whether data channels are accepted
    music: bool = False  # we send stereo, and take it (RFC 7587 §6.1)


def answer(offer: Offer, ours: Ours, session: int, version: int) -> str:
    """The SDP of our answer; ``session`` and ``version`` go into its o= line (RFC 8829 §5.3.1)."""
    lines = ["v=0", f"o=- {session} {version} IN IP4 127.0.0.1", "s=-", "t=0 0", "a=ice-lite"]
    audio = offer.sections[offer.audio]
    data = offer.sections[offer.data.section] if offer.data is not None and ours.data else None
    kept = [each for each in offer.sections if each is audio or each is data or _stays(offer, each)]
    mids = [each.mid for each in kept if each.mid in offer.bundled]
    if mids:
        order = [mid for mid in offer.bundled if mid in mids]
        lines.append("a=group:BUNDLE " + " ".join(order))
    lines.append("a=msid-semantic: WMS eyvan")
    for section in offer.sections:
        if section is audio:
            lines += _audio(offer, ours, section)
        elif section is offer.sections[offer.voice]:
            lines += _voice(offer, ours, section)
        elif section is data:
            lines += _data(offer, ours, section)
        elif section in kept:
            lines += _inactive(offer, ours, section)
        else:
            lines += [f"m={section.kind} 0 {section.profile} {' '.join(section.formats)}", "c=IN IP4 0.0.0.0"]
            lines += [f"a=mid:{section.mid}"] if section.mid else []
    return "\r\n".join(lines) + "\r\n"


def _stays(offer: Offer, section: Section) -> bool:
    return section.kind in ("audio", "video") and section.mid is not None and section.mid in offer.bundled


def _transport(offer: Offer, ours: Ours) -> list[str]:
    lines = []
    for index, address in enumerate(ours.addresses):
        # RFC 8445 §5.1.2: type preference 126 (host), local preference falls with the order, component 1.
        priority = 126 << 24 | (65535 - index) << 8 | 255
        lines.append(f"a=candidate:{index + 1} 1 udp {priority} {address} {ours.port} typ host")
    for index, address in enumerate(ours.addresses if ours.tcp_port else ()):
        # RFC 6544 §4.2: a lower type preference than UDP's; local preference: direction passive (4), then the order.
        priority = 90 << 24 | (4 << 13 | 8191 - index) << 8 | 255
        foundation = len(ours.addresses) + index + 1
        lines.append(f"a=candidate:{foundation} 1 tcp {priority} {address} {ours.tcp_port} typ host tcptype passive")
    return [
        *lines,
        "a=end-of-candidates",
        f"a=ice-ufrag:{ours.ufrag}",
        f"a=ice-pwd:{ours.password}",
        f"a=fingerprint:sha-256 {ours.fingerprint}",
        "a=setup:passive",
        "a=rtcp-mux",
    ]


def _head(ours: Ours, section: Section, formats: str) -> list[str]:
    family = "IP6" if ":" in ours.addresses[0] else "IP4"
    lines = [f"m={section.kind} {ours.port} {section.profile} {formats}", f"c=IN {family} {ours.addresses[0]}"]
    return lines + ([f"a=mid:{section.mid}"] if section.mid and _MID.match(section.mid) else [])


_MUSIC = "stereo=1;sprop-stereo=1;maxaveragebitrate=128000"
"""Browsers send one channel at 32 kbit/s unless they are asked for more. Music is never taken for silence: no DTX."""


def opus_section(offer: Offer, ours: Ours, section: Section, direction: str) -> list[str]:
    """The lines of a section of sound; ``direction`` is ours."""
    opus, red = offer.payload_type, offer.red
    # First what they shall send: copies, as all the listeners hear what a speaker's link loses (RFC 8829 §5.3.1).
    formats = [str(each) for each in ((red, opus) if direction in ("sendrecv", "recvonly") else (opus, red)) if each]
    extensions = []
    for uri, (number, offered) in _extensions(section).items():
        mine = {"sendonly": "/recvonly", "recvonly": "/sendonly", "inactive": "/inactive"}.get(offered, "")
        extensions.append(f"a=extmap:{number}{mine} {uri}")
    keys = sorted(offer.events & _events(section))  # clients send keys by the clock rate of the codec in use, or 8000
    return [
        *_head(ours, section, " ".join([*formats, *map(str, keys)])),
        *_transport(offer, ours),
        *extensions,
        f"a={direction}",
        f"a=rtpmap:{opus} opus/48000/2",
        f"a=fmtp:{opus} minptime=10;useinbandfec=1;{_MUSIC if ours.music else 'usedtx=1'}",
        *([f"a=rtpmap:{red} red/48000/2", f"a=fmtp:{red} {opus}/{opus}"] if red else []),
        *(f"a=rtpmap:{each}" for each in section.attributes.get("rtpmap", []) if each.split(" ")[0] in map(str, keys)),
    ]


def _voice(offer: Offer, ours: Ours, section: Section) -> list[str]:
    """Payload type and extension ids are those of the whole bundle (RFC 9143 §9.1)."""
    return opus_section(offer, ours, section, "recvonly")


def _audio(offer: Offer, ours: Ours, section: Section) -> list[str]:
    return [
        *opus_section(offer, ours, section, offer.direction),
        "a=msid:eyvan stage",
        f"a=ssrc:{ours.ssrc} cname:{ours.cname}",
        f"a=ssrc:{ours.ssrc} msid:eyvan stage",
    ]


def _data(offer: Offer, ours: Ours, section: Section) -> list[str]:
    transport = [line for line in _transport(offer, ours) if line != "a=rtcp-mux"]
    limits = [f"a=sctp-port:{SCTP_PORT}", f"a=max-message-size:{SCTP_MAX_MESSAGE}"]
    return [*_head(ours, section, "webrtc-datachannel"), *transport, *limits]


def _inactive(offer: Offer, ours: Ours, section: Section) -> list[str]:
    first = section.formats[0]
    described = [f"a=rtpmap:{each}" for each in section.attributes.get("rtpmap", []) if each.split(" ")[0] == first]
    described += [f"a=fmtp:{each}" for each in section.attributes.get("fmtp", []) if each.split(" ")[0] == first]
    return [*_head(ours, section, first), *_transport(offer, ours), "a=inactive", *described]
