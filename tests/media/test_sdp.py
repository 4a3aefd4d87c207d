"""Offers as browsers and others write them (``offers/``: Chromium's and Firefox's were recorded, Safari's and
GStreamer's written after theirs) and what we answer. aiortc's parser is the second opinion."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from pathlib import Path

import pytest
from aiortc.sdp import SessionDescription
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.errors import BadInput
from bridge.media import rtp, sdp

OFFERS = {path.stem: path.read_text() for path in sorted((Path(__file__).parent / "offers").glob("*.sdp"))}
GOOD = OFFERS["safari-18-listener"]
OURS = sdp.Ours(
    ssrc=4242,
    cname="name",
    ufrag="ours",
    password="p" * 24,
    fingerprint=":".join(["AB"] * 32),
    addresses=("192.0.2.7", "2001:db8::7"),
    port=40_000,
)


def answered(text: str) -> str:
    return sdp.answer(sdp.parse(text), OURS, 1, 2)


@pytest.mark.parametrize("name", OFFERS)
def test_every_section_is_answered_in_its_place(name: str) -> None:
    offer, answer = OFFERS[name], answered(OFFERS[name])
    wanted = re.findall(r"^m=(\w+) ", offer, re.M)
    assert re.findall(r"^m=(\w+) ", answer, re.M) == wanted
    assert re.findall(r"^a=mid:(\S+)", answer, re.M) == re.findall(r"^a=mid:(\S+)", offer, re.M)
    assert "a=ice-lite\r\n" in answer.split("m=")[0]
    parsed = SessionDescription.parse(answer)
    first = next(number for number, kind in enumerate(wanted) if kind == "audio")
    media = parsed.media[first]
    codecs = {codec.name: codec.parameters for codec in media.rtp.codecs}
    keys = len(re.findall("telephone-event", re.split("(?m)^m=", offer)[first + 1]))
    assert [codec.name for codec in media.rtp.codecs].count("telephone-event") == keys
    codecs.pop("telephone-event", None)
    assert codecs.pop("opus") == {"minptime": 10, "useinbandfec": 1, "usedtx": "1"}
    assert codecs == ({"red": {"111/111": None}} if "red/48000/2" in offer else {})
    assert media.dtls is not None
    assert media.dtls.role == "server"
    assert [(each.ip, each.port, each.type) for each in media.ice_candidates] == [
        ("192.0.2.7", 40_000, "host"),
        ("2001:db8::7", 40_000, "host"),
    ]
    assert media.ice_candidates_complete
    assert media.ssrc[0].ssrc == 4242
    bundle = [group.items for group in parsed.group if group.semantic == "BUNDLE"]
    living = [each.rtp.muxId for each in parsed.media if each.port]
    assert bundle == [living]
    voice = [i for i, each in enumerate(parsed.media) if i != first and each.direction == "recvonly"]
    assert voice == ([7] if name == "element-call-0.26-speaker" else [])  # the only one that speaks in another section
    for number, each in enumerate(parsed.media):
        if number not in (first, *voice):
            assert each.direction == "inactive" or each.port == 0
        if each.kind == "application":
            assert each.port == 0, "data channels are not wanted here"


@pytest.mark.parametrize("name", [each for each, text in OFFERS.items() if "m=application" in text])
def test_data_channels_where_they_are_accepted(name: str) -> None:
    """A section that an answer rejected before is out of the bundle, and stays rejected."""
    offer = sdp.parse(OFFERS[name])
    parsed = SessionDescription.parse(sdp.answer(offer, dataclasses.replace(OURS, data=True), 1, 2))
    section = next(each for each in parsed.media if each.kind == "application")
    bundle = next(group.items for group in parsed.group if group.semantic == "BUNDLE")
    if name == "element-call-0.26-speaker":
        assert offer.data is None
        assert section.port == 0
        return
    assert offer.data is not None
    assert offer.data.max_message == (1_073_741_823 if name.startswith("firefox") else 262_144)
    assert (section.port, section.profile, section.fmt) == (40_000, "UDP/DTLS/SCTP", ["webrtc-datachannel"])
    assert section.sctp_port == 5000
    assert section.sctpCapabilities is not None
    assert section.sctpCapabilities.maxMessageSize == 65_536
    assert section.rtp.muxId in bundle


@pytest.mark.parametrize(
    "change",
    [
        ("a=sctp-port:5000", "a=sctp-port:0"),
        ("UDP/DTLS/SCTP webrtc-datachannel", "DTLS/SCTP 5000"),
        ("a=sctp-port:5000", ""),
    ],
)
def test_data_channels_of_another_form_are_rejected(change: tuple[str, str]) -> None:
    text = OFFERS["chromium-156-many"].replace(*change)
    answer = sdp.answer(sdp.parse(text), dataclasses.replace(OURS, data=True), 1, 2)
    assert re.search(r"m=application 0 ", answer)


def test_speaking_and_hearing_in_sections_apart() -> None:
    """LiveKit's clients: the mix goes into the first section that takes sound, the voice comes by another."""
    sections = re.split(r"(?m)^(?=m=)", answered(OFFERS["element-call-0.26-speaker"]))
    hears, speaks = sections[1], sections[8]
    assert "a=sendonly\r\n" in hears
    assert "a=msid:eyvan stage\r\n" in hears
    assert "a=recvonly\r\n" in speaks
    assert "a=msid" not in speaks
    assert "a=rtpmap:111 opus/48000/2\r\n" in speaks
    first = answered(OFFERS["element-call-0.26-listener"].replace("a=mid:0\na=recvonly", "a=mid:0\na=sendonly"))
    assert re.findall(r"(?m)^a=(sendonly|recvonly|inactive)", first)[:3] == ["recvonly", "sendonly", "inactive"]


