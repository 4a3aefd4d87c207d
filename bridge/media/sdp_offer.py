"""SDP offers of ours, to somebody whom the bot calls. Everywhere else the other side offers (`bridge.media.sdp`)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bridge.errors import BadInput
from bridge.media import rtp, sdp

_CALLED = sdp.parse(
    """v=0
o=- 1 1 IN IP4 127.0.0.1
m=audio 9 UDP/TLS/RTP/SAVPF 111 63 110 101
a=mid:0
a=rtcp-mux
a=setup:actpass
a=ice-ufrag:none
a=ice-pwd:nonenonenonenonenonenone
a=fingerprint:sha-256 """
    + ":".join(["00"] * 32)
    + f"""
a=sendrecv
a=extmap:1 {rtp.AUDIO_LEVEL}
a=rtpmap:111 opus/48000/2
a=rtpmap:63 red/48000/2
a=fmtp:63 111/111
a=rtpmap:110 telephone-event/48000
a=rtpmap:101 telephone-event/8000
"""
)
"""What we offer where we call, as if it had been offered to us."""


_SAID = ("a=ice-ufrag:", "a=ice-pwd:", "o=- ", "a=fingerprint:sha-256 ")


@dataclass(frozen=True, slots=True)
class Offered:
    """What of an offer of ours is needed when its answer comes."""

    ufrag: str
    password: str
    session: int
    fingerprint: str


def offer(ours: sdp.Ours, session: int) -> str:
    """The SDP of an offer of ours, to somebody whom we call. Its answer is read by `sdp.parse`, as it holds the same as
    an offer; where they would be the DTLS server it is refused. An ICE-lite agent may offer: the other side is
    controlling all the same (RFC 8445 §6.1.1). No SSRC is named, as the peer is made when the answer comes."""
    section = sdp.opus_section(_CALLED, ours, _CALLED.sections[0], "sendrecv")
    return "\r\n".join(
        [
            *("v=0", f"o=- {session} 1 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=ice-lite"),
            *("a=group:BUNDLE 0", "a=msid-semantic: WMS eyvan"),
            *("a=setup:actpass" if line.startswith("a=setup:") else line for line in section),
            *("a=msid:eyvan stage", ""),
        ]
    )


def offered(text: str) -> Offered:
    """The inverse of `offer`. Raises BadInput: it is no offer of ours."""
    found = [re.search(rf"(?m)^{each}(\S+)", text) for each in _SAID]
    ufrag, password, session, fingerprint = (each[1] if each else "" for each in found)
    if not session.isdecimal() or not ufrag or not password or not fingerprint:
        raise BadInput("answer_to", text, "give the offer that this relay made")
    return Offered(ufrag, password, int(session), fingerprint)
