"""A program that we start and that ends with us, however we end: the homeserver and the bridge."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import aiohttp

from bridge.errors import EyvanError, Unavailable

# Runs in the child before the program: PR_SET_PDEATHSIG (prctl(2), option 1) outlives exec. The parent may be gone
# before the call, hence the second look.
_DIE_WITH_PARENT = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, int(sys.argv[2]))
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[3], sys.argv[3:])
"""


class ChildEnded(Unavailable):
    """It ended by itself before it was ready."""


async def start_child(
    *command: str,
    output: Path,
    dies_by: signal.Signals,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> asyncio.subprocess.Process:
    """Start ``command`` (an absolute path and its arguments); what it prints is added to ``output``.

    It gets ``dies_by`` when we end."""
    with output.open("ab") as file:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _DIE_WITH_PARENT, str(os.getpid()), str(int(dies_by))),
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            cwd=cwd,
            env=env,
            start_new_session=True,  # Ctrl-C in our terminal reaches us alone; we stop it in our order
        )


async def until_ready(
    process: asyncio.subprocess.Process,
    what: str,
    ask: Callable[[aiohttp.ClientSession], Awaitable[object]],
    limit_s: float,
    log_tail: Callable[[], str],
) -> None:
    """Until ``ask`` raises nothing. Raises ChildEnded where it dies first, Unavailable after ``limit_s``, both with
    the end of its log."""
    try:
        async with (
            asyncio.timeout(limit_s),
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as http,
        ):
            while True:
                if process.returncode is not None:
                    raise ChildEnded(f"{what} ended with code {process.returncode}; {log_tail()}")
                with contextlib.suppress(EyvanError, aiohttp.ClientError, TimeoutError, OSError):
                    await ask(http)
                    return
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise Unavailable(f"{what} was not ready within {limit_s:g} s; {log_tail()}") from None