@pytest.mark.parametrize(
    ("offered", "ours"),
    [("sendrecv", "sendrecv"), ("recvonly", "sendonly"), ("sendonly", "recvonly"), ("inactive", "inactive")],
)
def test_direction(offered: str, ours: str) -> None:
    assert f"a={ours}\r\n" in answered(GOOD.replace("a=recvonly", f"a={offered}"))


@pytest.mark.parametrize(
    ("line", "longest"),
    [("", 120), ("a=maxptime:40\n", 40), ("a=maxptime:x\n", 120), ("a=maxptime:\n", 120), ("a=maxptime:²\n", 120)],
)
def test_how_much_sound_a_packet_may_hold(line: str, longest: int) -> None:
    assert (
        sdp.parse(re.sub(r"a=maxptime.*\n", "", GOOD).replace("a=recvonly\n", f"{line}a=recvonly\n")).max_ptime
        == longest
    )


def test_extensions_as_offered_and_no_others() -> None:
    offer = GOOD.replace(
        "a=recvonly\n",
        "a=extmap:2/recvonly urn:ietf:params:rtp-hdrext:csrc-audio-level\na=extmap:9 urn:example:other\na=recvonly\n",
    )
    parsed = sdp.parse(offer)
    assert (parsed.extension(rtp.AUDIO_LEVEL), parsed.extension(rtp.CSRC_AUDIO_LEVEL)) == (1, 2)
    assert sdp.parse(GOOD).extension(rtp.CSRC_AUDIO_LEVEL) == 0
    lines = re.findall(r"a=extmap:(.*)\r", answered(offer))
    assert lines == [f"1 {rtp.AUDIO_LEVEL}", f"4 {rtp.MID}", f"2/sendonly {rtp.CSRC_AUDIO_LEVEL}"]


