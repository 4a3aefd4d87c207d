"""One request to the homeserver, repeated where that may help (client-server API v1.15, "Standard error response").

mautrix carries the request; its own retry is not used, as it drops ``retry_after_ms`` and does not repeat a 429.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote

import aiohttp
from mautrix.api import HTTPAPI, Method
from mautrix.errors import MatrixConnectionError
from yarl import URL

from bridge.errors import MatrixRefused, Unavailable, shown

log = logging.getLogger(__name__)

CLIENT = "/_matrix/client/v3"

Query = Mapping[str, str | Sequence[str]]


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """Seconds. ``total_s`` is how long one request is repeated before Unavailable."""

    total_s: float = 30
    first_pause_s: float = 0.25
    longest_pause_s: float = 8
    request_s: float = 20


def api_path(*segments: str) -> str:
    """The segments, each percent-encoded whole: a state key may hold ``/``, ``?``, ``%``, be ``..`` or empty."""
    return "/" + "/".join(_segment(segment) for segment in segments)


def _segment(text: str) -> str:
    # quote() leaves dots alone, and a segment "." or ".." would be taken for a relative path (RFC 3986 §5.2.4).
    return text.replace(".", "%2E") if text in (".", "..") else quote(text, safe="")


class _Refused(Exception):
    """An answer that is not 2xx. ``retry_after_s`` is 0 where the homeserver named no time."""

    def __init__(self, status: int, errcode: str, text: str, retry_after_s: float) -> None:
        super().__init__(f"{status} {errcode}: {text}")
        self.status, self.errcode, self.text, self.retry_after_s = status, errcode, text, retry_after_s


class _Api(HTTPAPI):
    """mautrix's request, with the whole of a refusal kept."""

    async def _send(
        self, method: Method, url: URL, content: Any, query_params: dict[str, str], headers: dict[str, str]
    ) -> tuple[Any, aiohttp.ClientResponse]:
        request = self.session.request(str(method), url, data=content, params=query_params, headers=headers)
        async with request as response:
            text = await response.text(errors="replace")
            try:
                answer = json.loads(text)
            except (ValueError, RecursionError):
                answer = None
            if 200 <= response.status < 300 and answer is not None:
                return answer, response
            raise _refusal(response, answer, text)


def _refusal(response: aiohttp.ClientResponse, answer: Any, text: str) -> _Refused:
    """What a refusal says. A 2xx that is not JSON comes from something in between: a bad gateway."""
    known: Mapping[str, Any] = answer if isinstance(answer, dict) else {}
    status = response.status if response.status >= 300 else 502
    errcode = known.get("errcode")
    error = known.get("error")
    return _Refused(
        status,
        errcode if isinstance(errcode, str) else "M_UNKNOWN",
        error if isinstance(error, str) else shown(text),
        _retry_after_s(response, known) if status == 429 else 0,
    )


def _retry_after_s(response: aiohttp.ClientResponse, known: Mapping[str, Any]) -> float:
    """The header replaces the field since Matrix v1.10; servers send either or both."""
    for value, per_second in ((response.headers.get("Retry-After"), 1), (known.get("retry_after_ms"), 1000)):
        try:
            wait = float(value) / per_second if value is not None else 0.0
        except (TypeError, ValueError):
            continue
        if 0 < wait < 86_400:
            return wait
    return 0.0


class HomeserverApi:
    """The homeserver as the appservice's own user sees it. Owns its HTTP session; ``close`` is harmless twice."""

    def __init__(self, url: str, as_token: str, limits: RetryLimits) -> None:
        self._url, self._token, self._limits = url, as_token, limits
        self._api: _Api | None = None
        self._closed = False
        self.requests = self.retries = self.limited = 0

    async def close(self) -> None:
        self._closed = True
        api, self._api = self._api, None
        if api is not None:
            await api.session.close()

    async def request(
        self,
        method: Method,
        path: str,
        content: Mapping[str, Any] | None = None,
        *,
        query: Query | None = None,
        repeatable: bool = True,
        patience_s: float | None = None,
    ) -> Any:
        """The JSON answered. ``path`` is encoded already (``api_path``).

        429 waits as long as the homeserver says; 5xx and a broken connection are repeated with growing pauses.
        ``repeatable=False`` is for what must not happen twice (a room made): it is repeated only where the
        homeserver surely did nothing. ``patience_s``: how long one answer may take, where 20 s is too short.

        Raises MatrixRefused (final) and Unavailable (``RetryLimits.total_s`` are over, or closed)."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._limits.total_s
        pause = self._limits.first_pause_s
        while True:
            try:
                return await self.once(method, path, content, query=query, patience_s=patience_s)
            except (_Refused, MatrixConnectionError, TimeoutError, OSError) as error:
                wait = self._pause_after(error, pause, repeatable)
                if loop.time() + wait > deadline:
                    raise Unavailable(
                        f"{method} {path}: given up after {self._limits.total_s:g} s: {_said(error)}"
                    ) from error
                log.info("%s %s: %s; again in %.2f s", method, path, _said(error), wait)
            self.retries += 1
            await asyncio.sleep(wait)
            pause = min(pause * 2, self._limits.longest_pause_s)

    async def ask_once(
        self, method: Method, path: str, content: Mapping[str, Any] | None = None, *, patience_s: float | None = None
    ) -> Any:
        """Like ``request`` without any repetition: every answered refusal is MatrixRefused, 5xx too."""
        try:
            return await self.once(method, path, content, patience_s=patience_s)
        except _Refused as error:
            raise MatrixRefused(error.errcode, error.status, error.text) from error
        except (MatrixConnectionError, TimeoutError, OSError) as error:
            raise Unavailable(f"{method} {path}: {_said(error)}") from error

    async def once(
        self,
        method: Method,
        path: str,
        content: Mapping[str, Any] | None,
        *,
        query: Query | None = None,
        patience_s: float | None = None,
    ) -> Any:
        self.requests += 1
        parameters = cast(dict[str, str], dict(query or {}))  # mautrix hands lists on to aiohttp, which repeats the key
        async with asyncio.timeout(patience_s or self._limits.request_s):
            return await self._open().request(
                method,
                path,
                dict(content or {}),
                query_params=parameters,
                retry_count=0,
                sensitive=method is not Method.GET,  # bodies hold personal links; mautrix stumbles over a GET's None
            )

    def _open(self) -> _Api:
        if self._closed:
            raise Unavailable("the connection to the homeserver is closed")
        if self._api is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)  # the whole is timed per request
            session = aiohttp.ClientSession(timeout=timeout, headers={"User-Agent": "Eyvan"})
            self._api = _Api(self._url, self._token, client_session=session)
        return self._api

    def _pause_after(self, error: Exception, pause: float, repeatable: bool) -> float:
        """Seconds to wait before the next try. Raises where there must be none."""
        jittered = pause * random.uniform(0.75, 1.25)  # noqa: S311  (spreads retries, hides nothing)
        if isinstance(error, _Refused):
            if error.status == 429:
                self.limited += 1
                return error.retry_after_s or jittered
            if error.status < 500:
                raise MatrixRefused(error.errcode, error.status, error.text) from error
        if not repeatable and not isinstance(error.__cause__, aiohttp.ClientConnectorError):
            raise Unavailable(f"it is not known whether it was done: {_said(error)}") from error
        return jittered


def _said(error: Exception) -> str:
    """TimeoutError has no text of its own."""
    return str(error) or type(error).__name__
