"""`eyvan run` as a child process, for the demo and for tests: started, watched, stopped or killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import aiohttp

from bridge.errors import Unavailable

_START_LIMIT_S = 90.0
_STOP_LIMIT_S = 20.0
_LOG_TAIL = 3_000  # characters

# PR_SET_PDEATHSIG (prctl(2), option 1) outlives exec: the bridge ends with us however we end.
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


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
        """Start, and return when it is ready. Raises Unavailable with the end of its log where it dies or hangs."""
        if self.pid:
            return
        command = [sys.executable, "-m", "bridge", "run", "-c", str(self.config)]
        with self.log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", _DIE_WITH_PARENT, str(os.getpid())),
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,  # Ctrl-C in our terminal reaches us alone; we stop it in our order
            )
        try:
            async with asyncio.timeout(_START_LIMIT_S):
                await self._until_ready()
        except TimeoutError:
            await self.stop()
            raise Unavailable(f"the bridge was not ready within {_START_LIMIT_S:g} s; {self.log_tail()}") from None
        except BaseException:
            await self.stop()
            raise

    async def _until_ready(self) -> None:
        assert self._process
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as http:
            while True:
                if self._process.returncode is not None:
                    raise Unavailable(f"the bridge ended with code {self._process.returncode}; {self.log_tail()}")
                with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                    async with http.get(self.ready_url) as response:
                        if response.status == 200:
                            return
                await asyncio.sleep(0.05)

    async def wait(self) -> int:
        """Until it has ended by itself; its exit code."""
        assert self._process
        return await self._process.wait()

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
