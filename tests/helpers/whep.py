"""A WHEP client: aiortc behind a POST."""

from __future__ import annotations

import aiohttp

from tests.helpers.rtc import RtcClient

SDP = "application/sdp"
FRAGMENT = "application/trickle-ice-sdpfrag"


class WhepPlayer:
    """Not connected until ``play``; ``close`` what it opened."""

    def __init__(self, http: aiohttp.ClientSession, url: str, token: str | None, *, listen_only: bool = True) -> None:
        self._http, self._url = http, url
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.client = RtcClient(listen_only=listen_only)
        self.location = self.etag = ""

    async def play(self) -> WhepPlayer:
        """Raises ConnectionError with the answer's status."""
        await self.client.connect(self.post)
        return self

    async def post(self, offer: str) -> str:
        headers = {**self.headers, "Content-Type": SDP}
        async with self._http.post(self._url, data=offer, headers=headers) as response:
            text = await response.text()
            if response.status != 201:
                raise ConnectionError(f"{response.status} {text}")
            assert response.headers["Content-Type"] == SDP
            self.location, self.etag = response.headers["Location"], response.headers["ETag"]
            assert self.location.startswith(self._url + "/")
            return text

    async def patch(self, fragment: str, if_match: str | None = None) -> tuple[int, str, str]:
        """(status, text, ETag)"""
        headers = {**self.headers, "Content-Type": FRAGMENT, **({"If-Match": if_match} if if_match else {})}
        async with self._http.patch(self.location, data=fragment, headers=headers) as response:
            return response.status, await response.text(), response.headers.get("ETag", "")

    async def delete(self, **headers: str) -> int:
        async with self._http.delete(self.location, headers=headers or self.headers) as response:
            return response.status

    async def close(self) -> None:
        await self.client.close()