def test_copies_are_asked_for_before_what_they_are_of() -> None:
    """RFC 2198. Browsers send what the answer names first; a listener is not concerned."""
    formats = r"(?m)^m=audio \d+ \S+ ([\d ]+)\r"
    for direction, order in (("recvonly", "111 63"), ("sendrecv", "63 111"), ("sendonly", "63 111")):
        answer = answered(GOOD.replace("a=recvonly", f"a={direction}"))
        assert re.findall(formats, answer) == [order]
        assert "a=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\n" in answer
    hears, speaks = (re.findall(formats, answered(OFFERS["element-call-0.26-speaker"]))[n] for n in (0, -1))
    assert (hears, speaks) == ("111 63 110 126", "63 111 110 126")


@pytest.mark.parametrize("fmtp", ["", "a=fmtp:63 111\n", "a=fmtp:63 111/110\n", "a=fmtp:63 \n", "a=fmtp:64 111/111\n"])
def test_other_redundancy_is_not_taken(fmtp: str) -> None:
    offer = GOOD.replace("a=fmtp:63 111/111\n", fmtp)
    assert offer != GOOD
    assert sdp.parse(GOOD).red == 63
    assert sdp.parse(offer).red == 0
    assert "red" not in answered(offer)


def test_values_read() -> None:
    parsed = sdp.parse(OFFERS["gstreamer-whip"])
    assert parsed.payload_type == 96
    assert parsed.ufrag.startswith("Z1x/")
    assert parsed.fingerprints == frozenset({("sha-256", ":".join(["FE:DC:BA:98:76:54:32:10"] * 4))})
    assert parsed.direction == "recvonly"
    assert parsed.session == "8113216461930187533"


def test_session_level_credentials_and_no_bundle() -> None:
    moved = re.findall(r"a=(?:ice-ufrag|ice-pwd|fingerprint|setup):.*\n", GOOD)
    offer = GOOD
    for line in [*moved, "a=group:BUNDLE 0\n", "a=mid:0\n"]:
        offer = offer.replace(line, "")
    offer = offer.replace("t=0 0\n", "t=0 0\n" + "".join(moved))
    assert "a=group" not in answered(offer)
    assert sdp.parse(offer).ufrag == "Safr"


def test_bundle_only_section_takes_the_credentials_of_the_first() -> None:
    offer = OFFERS["chromium-156-video-first"]
    head, video, audio = re.split(r"(?=^m=)", offer, flags=re.M)
    bare = re.sub(r"a=(ice-ufrag|ice-pwd|fingerprint|setup):.*\r?\n", "", audio)
    assert sdp.parse(head + video + bare).ufrag == sdp.parse(offer).ufrag


@pytest.mark.parametrize(
    ("pattern", "replacement", "field"),
    [
        (r"v=0", "v=1", "offer"),
        (r"m=audio.*", "m=video 9 UDP/TLS/RTP/SAVPF 96", "offer m=audio"),
        (r"m=audio 9", "m=audio", "offer m="),
        (r"a=fingerprint:sha-256", "a=fingerprint:sha-1", "offer a=fingerprint"),
        (r"(a=fingerprint:sha-256) .*", r"\1 nonsense", "offer a=fingerprint"),
        (r"a=ice-ufrag:.*", "a=ice-ufrag:a b c d", "offer a=ice-ufrag"),
        (r"a=ice-pwd:.*", "a=ice-pwd:short", "offer a=ice-pwd"),
        (r"opus/48000/2", "opus/48000", "offer a=rtpmap"),
        (r"a=rtpmap:111", "a=rtpmap:72", "offer a=rtpmap"),
        (r"a=rtcp-mux\n", "", "offer a=rtcp-mux"),
        (r"actpass", "passive", "offer a=setup"),
    ],
)
def test_what_cannot_be_taken_is_named(pattern: str, replacement: str, field: str) -> None:
    with pytest.raises(BadInput) as caught:
        sdp.parse(re.sub(pattern, replacement, GOOD))
    assert caught.value.field == field
    assert caught.value.remedy


