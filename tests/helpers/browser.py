"""Real browsers in tests: Chromium and Firefox from Debian, driven by puppeteer-core in a Node sidecar.

::

    async with Browser.launch("chromium", wav=tone) as browser:
        page = await browser.open(link)
        await page.click('[data-testid="hand"]')
        await page.wait("document.documentElement.dataset.connection === 'live'")
        heard = await page.hear(2.0)  # int16 at 48 kHz, as the page's <audio> element plays it

Chromium's microphone is a WAV file; Firefox's is a sine of ``tone`` Hz. Firefox's AudioContext stays
suspended without a sound server, so that one gets a PulseAudio with a null sink of its own.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bridge.demo.voices import resample

Kind = Literal["chromium", "firefox"]
Pcm = npt.NDArray[np.int16]
SOUND = '[data-testid="sound"]'
_SIDECAR = Path(__file__).with_name("browser.mjs")
_EXECUTABLE: dict[Kind, str] = {"chromium": "/usr/bin/chromium", "firefox": "/usr/bin/firefox-esr"}
_LIMIT_S = 120.0  # a hang limit for one operation
_LINE = 64 * 1024 * 1024  # bytes: a minute of sound in base64 is 8 MB


class BrowserError(Exception):
    """What the browser or its driver said."""


class Browser:
    """One browser process with a profile of its own. Made by ``launch`` alone."""

    def __init__(self, process: asyncio.subprocess.Process, stderr: Path) -> None:
        self._process, self._stderr = process, stderr
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._reader = asyncio.create_task(self._read(), name="browser sidecar")
        self.pid = 0
        self.version = ""

    @classmethod
    @contextlib.asynccontextmanager
    async def launch(
        cls,
        kind: Kind,
        *,
        wav: Path | None = None,
        tone: int | None = None,
        lang: str = "en",
        viewport: tuple[int, int] = (390, 844),
        dark: bool = False,
        autoplay: bool = True,
        trusted: str = "",
    ) -> AsyncIterator[Browser]:
        """``wav``: Chromium's microphone, looped. ``tone``: Firefox's, in Hz. ``autoplay`` False blocks sound
        until the first click, as browsers do for people. ``trusted``: an origin that gets the microphone
        without TLS."""
        if (kind == "firefox" and wav) or (kind == "chromium" and tone):
            raise ValueError("wav is for Chromium, tone for Firefox")
        async with contextlib.AsyncExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
            env = dict(os.environ)
            if kind == "firefox":
                env |= await stack.enter_async_context(sound_server(directory / "sound"))
            browser = cls(await _sidecar(env, directory / "stderr"), directory / "stderr")
            stack.push_async_callback(browser._close)
            languages = lang if lang.startswith("en") else f"{lang},en"
            settings: dict[str, Any] = {
                "executable": _EXECUTABLE[kind],
                "profile": str(directory / "profile"),
                "wav": str(wav) if wav else None,
                "tone": tone,
                "languages": languages,
                "autoplay": autoplay,
                "trusted": trusted,
            }
            found = await browser.call("launch", kind=kind, viewport=viewport, dark=dark, **settings)
            browser.pid, browser.version = found["pid"], found["version"]
            yield browser

    async def open(self, url: str, *, before: str = "") -> Page:
        """A new page at ``url``, once its document is parsed. ``before``: JavaScript run before the page's own."""
        page = Page(self, f"page{next(self._ids)}")
        await self.call("open", page=page.name, url=url, before=before)
        return page

    async def call(self, operation: str, *, limit_s: float = _LIMIT_S, **given: Any) -> Any:
        """One operation of the sidecar. Raises BrowserError with what it said, or when it hangs or has died."""
        number = next(self._ids)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps({"id": number, "op": operation, **given}).encode() + b"\n")
            return await asyncio.wait_for(future, limit_s)
        except TimeoutError:
            raise BrowserError(f"{operation} {given} hangs for {limit_s:g} s") from None
        finally:
            self._waiting.pop(number, None)

    async def _read(self) -> None:
        assert self._process.stdout
        async for line in self._process.stdout:
            reply = json.loads(line)
            future = self._waiting.get(reply["id"])
            if future is None or future.done():
                continue
            if "error" in reply:
                future.set_exception(BrowserError(reply["error"]))
            else:
                future.set_result(reply["ok"])
        said = await asyncio.to_thread(self._stderr.read_text, errors="replace")
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(BrowserError(f"the browser's driver ended: {said[-2000:]}"))

    async def _close(self) -> None:
        """Ends the browser by closing the sidecar's stdin; kills its process group where that does not help."""
        assert self._process.stdin
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 15)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
        await self._reader


