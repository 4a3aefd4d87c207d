"""Two real homeservers that federate over TLS on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bridge.demo.federation import make_authority, server_name
from tests.helpers.ports import free_port
from tests.helpers.synapse import Homeserver, running_homeserver


@dataclass(frozen=True, slots=True)
class Federation:
    """``a`` has our appservice; ``b`` is a partner's."""

    a: Homeserver
    b: Homeserver


@asynccontextmanager
async def running_federation(directory: Path, python: Path) -> AsyncIterator[Federation]:
    ports = free_port(), free_port()
    names = server_name(ports[0]), server_name(ports[1])
    authority = make_authority(directory / "authority")
    first, second = (authority.settings(port, names) for port in ports)
    async with (
        running_homeserver(directory / "a", python, server_name=names[0], federation=first) as a,
        running_homeserver(directory / "b", python, server_name=names[1], federation=second) as b,
    ):
        yield Federation(a, b)


@pytest.fixture(scope="module")
async def federation(synapse_python: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Federation]:
    async with running_federation(tmp_path_factory.mktemp("federation"), synapse_python) as running:
        yield running
