"""Call tokens by way of the homeserver itself (MSC4512): it knows its user already, so no OpenID token is needed.

The registration claims ``rtc/livekit``; what clients ask the homeserver below that path (MSC4195) it passes on to the
application service's address, with the user's id in a header and the ``hs_token`` as proof that it is the homeserver.
Beside this, ``/livekit`` serves everybody else: clients that do not know of it, and users of other homeservers.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from bridge.errors import BadInput, BadToken, EyvanError
from bridge.ids import parse_user
from bridge.registration import RTC_PREFIX
from bridge.web.livekit import LiveKit, object_of

log = logging.getLogger(__name__)

_USER = "X-Matrix-User-Identifier"
_PATH = "/_matrix/client/{version:v[0-9]+|unstable/[^/]+}/" + RTC_PREFIX


class Proxied:
    """Routes on the listener that only the homeserver reaches."""

    def __init__(self, calls: LiveKit, hs_token: str) -> None:
        self._calls, self._proof = calls, f"Bearer {hs_token}".encode()

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post(f"{_PATH}/get_token", self._get_token),
            web.route("*", _PATH + "/{rest:.*}", self._unrecognized),  # clients so learn that we send nobody's leave
        ]

    async def _get_token(self, request: web.Request) -> web.StreamResponse:
        try:
            came = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
            if not hmac.compare_digest(came, self._proof):
                raise BadToken("unknown", "only our homeserver may ask here")
            user = request.headers.get(_USER)
            if user is None:
                raise BadInput(_USER, user, "use a homeserver with MSC4512")
            body: Mapping[str, Any] = object_of(await request.read())
            return web.json_response(await self._calls.give(parse_user(user, _USER), body))
        except EyvanError as error:
            log.info("a call token is refused: %s", error)
            return self._calls.refusal(request, error)

    async def _unrecognized(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"errcode": "M_UNRECOGNIZED", "error": "not served"}, status=404)