class Page:
    """One tab. Selectors are CSS; JavaScript is an expression whose value JSON can hold."""

    def __init__(self, browser: Browser, name: str) -> None:
        self._browser, self.name = browser, name

    async def _call(self, operation: str, *, limit_s: float = _LIMIT_S, **given: Any) -> Any:
        return await self._browser.call(operation, page=self.name, limit_s=limit_s, **given)

    async def click(self, selector: str, timeout_s: float = 30) -> None:
        """Click once the element is there, visible and enabled."""
        await self._call("click", selector=selector, limit=timeout_s, limit_s=timeout_s + 30)

    async def type(self, selector: str, text: str) -> None:
        await self._call("type", selector=selector, text=text)

    async def press(self, key: str) -> None:
        """A key by its name, such as ``Enter`` or ``Escape``."""
        await self._call("press", key=key)

    async def text(self, selector: str) -> str | None:
        """The text shown by the first such element; None where there is none."""
        text: str | None = await self._call("text", selector=selector)
        return text

    async def wait(self, condition: str, timeout_s: float = 30) -> Any:
        """Until the JavaScript expression is truthy; its value. Raises BrowserError with what the page shows."""
        return await self._call("wait", condition=condition, limit=timeout_s, limit_s=timeout_s + 30)

    async def eval(self, js: str) -> Any:
        """The value of an expression; a promise is awaited."""
        return await self._call("eval", js=js)

    async def frame(self, part: str, timeout_s: float = 30) -> Page:
        """The frame whose URL holds ``part``, to be spoken to like a page; its console is the page's."""
        inner = Page(self._browser, f"{self.name}.{part}")
        await self._call("frame", name=inner.name, part=part, limit=timeout_s, limit_s=timeout_s + 30)
        return inner

    async def screenshot(self, path: Path) -> None:
        await self._call("screenshot", path=str(path))

    async def hear(self, seconds: float, selector: str = SOUND) -> Pcm:
        """What the ``<audio>`` element plays in the next ``seconds``, without a gap: int16 mono at 48 kHz.

        Raises BrowserError when it has no stream, is paused or muted."""
        got = await self._call("hear", selector=selector, seconds=seconds, limit_s=_LIMIT_S + 6 * seconds)
        pcm = np.frombuffer(base64.b64decode(got["pcm"]), "<i2")
        return resample(pcm.astype(float), int(got["rate"])).astype(np.int16)[: int(seconds * 48_000)]

    async def offline(self, offline: bool) -> None:
        """Cut the page's HTTP and WebSocket (Chromium only; WebRTC goes on)."""
        await self._call("offline", offline=offline)

    async def reload(self) -> None:
        await self._call("reload")

    async def console(self) -> list[str]:
        """The last 500 console lines and uncaught errors, each ``type: text``."""
        lines: list[str] = await self._call("console")
        return lines

    async def requests(self) -> list[str]:
        """The URLs of the last 500 requests; in Chromium WebSockets are among them."""
        urls: list[str] = await self._call("requests")
        return urls

    async def close(self) -> None:
        await self._call("closePage")


async def _sidecar(env: dict[str, str], stderr: Path) -> asyncio.subprocess.Process:
    with await asyncio.to_thread(stderr.open, "wb") as log:
        return await asyncio.create_subprocess_exec(
            *("node", str(_SIDECAR)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env=env,
            limit=_LINE,
            start_new_session=True,
        )


@contextlib.asynccontextmanager
async def sound_server(directory: Path) -> AsyncIterator[dict[str, str]]:
    """A PulseAudio with a null sink at 48 kHz; yields the environment in which programs find it.

    Raises BrowserError with what PulseAudio said where it does not start."""
    await asyncio.to_thread(directory.mkdir, mode=0o700)
    if shutil.which("pulseaudio") is None:
        raise BrowserError("pulseaudio is missing; apt-get install pulseaudio pulseaudio-utils")
    address = f"unix:{directory}/native"
    env = {**os.environ, "XDG_RUNTIME_DIR": str(directory), "HOME": str(directory), "PULSE_SERVER": address}
    log = directory / "log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *("pulseaudio", "-n", "--daemonize=no", "--use-pid-file=no", "--exit-idle-time=-1", "--disable-shm"),
            *("-L", f"module-native-protocol-unix socket={directory}/native auth-anonymous=1"),
            *("-L", "module-null-sink sink_name=nowhere rate=48000"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={name: value for name, value in env.items() if name != "PULSE_SERVER"},
        )
    try:
        async with asyncio.timeout(30):
            while await _run("pactl", "info", env=env):
                if process.returncode is not None:
                    raise BrowserError(f"pulseaudio ended: {log.read_text(errors='replace')}")
                await asyncio.sleep(0.05)
        yield {"XDG_RUNTIME_DIR": str(directory), "PULSE_SERVER": address}
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _run(*command: str, env: dict[str, str]) -> int:
    process = await asyncio.create_subprocess_exec(
        *command, env=env, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    return await process.wait()
