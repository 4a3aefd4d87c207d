"""The real page in a real browser, as the tests of ``tests/world/test_page*.py`` open and read it.

Several people share a browser: each tab keeps to itself what a person's own browser would keep (``OWN_STORAGE``). It
counts its peer connections and offers, so that a test can tell that coming up is no reconnect; it keeps the states that
the hand and the microphone have had, and how many tones the page has played to its person.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.helpers.browser import Browser, Page
from tests.helpers.world import World

HANG_S = 90
Lang = Literal["en", "fa"]
Theme = Literal["light", "dark"]

OWN_STORAGE = """
Object.defineProperty(window, "localStorage", { configurable: true, get: () => sessionStorage });
if (sessionStorage.getItem("eyvan.lang") === null) {
  sessionStorage.setItem("eyvan.lang", "%(lang)s");
  sessionStorage.setItem("eyvan.theme", "%(theme)s");
}
"""
# Browsers take a steady tone for noise and remove it; a person's voice they leave. Only that processing is turned off.
PLAIN_MICROPHONE = """
const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
window.microphonesAsked = 0;
navigator.mediaDevices.getUserMedia = (wish) => {
  window.microphonesAsked++;
  return real({ ...wish, audio: {
    ...(typeof wish.audio === "object" ? wish.audio : {}),
    echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
};
"""
COUNT_OFFERS = """
window.peers = [];
window.RTCPeerConnection = class extends RTCPeerConnection {
  offers = 0;
  constructor(...given) { super(...given); window.peers.push(this); }
  setLocalDescription(...given) { this.offers++; return super.setLocalDescription(...given); }
};
"""
# A driver's look into a page counts as the person's touch, after which browsers let sound out: whoever wants to see the
# door must not look. The page tells it on its console.
TELL = """
new MutationObserver(() => {
  const door = document.querySelector('[data-testid="door"]') !== null;
  if (door !== window.doorTold) console.info(door ? "test: door" : "test: no door");
  window.doorTold = door;
}).observe(document, { subtree: true, childList: true });
document.addEventListener("playing", () => console.info("test: playing"), true);
"""
KEEP_STATES = """
window.seen = { hand: [], mic: [] };
window.tones = 0;
const start = AudioScheduledSourceNode.prototype.start;
AudioScheduledSourceNode.prototype.start = function (...given) {
  window.tones++;
  return start.apply(this, given);
};
new MutationObserver(() => {
  for (const [id, states] of Object.entries(window.seen)) {
    const state = document.querySelector(`[data-testid="${id}"]`)?.dataset.state;
    if (state !== undefined && states.at(-1) !== state) states.push(state);
  }
}).observe(document, { subtree: true, childList: true, attributes: true, attributeFilter: ["data-state"] });
"""


def at(testid: str, state: str | None = None, *, user: str = "", **data: str) -> str:
    """JavaScript: whether such an element is there; ``state`` and ``data``: its ``data-…`` as told."""
    selector = f'[data-testid="{testid}"]' + (f'[data-user="{user}"]' if user else "")
    wanted = {"state": state, **data} if state is not None else data
    selector += "".join(f'[data-{name}="{value}"]' for name, value in wanted.items())
    return f"document.querySelector('{selector}') !== null"


def shows(testid: str, text: str) -> str:
    """JavaScript: whether it shows this text, Fluent's marks of direction left out."""
    shown = f"(document.querySelector('[data-testid={testid}]')?.innerText ?? '')"
    return f"{shown}.replace(/[\\u2068\\u2069]/g, '').includes('{text}')"


def absent(testid: str, *, user: str = "") -> str:
    return f"!({at(testid, user=user)})"


def connection(state: str) -> str:
    return f"document.documentElement.dataset.connection === '{state}'"


@dataclass(frozen=True, slots=True)
class Tab:
    """One person's page."""

    page: Page

    async def sees(self, condition: str, timeout_s: float = HANG_S) -> None:
        await self.page.wait(condition, timeout_s)

    async def is_so(self, condition: str) -> bool:
        return bool(await self.page.eval(condition))

    async def press(self, testid: str, *, user: str = "") -> None:
        """A click; a browser takes none in a tab behind another, there it is a call."""
        selector = f'[data-testid="{testid}"]' + (f'[data-user="{user}"]' if user else "")
        it = f"document.querySelector('{selector}')"
        await self.sees(f"{it} && !{it}.disabled && {it}.getClientRects().length > 0")
        if await self.is_so("document.hidden"):
            await self.page.eval(f"{it}.click()")
        else:
            await self.page.click(selector)

    async def live(self) -> None:
        """Connected; the door, where the browser has put one, is opened."""
        await self.sees(connection("live"))
        await self.sees(f"{at('door')} || document.querySelector('[data-testid=sound]')?.paused === false")
        if await self.is_so(at("door")):
            await self.press("door")
            await self.sees(absent("door"))

    async def told(self, line: str) -> None:
        """Until the page has said so on its console (``TELL``); nothing is looked up in it."""

        async def said() -> bool:
            await asyncio.sleep(0.05)
            return any(each.endswith(line) for each in await self.page.console())

        await until(said, line)

    async def microphone_on(self) -> None:
        await self.sees(at("mic", "off"))
        await self.press("mic")
        await self.sees(at("mic", "on"))

    async def offers(self) -> list[int]:
        """For each peer connection that this document made, how often it made an offer."""
        counts: list[int] = await self.page.eval("window.peers.map((each) => each.offers)")
        return counts

    async def has_faults(self) -> list[str]:
        """What the page should not have said on its console."""
        return [line for line in await self.page.console() if line.startswith(("pageerror", "error: Refused"))]


class Tabs:
    """Opens tabs in one browser; ``close`` closes them, harmless twice."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self._open: list[Page] = []

    async def open(self, link: str, *, lang: Lang = "en", theme: Theme = "light") -> Tab:
        before = OWN_STORAGE % {"lang": lang, "theme": theme} + PLAIN_MICROPHONE + COUNT_OFFERS + KEEP_STATES + TELL
        page = await self.browser.open(link, before=before)
        self._open.append(page)
        return Tab(page)

    async def enter(self, link: str, *, lang: Lang = "en", theme: Theme = "light") -> Tab:
        """Open, and go in."""
        tab = await self.open(link, lang=lang, theme=theme)
        await tab.live()
        return tab

    async def close(self) -> None:
        pages, self._open = self._open, []
        for page in pages:
            await page.close()


@asynccontextmanager
async def tabs_of(browser: Browser) -> AsyncIterator[Tabs]:
    tabs = Tabs(browser)
    try:
        yield tabs
    finally:
        await tabs.close()


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Ask until it holds; the asking itself takes its time."""
    end = asyncio.get_running_loop().time() + HANG_S
    while not await condition():
        assert asyncio.get_running_loop().time() < end, f"not within {HANG_S} s: {what}"


def media_workers(world: World) -> list[int]:
    """The processes of the relay: the bridge's children."""
    children = Path(f"/proc/{world.bridge.pid}/task/{world.bridge.pid}/children").read_text().split()
    return [int(pid) for pid in children]


@contextmanager
def stopped_relay(world: World) -> Iterator[None]:
    """SIGSTOP to the media workers, SIGCONT at the end: the bridge and its pages go on without sound."""
    workers = media_workers(world)
    assert workers
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
