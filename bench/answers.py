"""The listener's answer to a server that makes the offers (Janus, LiveKit): its sections, ours to receive."""

from __future__ import annotations

import re

_KEPT = ("a=mid:", "a=rtpmap:", "a=fmtp:", "a=sctp-port:", "a=rtcp-mux")


def answer_to(offer: str, ours: str) -> str:
    """``ours``: an offer of our client, for its ICE credentials and fingerprint. Opus is taken where offered; a data
    channel's section is accepted, as the BUNDLE hangs on the first one, and nothing is ever sent on it."""
    session, *sections = re.split(r"(?m)^(?=m=)", offer)
    group = re.search(r"(?m)^a=group:BUNDLE.*$", session)
    transport = [
        line for line in ours.splitlines() if line.startswith(("a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:"))
    ]
    lines = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0"]
    if group is not None:
        lines.append(group[0].strip())
    lines.append("a=msid-semantic: WMS *")
    for section in sections:
        lines += _section(section, [*transport, "a=setup:active"])
    return "\r\n".join(lines) + "\r\n"


def _section(offered: str, transport: list[str]) -> list[str]:
    head, *rest = [line.strip() for line in offered.strip().splitlines()]
    kind, _, protocol, *formats = head.split()
    opus = next((line for line in rest if re.match(r"a=rtpmap:\d+ opus/48000", line, re.I)), None)
    kept = [line for line in rest if line.startswith(_KEPT)]
    if opus is not None:
        payload_type = re.findall(r"\d+", opus)[0]
        formats = [payload_type]
        wrong = re.compile(rf"a=(rtpmap|fmtp):(?!{payload_type} )")
        kept = [line for line in kept if not wrong.match(line)]
    direction = ["a=recvonly"] if kind == "m=audio" else []
    return [f"{kind} 9 {protocol} {' '.join(formats)}", "c=IN IP4 0.0.0.0", *kept, *direction, *transport]
