"""Fixtures of the tests that run with the real thing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.helpers.federation import federation
from tests.helpers.synapse import homeserver, synapse_python
from tests.helpers.world import World, running_world

__all__ = ["federation", "homeserver", "synapse_python"]


@pytest.fixture(scope="session")
async def whole_world(synapse_python: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """Synapse and bridge, once for all tests; each takes a stage of its own (``world.new_stage``)."""
    async with running_world(tmp_path_factory.mktemp("world"), synapse_python) as running:
        yield running


@pytest.fixture
async def world(whole_world: World) -> AsyncIterator[World]:
    """The world with its bridge running; the pages that the test opened are closed after it."""
    await whole_world.start_bridge()
    yield whole_world
    await whole_world.close_pages()
