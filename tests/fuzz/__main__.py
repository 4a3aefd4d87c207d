"""Fuzzing: ``python -m tests.fuzz [--cases N] [TARGET …]``, each target in a process of its own; ``live`` is the one
with a real worker and a listener. ``python -m tests.fuzz capture`` makes the seeds again.

By coverage where atheris is installed (``pip install -e '.[fuzz]'``), and once more blindly, by the mutator. An input
that raises is written to ``crashes/``, where it stays as a test. In the blind run the resident memory may grow by 1 MB
in 10^5 cases at most; libFuzzer itself grows with what it finds, so there it says nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import hashlib
import itertools
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tests.fuzz.mutate import MAX_SIZE, Mutator

if TYPE_CHECKING:
    from tests.fuzz.targets import Run, Target  # imports the bridge, which atheris instruments while it is imported

CASES = 1_000_000
SLOPE_KB = 1024  # of resident memory in 10^5 cases
_STEPS = 20  # the memory is read so often
_LIVE_S = 60
_SPIN_EACH = 100  # cases


class Meter:
    """Counts cases and reads the memory; the first quarter is warming up."""

    def __init__(self, cases: int) -> None:
        self._cases, self._every = cases, max(1, cases // _STEPS)
        self._points: list[tuple[int, int]] = []
        self.count = 0
        self._began = time.monotonic()

    def case(self) -> None:
        self.count += 1
        if self.count % self._every == 0:
            gc.collect()
            self._points.append((self.count, _resident_kb()))

    def report(self, name: str) -> tuple[str, bool]:
        """One line, and whether it is well."""
        slope = _slope([each for each in self._points if each[0] > self._cases // 4]) * 1e5
        seconds = time.monotonic() - self._began
        text = f"{name}: {self.count} cases in {seconds:.0f} s, {slope:+.0f} kB in 10^5"
        return text, slope < SLOPE_KB or self.count < CASES // 4  # of few cases nothing can be said


def _slope(points: list[tuple[int, int]]) -> float:
    if len(points) < 2:
        return 0.0
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    square = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / square


def _resident_kb() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


@contextlib.contextmanager
def _running(name: str) -> Iterator[tuple[Target, Run]]:
    from tests.fuzz import targets

    logging.disable(logging.CRITICAL)
    target = targets.targets()[name]
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)

    async def make() -> Run:
        await targets.prepare()
        return target.make()

    run = loop.run_until_complete(make())
    count = itertools.count(1)

    def running(data: bytes) -> None:
        run(data)
        if next(count) % _SPIN_EACH == 0:  # timers fire, cancelled ones go
            loop.call_soon(loop.stop)
            loop.run_forever()

    try:
        yield target, running
    finally:
        targets.finish()
        loop.close()


def _keep(name: str, data: bytes) -> None:
    where = Path(__file__).parent / "crashes" / name
    where.mkdir(parents=True, exist_ok=True)
    (where / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


def plain(name: str, cases: int, seed: int) -> bool:
    """By the mutator."""
    meter = Meter(cases)
    with _running(name) as (target, run):
        mutator = Mutator(target.seeds, target.words, seed)
        for _ in range(cases):
            data = mutator.next()
            try:
                run(data)
            except Exception:
                _keep(name, data)
                raise
            meter.case()
    text, well = meter.report(name)
    print(text, flush=True)
    return well


def covered(name: str, cases: int, seed: int) -> None:
    """By atheris (libFuzzer), which ends the process itself."""
    import atheris

    with atheris.instrument_imports(include=["bridge.media", "bridge.web"]):
        import tests.fuzz.targets  # noqa: F401
    meter = Meter(cases)
    with _running(name) as (target, run), tempfile.TemporaryDirectory() as directory:
        for number, each in enumerate(target.seeds):
            (Path(directory) / str(number)).write_bytes(each)

        def one(data: bytes) -> None:
            try:
                run(data)
            except Exception:
                _keep(name, data)
                raise
            meter.case()
            if meter.count == cases:
                print(meter.report(f"{name} by coverage")[0], flush=True)
                os._exit(0)

        atheris.Setup(["fuzz", "-runs=-1", f"-seed={seed}", f"-max_len={MAX_SIZE}", "-verbosity=0", directory], one)
        atheris.Fuzz()


def _one(name: str, cases: int, seed: int, engine: str) -> int:
    if engine == "atheris":
        covered(name, cases, seed)
    return 0 if plain(name, cases, seed) else 1


def _all(names: list[str], cases: int, seed: int, engines: list[str], at_once: int) -> int:
    """Children, a few at a time. The number of runs that failed."""
    waiting, failed = [(name, engine) for name in names for engine in engines], 0
    running: dict[str, tuple[subprocess.Popen[bytes], IO[bytes]]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                name, engine = waiting.pop(0)
                command = [sys.executable, "-m", "tests.fuzz", "--child", name, "--engine", engine]
                command += ["--cases", str(cases), "--seed", str(seed)]
                errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the child has ended
                running[f"{name}, {engine}"] = subprocess.Popen(command, stderr=errors), errors
            time.sleep(0.2)
            for which in [each for each, (child, _) in running.items() if child.poll() is not None]:
                child, errors = running.pop(which)
                if child.returncode:
                    failed += 1
                    errors.seek(0)
                    print(errors.read()[-4000:].decode(errors="replace"))
                    print(f"{which}: FAILED ({child.returncode}); see tests/fuzz/crashes", flush=True)
                errors.close()
    finally:
        for child, errors in running.values():
            child.kill()
            child.wait()
            errors.close()
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", help="all, where none is named; live; capture")
    parser.add_argument("--cases", type=int, default=CASES, help="of each target")
    parser.add_argument("--seed", type=int, default=int(time.time()) & 0xFFFF)
    parser.add_argument("--engine", choices=["auto", "atheris", "plain"], default="auto")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--live-seconds", type=float, default=_LIVE_S)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return _one(args.child, args.cases, args.seed, args.engine)
    if args.targets == ["capture"]:
        from tests.fuzz.capture import capture

        asyncio.run(capture())
        return 0
    engines = [args.engine] if args.engine != "auto" else ["atheris", "plain"] if _has_atheris() else ["plain"]
    print(f"seed {args.seed}, {' and '.join(engines)}", flush=True)
    from tests.fuzz.targets import targets

    names = args.targets or [*targets(), "live"]
    failed = _all([each for each in names if each != "live"], args.cases, args.seed, engines, args.jobs)
    if "live" in names:
        from tests.fuzz.live import live

        failed += not asyncio.run(live(args.live_seconds, args.seed))
    return 1 if failed else 0


def _has_atheris() -> bool:
    try:
        import atheris  # noqa: F401
    except ImportError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
