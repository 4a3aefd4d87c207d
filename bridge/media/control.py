"""The few messages between the control process and a media worker.

They travel over a Unix socket pair (``SOCK_STREAM``) that the control process hands down: four bytes
of length, big endian, then one JSON object with its type under ``t``. The first frame is ``Start``;
the worker answers ``Started`` or ``Failed``. Every request carries an ``id`` and gets one ``Reply``.

    control → worker   Start · Join · MakeOffer · Gate · Hush · LeaveOut · Tune · Leave · Home · CloseStage · Stream
                       GetStats · Ping
    worker → control   Started · Failed · Reply · Connected · Gone · Pressed · LevelsNow · Frames
"""

from __future__ import annotations

import asyncio
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bridge.errors import BadInput, Full, NotFound, Theirs, Unavailable

MAX_FRAME = 4 * 1024 * 1024
"""Bytes. The largest that is usual is an offer or the answer to GetStats: some ten thousand."""
STATS_PAGE = 50
"""Peers in one answer to GetStats: about a millisecond of the worker's time."""

Sound = Literal["voice", "music", "low"]
"""How a stage sounds. ``voice``: mono, evened, at the bitrate of the configuration. ``music``: stereo, 128 kbit/s, as
it comes. ``low``: as voice, 24 kbit/s."""

MUSIC_BITRATE, LOW_BITRATE = 128_000, 24_000


def bitrate_of(sound: Sound, bitrate: int) -> int:
    """Bit/s of one encode; ``bitrate`` is that of the configuration, for voices."""
    if sound == "music":
        return MUSIC_BITRATE
    return min(bitrate, LOW_BITRATE) if sound == "low" else bitrate


LOW = "\tlow"
"""Stands among the owners whom a peer leaves out where it gets `LOW_BITRATE` of a stage for voices; nobody's name."""

MAX_LEFT_OUT_MIXES = 8
"""Mixes of a stage that leave out two and more who talk, beside two for each who talks. Sets of people beyond it are
refused; should people who leave others out begin to talk, the last of them hear the mix minus their own voice only."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a media worker is told at its start. Never changed while it runs."""

    number: int = 0  # of the worker, from 0; its ufrags say it (stun.new_ufrag)
    bind: str = ""  # an IPv4 or IPv6 address; "" is every address of both families
    port: int = 0  # UDP; 0 takes a free one and keeps it over restarts of the worker
    announce: tuple[str, ...] = ()  # addresses in our answers; () takes those of the interfaces
    max_peers: int = 5000
    max_mbit: float = 0  # of sound that we send in all, headers too; 0: no limit
    bitrate: int = 48_000  # bit/s of each Opus stream we send
    listener_packet_ms: int = 60  # 20, 40 or 60: sound in one packet to those who may not speak; others get 20
    fan_out: str = "auto"  # "c", "python", or auto: C where it is there
    silent_s: float = 15.0  # heard nothing from a peer for so long: stop sending to it (decisions 1.8)
    gone_s: float = 30.0  # … and so long: it is gone (RFC 7675 §5.1)
    certificate_s: float = 86_400.0  # a new certificate for new peers after so long
    tcp: bool = True  # also take ICE-TCP, at the same port number
    tcp_handed: bool = False  # connections come from the control process (front.py) instead, at tcp_announce_port
    tcp_announce_port: int = 0  # what our answers say instead, where something forwards it to us; 0: the port itself


# -- control → worker ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    settings: WorkerSettings


@dataclass(frozen=True, slots=True)
class Join:
    id: int
    stage: str
    peer: str
    owner: str
    offer: str
    hear: bool
    speak: bool
    csrc: int = 0
    home: int = 0  # the worker that mixes the stage
    sound: Sound = "voice"
    answer_to: str = ""  # the offer that we made; ``offer`` is its answer then


@dataclass(frozen=True, slots=True)
class MakeOffer:
    """The reply's SDP is an offer for somebody who is called; the worker remembers nothing of it."""

    id: int


@dataclass(frozen=True, slots=True)
class Gate:
    id: int
    peer: str
    hear: bool
    speak: bool


@dataclass(frozen=True, slots=True)
class LeaveOut:
    """From now on the peer does not hear these owners."""

    id: int
    peer: str
    owners: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tune:
    """How a stage sounds from now on, and whom somebody there does not hear (`Mixer.ears`)."""

    id: int
    stage: str
    sound: Sound
    ears: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Leave:
    id: int
    peer: str


@dataclass(frozen=True, slots=True)
class Hush:
    """To the home of a stage, after another worker has shut a gate: its voice is let go of now."""

    id: int
    stage: str
    csrc: int


