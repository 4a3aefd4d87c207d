"""A listener in a process of its own, for another network namespace: ``python -m tests.helpers.far_ear KIND LINK``.

``page`` is a PageClient, ``chromium`` a real browser. Listens until voices were heard, then prints one JSON object:
their level and, of the browser, every request and every description and candidate of its peer connections.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from bridge.demo.people import PageClient
from tests.helpers.browser import SOUND, Browser
from tests.helpers.tone import rms_dbfs

VOICE_DBFS = -40.0
_WINDOW_S = 1.5
_TRIES = 40  # a hang limit: the voices pause between two sentences
_LIMIT_S = 120.0

_KEEP_PEERS = """
window.keptPeers = [];
window.RTCPeerConnection = class extends RTCPeerConnection {
  constructor(settings) { super(settings); window.keptPeers.push([this, settings ?? null]); }
};
"""
_PEERS = """
Promise.all(window.keptPeers.map(async ([peer, settings]) => ({
  settings,
  offer: peer.localDescription?.sdp ?? "",
  answer: peer.remoteDescription?.sdp ?? "",
  candidates: [...(await peer.getStats()).values()].filter((each) => each.type.endsWith("-candidate"))
    .map((each) => ({ type: each.candidateType, address: each.address ?? each.ip ?? null, url: each.url ?? null })),
})))
"""


async def page(link: str) -> dict[str, Any]:
    """By the page's protocol."""
    async with PageClient(link, name="far") as client:
        await client.wait(lambda c: rms_dbfs(c.recent(_WINDOW_S)) > VOICE_DBFS, _LIMIT_S, "voices")
        return {"dbfs": rms_dbfs(client.recent(_WINDOW_S))}


async def chromium(link: str) -> dict[str, Any]:
    """By the page itself."""
    async with Browser.launch("chromium") as browser:
        tab = await browser.open(link, before=_KEEP_PEERS)
        await tab.wait(f"document.querySelector('{SOUND}')?.srcObject?.getAudioTracks().length", _LIMIT_S)
        for _ in range(_TRIES):
            level = rms_dbfs(await tab.hear(_WINDOW_S))
            if level > VOICE_DBFS:
                break
        return {
            "dbfs": level,
            "requests": await tab.requests(),
            "peers": await tab.eval(_PEERS),
            "console": await tab.console(),
        }


async def main() -> None:
    kind, link = sys.argv[1:]
    sys.stdout.write(json.dumps(await {"page": page, "chromium": chromium}[kind](link)) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
