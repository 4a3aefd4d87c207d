"""A house for each test: fakes around the live part of the bridge, on a real SQLite database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge.store import DatabaseStore, open_store
from tests.helpers.fakes import AVA, BEN, BOT, CYD, MOD, ROOM, FakeMatrix, FaultyStore, HandClock, House


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def database(tmp_path: Path, clock: HandClock) -> AsyncIterator[DatabaseStore]:
    opened = await open_store(f"sqlite:///{tmp_path / 'eyvan.db'}", clock.now_ms)
    yield opened
    await opened.close()


@pytest.fixture
def store(database: DatabaseStore) -> FaultyStore:
    return FaultyStore(database)


@pytest.fixture
def matrix(clock: HandClock) -> FakeMatrix:
    made = FakeMatrix(clock)
    made.make_room(ROOM, BOT, MOD, AVA, BEN, CYD)
    return made


@pytest.fixture
async def house(matrix: FakeMatrix, store: FaultyStore, clock: HandClock) -> AsyncIterator[House]:
    made = await House(matrix, store, clock).start()
    yield made
    await made.close()
