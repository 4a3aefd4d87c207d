"""WHEP (draft-ietf-wish-whep): a stage's sound by WebRTC for players, studio gear and load tests.

========================================  ==================================================================
``POST /whep/{stage}``                    offer → 201, answer, ``Location`` of the resource, ``ETag``
``PATCH /whep/{stage}/{resource}``        trickle: 204 (we are ICE-lite, candidates are not needed);
                                          other ICE credentials: a restart, 200 with ours (RFC 9725 §4.3)
``DELETE /whep/{stage}/{resource}``       200
``OPTIONS`` on both                       what is taken; CORS
========================================  ==================================================================

::

    offered ── connects ──▶ playing ── DELETE, kick, ban, end, guests off, 30 s silent ──▶ gone
       └──── never connects within 30 s (the relay tells) ───────────────────────────────▶ gone

A resource is a seat in the live stage, like a page, and hears by the same rules; it is never heard. Refusals are
problem details (RFC 9457). Other origins are let in for guests alone: with a bearer token only pages of our own.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from bridge.errors import BadInput, BadToken, EyvanError, Full, NotFound
from bridge.ids import SessionId, new_session_id
from bridge.live.stage import LiveStage
from bridge.live.view import Me, View
from bridge.telemetry import metrics
from bridge.web.access import Access, Gatekeeper, bearer
from bridge.web.sources import Places, Sources

MAX_BODY = 64 * 1024  # bytes
_BODY_S = 10.0
_IN_FRAGMENT = ("m=", "a=mid:", "a=ice-ufrag:", "a=ice-pwd:", "a=candidate:", "a=end-of-candidates")
_SDP = "application/sdp"
_FRAGMENT = "application/trickle-ice-sdpfrag"  # RFC 8840
_UFRAG = re.compile(r"^a=ice-ufrag:([A-Za-z0-9+/]{4,256})[ \t\r]*$", re.MULTILINE)  # RFC 8839 §5.4
_PASSWORD = re.compile(r"^a=ice-pwd:([A-Za-z0-9+/]{22,256})[ \t\r]*$", re.MULTILINE)

_opened = metrics.counter("eyvan_whep_total", "WHEP resources made")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Says = Callable[[web.Request, EyvanError], str]


@dataclass(slots=True, eq=False)
class Resource:
    """One player, as its live stage sees it (`bridge.live.ports.Page`). ``gone`` is called once when it ends."""

    id: str
    session: SessionId
    access: Access
    stage: LiveStage
    offer: str
    gone: Callable[[Resource], None]
    etag: str = ""
    ends: list[Callable[[], None]] = field(default_factory=list)

    def show(self, view: View, me: Me) -> None: ...
    def levels(self, levels: Mapping[int, int]) -> None: ...
    def notice(self, key: str, by_name: str) -> None: ...

    def sound_lost(self) -> None:
        """It never connected, or is silent for 30 s, or the relay's worker died: the player makes another resource."""
        self.gone(self)

    def bye(self, reason: str) -> None:
        self.gone(self)


