"""The page as its links open it: the door, a reload, the other language, the links that do not open, axe-core."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from bridge.identity.links import LinkSigner
from bridge.ids import StageId, parse_user
from tests.helpers.browser import Browser
from tests.helpers.pages import HANG_S, Lang, Tab, Tabs, Theme, at, connection, tabs_of, until
from tests.helpers.tone import level_at, sine
from tests.helpers.world import StageHandle, World

AXE = Path(__file__).parents[2] / "page/node_modules/axe-core/axe.min.js"
WORDS = r"""(() => {
  const copy = document.body.cloneNode(true);
  const names = "bdi, script, noscript, .mxid, .face, .dot, [data-testid=lang], select, .defs";
  for (const each of copy.querySelectorAll(names)) each.remove();
  const labels = [...copy.querySelectorAll("[aria-label], [placeholder]")];
  const spoken = labels.map((each) => each.getAttribute("aria-label") ?? each.placeholder).join(" ");
  return copy.textContent.replace(/@\S+/g, "") + spoken;
})()"""
STILL = """Promise.all(document.getAnimations()
  .filter((each) => each.effect.getTiming().iterations !== Infinity)
  .map((each) => each.finished.catch(() => 0))).then(() => true)"""
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]


@pytest.fixture(scope="module")
async def chromium() -> AsyncIterator[Browser]:
    """It lets no sound out before a click."""
    async with Browser.launch("chromium", autoplay=False) as browser:
        yield browser


@pytest.fixture(scope="module")
async def firefox() -> AsyncIterator[Browser]:
    async with Browser.launch("firefox", autoplay=False) as browser:
        yield browser


@pytest.fixture
async def phone(chromium: Browser) -> AsyncIterator[Tabs]:
    async with tabs_of(chromium) as tabs:
        yield tabs


@pytest.fixture(params=["chromium", "firefox"])
async def either(request: pytest.FixtureRequest, chromium: Browser, firefox: Browser) -> AsyncIterator[Tabs]:
    async with tabs_of(firefox if request.param == "firefox" else chromium) as tabs:
        yield tabs


async def one_speaks(world: World, stage: StageHandle, hz: float) -> None:
    """ava is on the stage and her microphone is open."""
    ava = await world.client("ava", stage)
    await world.set_role(stage, "ava", "speaker")
    await ava.wait(lambda c: c.me.can_speak, HANG_S, "on the stage")
    ava.say(sine(hz, 1.0), loop=True)
    await ava.mic(True)


async def test_one_click_at_the_door_and_a_reload_needs_no_new_link(world: World, either: Tabs) -> None:
    stage = await world.new_stage(topic="A door")
    await one_speaks(world, stage, 520)
    link = await world.link("ben", stage)
    tab = await either.open(link)
    await tab.told("test: door")
    assert not [line for line in await tab.page.console() if line.endswith("test: playing")]
    await tab.sees(at("door"))
    await tab.sees(connection("live"))  # all is connected behind it
    assert await tab.is_so("document.querySelector('[data-testid=sound]').paused")
    address = await tab.page.eval("location.href")
    assert "#" not in address
    assert link.split("#l=")[1] not in await tab.page.eval("document.documentElement.outerHTML")
    assert len(await tab.offers()) == 1

    async def heard() -> bool:
        return level_at(await tab.page.hear(1.0), 520) > -40

    await tab.press("door")
    await until(heard, "the speaker, after one click")
    assert await tab.offers() == [1]  # the click let sound out, it connected nothing

    device = await tab.page.eval("JSON.parse(localStorage.getItem('eyvan.stage." + stage.stage_id + "')).device")
    await tab.page.reload()
    await tab.live()
    await until(heard, "the speaker, after a reload")
    assert await tab.page.eval("location.href") == address
    same = await tab.page.eval("JSON.parse(localStorage.getItem('eyvan.stage." + stage.stage_id + "')).device")
    assert device == same  # it used up no second device of the three
    assert await tab.has_faults() == []


async def shown_words(tab: Tab) -> str:
    """What a person reads or a reader hears, but names."""
    words: str = await tab.page.eval(WORDS)
    return words


async def test_language_and_appearance_turn_all_of_it_and_are_kept(world: World, phone: Tabs) -> None:
    stage = await world.new_stage(topic="Two languages")
    tab = await phone.enter(await world.link("dara", stage))
    assert await tab.page.eval("[document.documentElement.dir, document.documentElement.dataset.theme]") == [
        "ltr",
        "light",
    ]
    day = await tab.page.eval("getComputedStyle(document.body.parentElement).backgroundColor")
    await tab.press("settings")
    await tab.page.click('[data-testid="lang"][data-value="fa"]')
    await tab.page.click('[data-testid="theme"][data-value="dark"]')

    async def persian_and_dark() -> None:
        await tab.sees("document.documentElement.lang === 'fa' && document.documentElement.dir === 'rtl'")
        await tab.sees("document.documentElement.dataset.theme === 'dark'")
        words = await shown_words(tab)
        assert re.findall(r"[A-Za-z]{2,}", words) == []  # M and H are keys
        assert not any(c.isascii() and c.isdigit() for c in words), words
        assert any(c in words for c in "۰۱۲۳۴۵۶۷۸۹"), words
        assert await tab.page.eval("getComputedStyle(document.body.parentElement).backgroundColor") != day

    await persian_and_dark()
    await tab.page.press("Escape")
    await tab.page.reload()
    await tab.live()
    await persian_and_dark()
    await tab.press("settings")
    await tab.page.click('[data-testid="lang"][data-value="en"]')
    await tab.sees("document.documentElement.dir === 'ltr'")
    words = await shown_words(tab)
    assert not any("\u0600" <= c <= "\u06ff" for c in words), words


async def test_each_link_that_does_not_open_says_why_and_what_to_do(world: World, phone: Tabs) -> None:
    stage = await world.new_stage(topic="Closed doors")
    ben = (await world.person("ben")).user
    now = time.time_ns() // 1_000_000
    base = f"{world.web}/s/{stage.stage_id}#l="
    old = LinkSigner(world.site.tokens["link_secret"]).make(
        parse_user(ben), stage.room_id, StageId(stage.stage_id), now - 13 * 3_600_000, 12
    )
    good = (await world.link("ben", stage)).split("#l=")[1]
    altered = good[:-4] + ("AAAA" if good[-4:] != "AAAA" else "BBBB")

    async def closed(link: str, why: str, *, new_link: bool = True) -> Tab:
        tab = await phone.open(link)
        await tab.sees(at("closed", why))
        assert await tab.is_so(at("note-closed"))
        assert await tab.is_so(connection("ended"))
        assert ("!link" in (await tab.page.text("main") or "")) is new_link
        assert "#" not in await tab.page.eval("location.href")
        return tab

    await closed(base + old, "expired")
    await closed(base + altered, "altered")
    await closed(f"{world.web}/s/{secrets.token_urlsafe(16)}", "over", new_link=False)

    await phone.enter(base + good)
    await until_refused(world, good, new_devices=True)
    await closed(base + good, "devices")

    dara = await world.person("dara")
    outside = await world.link("dara", stage)
    await dara.leave(stage.room_id)
    await until_refused(world, outside.split("#l=")[1])
    await closed(outside, "membership")

    fresh = (await world.link("ben", stage)).split("#l=")[1]
    await world.users["ben"].send(stage.room_id, "!link revoke")
    await until_refused(world, fresh)
    await closed(base + fresh, "revoked")


async def until_refused(world: World, token: str, *, new_devices: bool = False) -> None:
    """Ask with the link until it opens nothing any more; as one device, or each time as a new one."""
    async with aiohttp.ClientSession() as http, asyncio.timeout(HANG_S):
        device: str | None = None
        while True:
            body = {"link": token} if device is None else {"link": token, "device": device}
            async with http.post(f"{world.web}/api/v1/sessions", json=body) as answer:
                if answer.status != 200:
                    return
                device = None if new_devices else (await answer.json())["device"] or device


async def test_a_guest_has_neither_hand_nor_names(world: World, phone: Tabs) -> None:
    stage = await world.new_stage(topic="Open doors")
    await one_speaks(world, stage, 610)
    await world.client("cyrus", stage)
    tab = await phone.enter(world.guest_link(stage))
    await tab.sees(at("audience"))

    async def heard() -> bool:
        return level_at(await tab.page.hear(1.0), 610) > -40

    await until(heard, "the speaker")
    await tab.press("hand")
    await tab.sees(at("guest-sheet"))
    assert not await tab.is_so(at("hand-send"))
    await tab.page.press("Escape")
    await tab.press("people")
    await tab.sees(at("people-sheet"))
    assert "cyrus" not in await tab.page.eval("document.documentElement.outerHTML")
    assert not await tab.is_so(at("person", role="listener"))


@pytest.mark.parametrize(("lang", "theme", "size"), [("fa", "light", (390, 844)), ("en", "dark", (1280, 800))])
async def test_axe_finds_nothing(world: World, lang: Lang, theme: Theme, size: tuple[int, int]) -> None:
    stage = await world.new_stage(topic="شعر و صدا" if lang == "fa" else "Poems and sound")
    await one_speaks(world, stage, 700)
    ben = await world.client("ben", stage)
    await ben.hand(True, "یک پرسش" if lang == "fa" else "A question")
    async with Browser.launch("chromium", viewport=size) as browser, tabs_of(browser) as tabs:
        for name, opened in (("host", ("", "settings")), ("cyrus", ("", "people", "settings", "hand"))):
            tab = await tabs.enter(await world.link(name, stage), lang=lang, theme=theme)
            await tab.sees(at("speaker"))
            for sheet in opened:
                if sheet:
                    await tab.press(sheet)
                assert await axe(tab) == [], f"{name} {sheet}"
                if sheet:
                    await tab.page.press("Escape")


async def axe(tab: Tab) -> list[str]:
    """What axe-core minds about the page as it stands, animations done."""
    await tab.page.eval(STILL)
    await tab.page.eval(AXE.read_text(encoding="utf-8") + ";0")
    found: list[str] = await tab.page.eval(
        f"axe.run({{ runOnly: {RULES} }}).then(({{ violations }}) => violations.map((each) =>"
        " `${each.id}: ${each.help}: ${each.nodes.map((node) => node.html.slice(0, 150)).join(' | ')}`))"
    )
    return found
