"""What ``eyvan doctor`` finds, and what its checks share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import aiohttp

from bridge.config import Config


@dataclass(frozen=True, slots=True)
class Finding:
    mark: Literal["✓", "!", "✗"]
    about: str
    text: str

    def __str__(self) -> str:
        return f"{self.mark} {self.about}: {' '.join(self.text.split())}"


def good(about: str, text: str) -> Finding:
    return Finding("✓", about, text)


def warn(about: str, text: str) -> Finding:
    return Finding("!", about, text)


def bad(about: str, text: str) -> Finding:
    return Finding("✗", about, text)


@dataclass(slots=True)
class Patient:
    """What the checks look at, and what an earlier one found out for a later one."""

    path: Path
    config: Config
    http: aiohttp.ClientSession
    static: Path
    reached: bool = False
    """The homeserver answered."""
    offset_s: float | None = None
    """The homeserver's clock minus ours."""
    known: bool = False
    """The homeserver took our token."""
    running: bool = False
    """Something, a running bridge most likely, listens in our place."""
    well_known: str = ""
    """Where the file of the homeserver's name is; empty: at the name itself."""
    client_url: str = ""
    """Where that file leads clients."""
    pinged_with: list[str] = field(default_factory=list)
    """Authorization headers that came to the listener of the way back."""


async def ask(
    patient: Patient, method: str, path: str, body: Any = None, base: str = ""
) -> tuple[int, Mapping[str, Any]]:
    """One request as the application service; a homeserver that went away is status 0. ``base``: another address than
    ours of it."""
    headers = {"Authorization": f"Bearer {patient.config.appservice.as_token}"}
    url = (base or patient.config.homeserver.address) + path
    try:
        async with patient.http.request(method, url, json=body, headers=headers) as answer:
            return answer.status, await json_of(answer)
    except (aiohttp.ClientError, TimeoutError) as fault:
        return 0, {"errcode": "no answer", "error": why(fault)}


async def json_of(answer: aiohttp.ClientResponse) -> Mapping[str, Any]:
    try:
        body = await answer.json(content_type=None)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def why(fault: BaseException) -> str:
    return (fault.strerror if isinstance(fault, OSError) else str(fault)) or str(fault) or type(fault).__name__