@pytest.mark.parametrize("offer", [None, 7, b"v=0", "v=0" + "x" * 70_000, "v=0\n" + "ü" * 40_000])
def test_wrong_types_and_sizes(offer: object) -> None:
    with pytest.raises(BadInput):
        sdp.parse(offer)


def test_too_many_sections() -> None:
    with pytest.raises(BadInput, match="64 at most"):
        sdp.parse(GOOD + "m=audio 9 UDP/TLS/RTP/SAVPF 96\n" * 64)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(OFFERS)), st.data())
def test_broken_offers_are_refused_or_answered(name: str, data: st.DataObject) -> None:
    lines = OFFERS[name].splitlines()
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.sampled_from(["drop", "double", "cut", "noise"])):
            case "drop":
                del lines[at]
            case "double":
                lines.insert(at, lines[at])
            case "cut":
                lines[at] = lines[at][: data.draw(st.integers(0, len(lines[at])))]
            case _:
                lines[at] = lines[at][:4] + data.draw(st.text(max_size=20))
        if not lines:
            return
    try:
        answer = answered("\r\n".join(lines))
    except BadInput:
        return
    assert answer.startswith("v=0\r\n")
    assert all(re.match(r"[a-z]=", line) for line in answer.removesuffix("\r\n").split("\r\n"))


def test_an_address_of_either_family_can_come_first() -> None:
    answer = sdp.answer(sdp.parse(GOOD), dataclasses.replace(OURS, addresses=("2001:db8::7",)), 1, 1)
    assert "c=IN IP6 2001:db8::7\r\n" in answer


_NUMBERS = st.sampled_from(["", " ", "²", "٣", "-1", "+1", "0", "65536", "9" * 5000, "1e3", "0x10", "\x00", "1/", "/1"])
_NAMES = st.sampled_from(
    [
        "group",
        "mid",
        "extmap",
        "rtpmap",
        "fmtp",
        "fingerprint",
        "setup",
        "ice-ufrag",
        "ice-pwd",
        "ssrc",
        "maxptime",
        "candidate",
    ]
)


@settings(max_examples=1500)
@given(
    name=st.sampled_from(sorted(OFFERS)),
    changes=st.lists(
        st.tuples(
            st.integers(0, 400), _NAMES, _NUMBERS, st.sampled_from(["replace", "insert", "value", "drop", "cut"])
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_a_changed_offer_is_taken_or_refused_and_nothing_else(
    name: str, changes: list[tuple[int, str, str, str]]
) -> None:
    """One attribute with a number that is none ended the worker once, and with it the sound of everybody."""
    lines = OFFERS[name].split("\r\n")
    for place, attribute, number, how in changes:
        at = place % len(lines)
        match how:
            case "replace":
                lines[at] = f"a={attribute}:{number}"
            case "insert":
                lines.insert(at, f"a={attribute}:{number} urn:ietf:params:rtp-hdrext:ssrc-audio-level")
            case "value":
                lines[at] = re.sub(r"\d+", number.replace("\\", ""), lines[at], count=1)
            case "drop":
                del lines[at : at + 1]
            case "cut":
                lines[at] = lines[at][: len(lines[at]) // 2]
        lines = lines or ["v=0"]
    with contextlib.suppress(BadInput):
        answered("\r\n".join(lines))


@pytest.mark.parametrize(
    "line",
    [
        "a=group:",
        "a=group: ",
        "a=extmap:² urn:ietf:params:rtp-hdrext:ssrc-audio-level",
        "a=rtpmap:² opus/48000/2",
        "a=extmap:" + "1" * 5000 + " urn:ietf:params:rtp-hdrext:ssrc-audio-level",
        "a=rtpmap:" + "1" * 5000 + " opus/48000/2",
    ],
)
def test_numbers_that_are_none_say_nothing(line: str) -> None:
    first, rest = GOOD.split("m=", 1)
    for text in (f"{first}{line}\r\nm={rest}", f"{first}m={rest}{line}\r\n"):
        assert "a=ice-lite" in answered(text)
