"""Changed captures for each protocol, and every input that once was too much. ``make fuzz`` does 10^6 of each."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.fuzz import targets
from tests.fuzz.mutate import Mutator

CASES = 2000
TARGETS = targets.targets()


@pytest.fixture(scope="module", autouse=True)
async def stage() -> AsyncIterator[None]:
    await targets.prepare()
    yield
    targets.finish()


@pytest.mark.parametrize("name", TARGETS)
async def test_changed_captures_are_survived(name: str) -> None:
    target = TARGETS[name]
    run = target.make()
    for data in (*target.seeds, *targets.crashes(name)):
        run(data)
    mutator = Mutator(target.seeds, target.words, seed=1)
    for _ in range(CASES):
        data = mutator.next()
        try:
            run(data)
        except Exception as error:
            raise AssertionError(f"{name}: {data.hex()}") from error


def test_the_crash_corpus_is_used() -> None:
    """A target that is renamed takes its crashes along."""
    assert {each.name for each in (targets.HERE / "crashes").iterdir()} <= set(TARGETS)
