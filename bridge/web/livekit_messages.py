"""LiveKit's signalling messages (``livekit.protocol``), as far as a stage has use for them: parsed and made here only.

A stage looks like this to LiveKit's clients: a room in which the bot is the one participant with a track, the mix of
all who speak, and every other call client is a participant without one.
"""

from __future__ import annotations

import base64
import binascii
import re
import time
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from google.protobuf.message import DecodeError
from livekit.protocol import models as M
from livekit.protocol import rtc as L

from bridge.errors import BadInput

BOT_DEVICE = "STAGE"
BOT_SID = "PA_stage"
MIX_SID = "TR_stage"
MAX_JOIN = 128 * 1024  # bytes, unpacked: an offer of 64 KiB and what stands around it
PING_EVERY_S, PING_PATIENCE_S = 5, 15
_PROTOCOL = 16
_VERSION = "1.9.0"  # of the LiveKit server whose behaviour this is
_OUR_MSID = re.compile(r"msid:eyvan stage\b")
_MID = re.compile(r"^a=mid:(\S+)\s*$", re.M)


@dataclass(frozen=True, slots=True)
class Caller:
    """One call client, as others see it."""

    sid: str
    identity: str
    name: str


@dataclass(frozen=True, slots=True)
class Seen:
    """A call client as another one sees it. ``track``: the sid of its microphone."""

    caller: Caller
    track: str | None = None
    on: bool = False


def bot_identity(bot: str) -> str:
    """Under which the bot is a member of the call: Element Call plays only who is one."""
    return f"{bot}:{BOT_DEVICE}"


# -- in -----------------------------------------------------------------------------------------


def parse_join(text: str) -> L.JoinRequest:
    """The ``join_request`` of the URL: base64url of a wrapped, perhaps gzipped JoinRequest. Raises BadInput."""
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        wrapped = L.WrappedJoinRequest.FromString(packed)
        raw = wrapped.join_request
        if wrapped.compression == L.WrappedJoinRequest.GZIP:
            inflate = zlib.decompressobj(wbits=31)
            raw = inflate.decompress(raw, MAX_JOIN)
            if inflate.unconsumed_tail:
                raise ValueError("too long")
        if not raw:
            raise ValueError("empty")
        return L.JoinRequest.FromString(raw)
    except (binascii.Error, zlib.error, DecodeError, ValueError):
        raise BadInput("join_request", text[:20], "send a LiveKit JoinRequest (protocol 16 or later)") from None


def parse_request(data: object) -> L.SignalRequest:
    """One frame of a client. Raises BadInput."""
    if not isinstance(data, bytes):
        raise BadInput("frame", type(data).__name__, "send LiveKit's SignalRequest as a binary frame")
    try:
        return L.SignalRequest.FromString(data)
    except DecodeError:
        raise BadInput("frame", f"{len(data)} bytes", "send LiveKit's SignalRequest") from None


# -- out ----------------------------------------------------------------------------------------


def _bot(identity: str, name: str) -> M.ParticipantInfo:
    mix = M.TrackInfo(
        sid=MIX_SID,
        type=M.AUDIO,
        name="mix",
        source=M.MICROPHONE,
        mime_type="audio/opus",
        stream="mix",
        disable_red=True,
    )
    return M.ParticipantInfo(
        sid=BOT_SID, identity=identity, name=name, state=M.ParticipantInfo.ACTIVE, is_publisher=True, tracks=[mix]
    )


def participant(
    caller: Caller, *, may_speak: bool, tracks: Iterable[M.TrackInfo] = (), gone: bool = False
) -> M.ParticipantInfo:
    return M.ParticipantInfo(
        sid=caller.sid,
        identity=caller.identity,
        name=caller.name,
        state=M.ParticipantInfo.DISCONNECTED if gone else M.ParticipantInfo.ACTIVE,
        joined_at=int(time.time()),
        permission=M.ParticipantPermission(
            can_subscribe=True, can_publish=may_speak, can_publish_sources=[M.MICROPHONE] if may_speak else []
        ),
        tracks=list(tracks),
    )


def other(seen: Seen, *, gone: bool = False) -> M.ParticipantInfo:
    """Another call client. Its track is named, for the sign of its microphone, and no sound comes with it."""
    mic = M.TrackInfo(sid=seen.track, type=M.AUDIO, source=M.MICROPHONE, muted=not seen.on) if seen.track else None
    return participant(seen.caller, may_speak=False, tracks=[mic] if mic else [], gone=gone)