class Whep:
    """All WHEP resources. Owned by the web server; ``close`` ends them. Bound: 2,000, with an offer of at most 64 KiB
    each; 8 of a person, ``guests`` of a source of guests. ``says``: an error in the words of who asked."""

    def __init__(self, gate: Gatekeeper, sources: Sources, public_url: str, says: Says, guests: int) -> None:
        self._gate, self._sources, self._says = gate, sources, says
        self._public = public_url.rstrip("/")
        self._places = Places("WHEP connections", 2_000, 8, guests)
        self._resources: dict[str, Resource] = {}

    def __len__(self) -> int:
        return len(self._resources)

    def routes(self) -> list[web.RouteDef]:
        stage = "/whep/{stage:[A-Za-z0-9_-]{16,43}}"
        resource = stage + "/{resource:[A-Za-z0-9_-]{22}}"
        return [
            web.post(stage, self._answering(self._post)),
            web.options(stage, self._answering(self._options)),
            web.patch(resource, self._answering(self._patch)),
            web.delete(resource, self._answering(self._delete)),
            web.options(resource, self._answering(self._options)),
        ]

    def close(self) -> None:
        for resource in list(self._resources.values()):
            self._end(resource)

    # -- answers -------------------------------------------------------------------------------

    def _answering(self, handler: Handler) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                response = await handler(request)
            except EyvanError as error:
                response = self._problem(request, error)
            response.headers.update(self._cors(request))
            response.headers.setdefault("Cache-Control", "no-store")
            return response

        return answer

    def _problem(self, request: web.Request, error: EyvanError) -> web.Response:
        status = error.status if error.status < 600 else 500
        body: dict[str, object] = {"type": "about:blank", "title": type(error).__name__, "status": status}
        body |= {"detail": self._says(request, error), "errcode": error.errcode}
        headers = {}
        if isinstance(error, BadToken):
            body["reason"] = error.reason
            headers["WWW-Authenticate"] = 'Bearer error="invalid_token"'
        if isinstance(error, Full):
            headers["Retry-After"] = str(-(-error.retry_after_ms // 1000))
        elif status == 503:
            headers["Retry-After"] = "1"
        if isinstance(error, _Unfit):
            status = body["status"] = error.status
            headers |= error.headers
        return web.json_response(body, status=status, headers=headers, content_type="application/problem+json")

    def _cors(self, request: web.Request) -> dict[str, str]:
        """Fetch standard, CORS protocol. ``Authorization`` is not among the headers we allow to other origins."""
        if bearer(request) is not None or not self._gate.has_guests(request.match_info["stage"]):
            return {}
        return {
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Allow-Methods": "POST, PATCH, DELETE, OPTIONS",
            "Access-Control-Allow-Headers": "Content-Type, If-Match",
            "Access-Control-Expose-Headers": "Location, ETag, Accept-Patch, Retry-After",
        }

    async def _options(self, request: web.Request) -> web.StreamResponse:
        if "resource" in request.match_info:
            return web.Response(status=204, headers={"Allow": "PATCH, DELETE, OPTIONS", "Accept-Patch": _FRAGMENT})
        return web.Response(status=204, headers={"Allow": "POST, OPTIONS", "Accept-Post": _SDP})

    # -- a resource's life ---------------------------------------------------------------------

    async def _post(self, request: web.Request) -> web.StreamResponse:
        _check_type(request, _SDP)
        access, stage = await self._gate.admit(request)
        give_back = self._places.take(access.user, self._sources.of(request))
        resource = None
        try:
            offer = await _body(request)
            name = secrets.token_urlsafe(16)
            resource = Resource(name, new_session_id(), access, stage, offer, self._end)
            resource.ends.append(give_back)
            self._resources[name] = resource
            await stage.sit(resource.session, access.user, resource, access.stage, listen_only=True)
            await self._gate.check_revoked(access)
            answer = await stage.offer(resource.session, resource, offer)
        except BaseException:
            give_back()
            if resource is not None:
                self._end(resource)
            raise
        if name not in self._resources:
            raise NotFound("the stage let this connection go; ask again")
        left_s = (access.until_ms - self._gate.now_ms()) / 1000
        timer = asyncio.get_running_loop().call_later(max(0.0, left_s), self._end, resource)
        resource.ends.append(timer.cancel)
        resource.etag = _etag(answer.sdp)
        _opened.inc()
        headers = {
            "Location": f"{self._public}/whep/{access.stage}/{name}",
            "ETag": resource.etag,
            "Accept-Patch": _FRAGMENT,
        }
        return web.Response(status=201, body=answer.sdp.encode(), content_type=_SDP, headers=headers)

    def _end(self, resource: Resource) -> None:
        """Harmless twice."""
        self._resources.pop(resource.id, None)
        ends, resource.ends = resource.ends, []
        for end in ends:
            end()
        resource.stage.rise(resource.session, resource, keep=False)

    def _find(self, request: web.Request) -> Resource:
        """Its name is a secret; where it was made with a token, its owner's token comes along. Raises NotFound,
        BadToken."""
        resource = self._resources.get(request.match_info["resource"])
        if resource is None or not hmac.compare_digest(resource.access.stage, request.match_info["stage"]):
            raise NotFound("there is no such WHEP resource (any more)")
        token = bearer(request)
        user = self._gate.read(token).user if token is not None else None
        if user != resource.access.user:
            raise BadToken("unknown", "send the token with which this resource was made")
        return resource

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        self._end(self._find(request))
        return web.Response(status=200)

    # -- ICE -----------------------------------------------------------------------------------

    async def _patch(self, request: web.Request) -> web.StreamResponse:
        resource = self._find(request)
        _check_type(request, _FRAGMENT)
        fragment = await _body(request)
        wanted = [each.strip() for each in request.headers.get("If-Match", "").split(",") if each.strip()]
        if wanted and "*" not in wanted and resource.etag not in wanted:
            raise _Unfit(412, "If-Match", wanted[0], "the ICE session is another by now", {"ETag": resource.etag})
        offer = restarted(resource.offer, fragment)
        if offer is None:
            return web.Response(status=204)  # their candidates: checks from any address will tell (RFC 8445 §7.3)
        if not wanted:
            raise _Unfit(428, "If-Match", None, 'an ICE restart says If-Match: "*" or the ETag (RFC 9725 §4.3.1)', {})
        answer = await resource.stage.offer(resource.session, resource, offer)
        resource.offer, resource.etag = offer, _etag(answer.sdp)
        headers = {"ETag": resource.etag}
        body = _fragment(answer.sdp).encode()
        return web.Response(status=200, body=body, content_type=_FRAGMENT, headers=headers)


class _Unfit(BadInput):
    """A request that HTTP has a status of its own for."""

    def __init__(self, status: int, name: str, value: object, remedy: str, headers: Mapping[str, str]) -> None:
        super().__init__(name, value, remedy)
        self.status, self.headers = status, dict(headers)


def _check_type(request: web.Request, wanted: str) -> None:
    if request.content_type != wanted:
        headers = {"Accept-Post": _SDP} if wanted == _SDP else {"Accept-Patch": _FRAGMENT}
        raise _Unfit(415, "Content-Type", request.content_type, f"send {wanted}", headers)


async def _body(request: web.Request) -> str:
    """At most MAX_BODY bytes, within _BODY_S. Raises BadInput."""
    data = bytearray()
    try:
        async with asyncio.timeout(_BODY_S):
            async for part in request.content.iter_any():
                data += part
                if len(data) > MAX_BODY:
                    raise _Unfit(413, "body", f"more than {MAX_BODY} bytes", "send 64 KiB at most", {})
    except TimeoutError:
        raise _Unfit(408, "body", f"{len(data)} bytes", f"send it within {_BODY_S:.0f} s", {}) from None
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise BadInput("body", "no UTF-8", "SDP is UTF-8 text (RFC 8866 §5)") from None


def restarted(offer: str, fragment: str) -> str | None:
    """The offer with a fragment's ICE credentials; None where it has no new ones. Raises BadInput."""
    ufrag, password, theirs = _UFRAG.search(fragment), _PASSWORD.search(fragment), _UFRAG.search(offer)
    if ufrag is None or (theirs is not None and ufrag[1] == theirs[1]):
        return None
    if password is None:
        raise BadInput("a=ice-pwd", None, "an ICE restart gives both ice-ufrag and ice-pwd")
    return _PASSWORD.sub(f"a=ice-pwd:{password[1]}\r", _UFRAG.sub(f"a=ice-ufrag:{ufrag[1]}\r", offer))


def _etag(answer: str) -> str:
    """The ICE session is known by our ufrag in it."""
    found = _UFRAG.search(answer)
    return f'"{found[1] if found else ""}"'


def _fragment(answer: str) -> str:
    """Our side of an ICE restart as an SDP fragment (RFC 8840 §9)."""
    session, *sections = answer.split("\r\nm=")
    chosen = [each for each in session.splitlines() if each.startswith(("a=ice-lite", "a=group:"))]
    for section in sections:
        if "a=ice-ufrag:" in section:  # the one that carries the bundle; the others say the same
            chosen += [each for each in f"m={section}".splitlines() if each.startswith(_IN_FRAGMENT)]
            break
    return "\r\n".join(chosen) + "\r\n"
