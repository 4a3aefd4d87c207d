"""A stage for music, and somebody who is "not for me", on the real page: two channels from browser to browser."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from bridge.demo.people import PageClient
from tests.helpers.browser import Browser
from tests.helpers.pages import HANG_S, Tab, Tabs, at, tabs_of
from tests.helpers.tone import level_at
from tests.helpers.world import World

LEFT, RIGHT = 440, 660
# An instrument instead of the microphone: one tone to the left, another to the right.
TWO_SIDED_MICROPHONE = f"""
window.asked = [];
navigator.mediaDevices.getUserMedia = async (wish) => {{
  window.asked.push(wish.audio);
  const context = new AudioContext();
  await context.resume();
  const both = context.createChannelMerger(2);
  [{LEFT}, {RIGHT}].forEach((hz, side) => {{
    const tone = new OscillatorNode(context, {{ frequency: hz }});
    const soft = new GainNode(context, {{ gain: 0.1 }});
    tone.connect(soft).connect(both, 0, side);
    tone.start();
  }});
  const out = context.createMediaStreamDestination();
  both.connect(out);
  return out.stream;
}};
"""
# dB of both tones at both ears, in what the page plays.
EARS = f"""
window.ears = async () => {{
  const stream = document.querySelector("[data-testid=sound]").srcObject;
  if (window.earsOf !== stream) {{
    window.earsOf = stream;
    window.analysers = [0, 1].map(() => null);
    const context = new AudioContext();
    await context.resume();
    const split = context.createChannelSplitter(2);
    context.createMediaStreamSource(stream).connect(split);
    window.analysers = window.analysers.map((_, side) => {{
      const analyser = new AnalyserNode(context, {{ fftSize: 8192, smoothingTimeConstant: 0 }});
      split.connect(analyser, side);
      return analyser;
    }});
  }}
  return window.analysers.map((analyser) => {{
    const bins = new Float32Array(analyser.frequencyBinCount);
    analyser.getFloatFrequencyData(bins);
    const bin = (hz) => Math.round((hz * analyser.fftSize) / analyser.context.sampleRate);
    const level = (hz) => Math.max(...bins.slice(bin(hz) - 2, bin(hz) + 3));
    return [level({LEFT}), level({RIGHT})];
  }});
}};
"""


@pytest.fixture(scope="module")
async def chromium() -> AsyncIterator[Browser]:
    async with Browser.launch("chromium") as browser:
        yield browser


@pytest.fixture
async def phones(chromium: Browser) -> AsyncIterator[Tabs]:
    async with tabs_of(chromium) as tabs:
        yield tabs


async def hears(tab: Tab, condition: str) -> None:
    """``condition``: JavaScript on ``l`` and ``r``, each the levels of the left and the right tone at that ear."""
    await tab.page.wait(f"window.ears().then(([l, r]) => {condition})", HANG_S)


def heard(ear: PageClient) -> bool:
    return level_at(ear.recent(1.0), LEFT) > -40


async def test_music_in_two_channels_and_somebody_left_out(world: World, phones: Tabs) -> None:
    stage = await world.new_stage(topic="An evening of setar")
    host, ear = [await world.client(name, stage) for name in ("host", "cyrus")]
    ava, ben = [await phones.enter(await world.link(name, stage)) for name in ("ava", "ben")]
    user = (await world.person("ava")).user
    await ava.page.eval(TWO_SIDED_MICROPHONE)
    await ben.page.eval(EARS)
    await world.set_role(stage, "ava", "speaker")
    await ava.microphone_on()
    await hears(ben, "Math.abs(l[0] - l[1]) < 6 && Math.abs(l[0] - r[0]) < 1 && l[0] > -60")  # one channel, of both
    assert await ava.page.eval("window.asked.map((each) => each.echoCancellation)") == [True]

    await host.act("sound", None, "music")
    await hears(ben, "l[0] - l[1] > 20 && r[1] - r[0] > 20 && l[0] > -60")
    assert await ava.page.eval("window.asked.map((each) => each.echoCancellation)") == [True, False]
    assert [await ava.offers(), await ben.offers()] == [[2], [1]]
    await ear.wait(heard, HANG_S, "the music")

    await ben.press("speaker", user=user)
    await ben.press("leave-out")
    await ben.sees(at("speaker", user=user, **{"left-out": "true"}))
    await hears(ben, "Math.max(...l, ...r) < -80")
    await ear.wait(heard, HANG_S, "the others hear on")
    await ben.page.reload()
    await ben.live()
    await ben.page.eval(EARS)
    await ben.sees(at("speaker", user=user, **{"left-out": "true"}))
    await hears(ben, "Math.max(...l, ...r) < -80")
    await ben.press("speaker", user=user)
    await ben.press("hear-again")
    await hears(ben, "l[0] - l[1] > 20 && r[1] - r[0] > 20 && l[0] > -60")
    assert await ben.has_faults() == await ava.has_faults() == []