def joined(
    me: M.ParticipantInfo, others: Iterable[M.ParticipantInfo], *, room: str, name: str, bot: str
) -> L.SignalResponse:
    """``resume_connection`` disabled: after a break a client joins anew, as a whole."""
    return L.SignalResponse(
        join=L.JoinResponse(
            room=M.Room(sid="RM_stage", name=room),
            participant=me,
            other_participants=[_bot(bot, name), *others],
            server_version=_VERSION,
            server_info=M.ServerInfo(
                edition=M.ServerInfo.Standard, version=_VERSION, protocol=_PROTOCOL, node_id="eyvan"
            ),
            ice_servers=[],
            client_configuration=M.ClientConfiguration(resume_connection=M.DISABLED),
            ping_interval=PING_EVERY_S,
            ping_timeout=PING_PATIENCE_S,
            enabled_publish_codecs=[M.Codec(mime="audio/opus")],
            fast_publish=True,
        )
    )


def answered(sdp: str, number: int) -> L.SignalResponse:
    """The relay's answer, in which the mix is the bot's: LiveKit's clients read the participant and the track from the
    stream's name, or from ``mid_to_track_id``."""
    sections = re.split(r"(?m)^(?=m=)", sdp)
    mix = next((each for each in sections if _OUR_MSID.search(each)), "")
    mid = _MID.search(mix)
    return L.SignalResponse(
        answer=L.SessionDescription(
            type="answer",
            sdp=_OUR_MSID.sub(f"msid:{BOT_SID}|mix {MIX_SID}", sdp),
            id=number,
            mid_to_track_id={mid[1]: MIX_SID} if mid else {},
        )
    )


def published(cid: str, track: M.TrackInfo) -> L.SignalResponse:
    return L.SignalResponse(track_published=L.TrackPublishedResponse(cid=cid, track=track))


def microphone(sid: str, asked: L.AddTrackRequest) -> M.TrackInfo:
    return M.TrackInfo(
        sid=sid,
        type=M.AUDIO,
        name=asked.name[:100],
        source=M.MICROPHONE,
        muted=asked.muted,
        mime_type="audio/opus",
        disable_dtx=asked.disable_dtx,
        disable_red=True,
        stream=asked.stream[:100],
    )


def refused(asked: L.AddTrackRequest, reason: L.RequestResponse.Reason, text: str) -> L.SignalResponse:
    return L.SignalResponse(request_response=L.RequestResponse(reason=reason, message=text, add_track=asked))


def updated(participants: Iterable[M.ParticipantInfo]) -> L.SignalResponse:
    return L.SignalResponse(update=L.ParticipantUpdate(participants=participants))


def muted(sid: str) -> L.SignalResponse:
    return L.SignalResponse(mute=L.MuteTrackRequest(sid=sid, muted=True))


def speakers(active: Mapping[str, float], silent: Iterable[str]) -> L.SignalResponse:
    """``active``: participant → loudness from 0 to 1."""
    talking = [M.SpeakerInfo(sid=sid, level=level, active=True) for sid, level in active.items()]
    fallen_silent = [M.SpeakerInfo(sid=sid, level=0, active=False) for sid in silent]
    return L.SignalResponse(speakers_changed=L.SpeakersChanged(speakers=[*talking, *fallen_silent]))


def pong(asked: L.Ping) -> L.SignalResponse:
    return L.SignalResponse(pong_resp=L.Pong(last_ping_timestamp=asked.timestamp, timestamp=int(time.time() * 1000)))


def refreshed(token: str) -> L.SignalResponse:
    """The token with which the client joins again after a break."""
    return L.SignalResponse(refresh_token=token)


def sections(audios: int) -> L.SignalResponse:
    """The client offered too few sections in which it takes sound."""
    return L.SignalResponse(media_sections_requirement=L.MediaSectionsRequirement(num_audios=audios))


_LEAVE: dict[str, M.DisconnectReason] = {
    "ended": M.ROOM_CLOSED,
    "removed": M.PARTICIPANT_REMOVED,
    "left_room": M.PARTICIPANT_REMOVED,
    "expired": M.PARTICIPANT_REMOVED,
    "elsewhere": M.DUPLICATE_IDENTITY,
    "restart": M.SERVER_SHUTDOWN,
    "sound": M.STATE_MISMATCH,
    "slow": M.STATE_MISMATCH,
}
_COME_BACK = {"restart", "sound", "slow"}


def left(reason: str) -> L.SignalResponse:
    """``reason`` as in `bridge.live.ports.Page.bye`, or ``sound`` and ``slow``: then the client joins anew."""
    action = L.LeaveRequest.RECONNECT if reason in _COME_BACK else L.LeaveRequest.DISCONNECT
    return L.SignalResponse(
        leave=L.LeaveRequest(reason=_LEAVE[reason], action=action, can_reconnect=reason in _COME_BACK)
    )