@dataclass(frozen=True, slots=True)
class Home:
    """Worker ``home`` mixes the stage; ``others`` have peers of it too and get its frames."""

    id: int
    stage: str
    home: int
    others: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class CloseStage:
    id: int
    stage: str


@dataclass(frozen=True, slots=True)
class Stream:
    """From now on, send the frames of a stage (``Frames``), or do not; harmless twice."""

    id: int
    stage: str
    on: bool


@dataclass(frozen=True, slots=True)
class GetStats:
    """Counters of the worker, and of at most ``STATS_PAGE`` peers from the ``first`` on: a worker with thousands would
    send its next sound late. Who comes or goes between two pages may be missed."""

    id: int
    first: int = 0


@dataclass(frozen=True, slots=True)
class Ping:
    """Only to be answered."""

    id: int


# -- worker → control ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    port: int
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    text: str


@dataclass(frozen=True, slots=True)
class Reply:
    id: int
    error: Mapping[str, Any] | None = None
    sdp: str = ""
    csrc: int = 0
    stats: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Connected:
    peer: str


@dataclass(frozen=True, slots=True)
class Gone:
    peer: str
    reason: str


@dataclass(frozen=True, slots=True)
class Pressed:
    """A telephone's key went down: one of ``0123456789*#ABCD``."""

    peer: str
    key: str


@dataclass(frozen=True, slots=True)
class LevelsNow:
    stage: str
    levels: Mapping[str, int] = field(default_factory=dict)  # JSON has no integer keys


@dataclass(frozen=True, slots=True)
class Frames:
    """Consecutive frames of 20 ms of a stage's shared mix, Opus in base64; ``tick`` is that of the first."""

    stage: str
    tick: int
    frames: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sending:
    """Once a second, where there is a limit: WorkerCounters.out_mbit."""

    mbit: float


ToWorker = (
    Start | Join | MakeOffer | Gate | Hush | LeaveOut | Tune | Leave | Home | CloseStage | Stream | GetStats | Ping
)
ToControl = Started | Failed | Reply | Connected | Gone | Pressed | LevelsNow | Frames | Sending
Message = ToWorker | ToControl
_TYPES: dict[str, Any] = {each.__name__: each for each in typing.get_args(Message)}


def encode(message: Message) -> bytes:
    """One frame, with its length in front."""
    body = json.dumps({"t": type(message).__name__, **plain(message)}, default=plain).encode()
    return len(body).to_bytes(4, "big") + body


def plain(value: Any) -> dict[str, Any]:
    """The fields of one dataclass, those in it as they are: ``dataclasses.asdict`` copies all, ten times slower."""
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def decode(body: bytes) -> Message:
    """The message of one frame. Raises ValueError: both ends are ours, so it is a defect."""
    values = json.loads(body)
    kind = values.pop("t", None) if isinstance(values, dict) else None
    if not isinstance(kind, str) or kind not in _TYPES:
        raise ValueError(f"unknown control message {kind!r}")
    try:
        if kind == "Start":
            settings = values["settings"]
            return Start(WorkerSettings(**{**settings, "announce": tuple(settings["announce"])}))
        return typing.cast(Message, _TYPES[kind](**{name: _tuples(value) for name, value in values.items()}))
    except (TypeError, KeyError) as error:
        raise ValueError(f"control message {kind}: {error}") from None


def _tuples(value: Any) -> Any:
    """JSON has lists only; what is in an object stays as it came."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


async def read(reader: asyncio.StreamReader) -> Message | None:
    """The next message, or None when the other end has closed (or died)."""
    try:
        size = int.from_bytes(await reader.readexactly(4), "big")
        if size > MAX_FRAME:
            raise ValueError(f"control frame of {size} bytes")
        return decode(await reader.readexactly(size))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def error_to(error: Theirs | Unavailable) -> dict[str, Any]:
    """An error as JSON, for Reply."""
    if isinstance(error, BadInput):
        value = error.value if isinstance(error.value, str | int | None) else repr(error.value)
        value = value[:200] if isinstance(value, str) else value
        return {"kind": "BadInput", "field": error.field, "value": value, "remedy": error.remedy}
    if isinstance(error, Full):
        return {"kind": "Full", "text": str(error), "retry_after_ms": error.retry_after_ms}
    kind = "NotFound" if isinstance(error, NotFound) else "Unavailable"
    return {"kind": kind, "text": str(error)}


def error_from(values: Mapping[str, Any]) -> Theirs | Unavailable:
    """The error that ``error_to`` wrote."""
    if values["kind"] == "BadInput":
        return BadInput(values["field"], values["value"], values["remedy"])
    if values["kind"] == "Full":
        return Full(values["text"], values["retry_after_ms"])
    return (NotFound if values["kind"] == "NotFound" else Unavailable)(values["text"])
