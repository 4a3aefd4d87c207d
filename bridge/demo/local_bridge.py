"""`eyvan run` as a child process, for the demo and for tests: started, watched, stopped or killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import aiohttp

from bridge.demo.child import start_child, until_ready

_START_LIMIT_S = 90.0
_STOP_LIMIT_S = 20.0
_LOG_TAIL = 3_000  # characters


class LocalBridge:
    """One bridge process. Owned by one task: ``start``, ``stop``; ``stop`` twice is harmless.

    ``ready_url`` answers 200 when the bridge is ready; ``log`` gets all that it prints.
    """

    def __init__(self, config: Path, ready_url: str, log: Path) -> None:
        self.config, self.ready_url, self.log = config, ready_url, log
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self) -> None:
        """Start, and return when it is ready. Raises ChildEnded where it dies, Unavailable where it hangs, both with
        the end of its log."""
        if self.pid:
            return
        self._process = await start_child(
            *(sys.executable, "-m", "bridge", "run", "-c", str(self.config)),
            output=self.log,
            dies_by=signal.SIGTERM,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        try:
            await until_ready(self._process, "the bridge", self._ask, _START_LIMIT_S, self.log_tail)
        except BaseException:
            await self.stop()
            raise

    async def _ask(self, http: aiohttp.ClientSession) -> None:
        async with http.get(self.ready_url) as response:
            response.raise_for_status()

    async def wait(self) -> int:
        """Until it has ended by itself; its exit code."""
        assert self._process
        return await self._process.wait()

    async def start_again(self) -> None:
        """After it has ended by itself: as ``start``. Media workers that it left are killed: they hold the port."""
        process, self._process = self._process, None
        if process is not None:
            assert process.returncode is not None
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its own group since start_new_session
        await self.start()

    async def stop(self) -> None:
        """End it with SIGTERM and wait until it is gone; killed with its workers where it does not end in time."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(_STOP_LIMIT_S):
                await process.wait()
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its own group since start_new_session
            await process.wait()
            if not isinstance(error, TimeoutError):
                raise

    async def kill(self) -> None:
        """SIGKILL to the bridge alone, as when it crashes; its workers must end by themselves."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def log_text(self) -> str:
        """All that the bridge has printed, over its restarts."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def log_tail(self) -> str:
        return f"the end of {self.log}:\n{self.log_text()[-_LOG_TAIL:]}"
