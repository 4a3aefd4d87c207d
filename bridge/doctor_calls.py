"""``eyvan doctor`` for Element Call: what the homeserver and its name tell clients, asked as a client asks.

The steps are those of docs/element-call.md; each remedy prints exactly what goes where.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp

from bridge.errors import shown
from bridge.findings import Finding, Patient, ask, bad, good, json_of, warn, why

DEPENDS = (
    "Once the homeserver names this bridge as its RTC transport, ALL CALLS OF THIS HOMESERVER DEPEND ON IT: every "
    "Element Call of its users asks here first, also in rooms without a stage"
)
FOCI = "org.matrix.msc4143.rtc_foci"
TRANSPORTS = "/_matrix/client/unstable/org.matrix.msc4143/rtc/transports"
_USERINFO = "/_matrix/federation/v1/openid/userinfo?access_token=doctor"
_FLAGS = ("msc4143_enabled", "msc4222_enabled", "msc4354_enabled")


def _service(patient: Patient) -> str:
    return patient.config.web.public_url.rstrip("/") + "/livekit"


def _transport(patient: Patient) -> dict[str, str]:
    return {"type": "livekit", "livekit_service_url": _service(patient)}


def _first(listed: Any) -> str | None:
    """The LiveKit service that a client takes: the first."""
    entries = listed if isinstance(listed, list) else []
    found = [each for each in entries if isinstance(each, Mapping) and each.get("type") == "livekit"]
    url = found[0].get("livekit_service_url") if found else None
    return url if isinstance(url, str) else None


async def check_dependence(patient: Patient) -> Finding:
    fallback = patient.config.matrixrtc.fallback_service
    if not fallback:
        return warn("calls", f"{DEPENDS}, which then have none: matrixrtc.fallback_service is empty")
    try:
        async with patient.http.post(f"{fallback}/sfu/get", json={}) as answer:
            status = answer.status
    except (aiohttp.ClientError, TimeoutError) as fault:
        return bad("calls", f"{DEPENDS}, and {fallback} does not answer ({why(fault)}); see matrixrtc.fallback_service")
    if status in (404, 405) or status >= 500:
        return bad("calls", f"{fallback}/sfu/get answers {status}; set matrixrtc.fallback_service to lk-jwt-service")
    return warn("calls", f"{DEPENDS}; those are passed on to {fallback}, which answers")


async def check_well_known(patient: Patient) -> Finding:
    """Client-server API v1.15, "Well-known URIs". What is there also says where clients find the homeserver."""
    url = (
        patient.well_known or f"https://{patient.config.homeserver.domain.partition(':')[0]}/.well-known/matrix/client"
    )
    put = f'put this into it, for clients that read no other place: "{FOCI}": {json.dumps([_transport(patient)])}'
    try:
        async with patient.http.get(url) as answer:
            body, open_to_all = await json_of(answer), answer.headers.get("Access-Control-Allow-Origin") == "*"
    except (aiohttp.ClientError, TimeoutError) as fault:
        return warn("well-known", f"{url} cannot be read ({why(fault)}); {put}")
    base = body.get("m.homeserver", {})
    led_to = str(base.get("base_url", "")).rstrip("/") if isinstance(base, Mapping) else ""
    if led_to.startswith("https://"):  # our token goes there
        patient.client_url = led_to
    if answer.status != 200 or not body:
        return warn("well-known", f"{url} answers {answer.status} and no JSON; {put}")
    if not open_to_all:
        return bad("well-known", f"{url} must be served with the header Access-Control-Allow-Origin: *")
    first = _first(body.get(FOCI))
    if first is None:
        return warn("well-known", f"{url} names no RTC service; {put}")
    if first.rstrip("/") != _service(patient):
        return bad("well-known", f"{url} names {first} first, and clients take the first; {put}")
    return good("well-known", f"{url} names {first}")


async def check_transports(patient: Patient) -> Finding:
    base = patient.client_url or patient.config.homeserver.address
    flags = ", ".join(f"{flag}: true" for flag in _FLAGS)
    put = (
        f"put into homeserver.yaml, and restart Synapse 1.163 or later: matrix_rtc: {{transports: "
        f"{json.dumps([_transport(patient)])}}}, experimental_features: {{{flags}}}, max_event_delay_duration: 24h"
    )
    status, body = await ask(patient, "GET", TRANSPORTS, base=base)
    if status == 404:
        return bad("RTC transport", f"{base} tells clients none; {put}")
    if status != 200:
        return bad("RTC transport", f"{base} answers {status} {shown(body)}; see the bot's token and the homeserver")
    first = _first(body.get("rtc_transports"))
    if first is None:
        return bad("RTC transport", f"{base} names no LiveKit service; {put}")
    if first.rstrip("/") != _service(patient):
        return bad("RTC transport", f"{base} names {first} first, and clients take the first; {put}")
    status, body = await ask(patient, "GET", "/_matrix/client/versions", base=base)
    features = body.get("unstable_features")
    if isinstance(features, Mapping) and features.get("org.matrix.msc4140") is False:
        text = "set max_event_delay_duration: 24h in homeserver.yaml, or callers who vanish stay in the call for hours"
        return warn("RTC transport", f"{base} names {first}, but delays no events; {text}")
    return good("RTC transport", f"{base} names {first}")


async def check_openid(patient: Patient) -> Finding:
    """Whose a token is, we ask the homeserver: a listener of ``client`` alone does not say."""
    address = patient.config.homeserver.address
    try:
        async with patient.http.get(address + _USERINFO) as answer:
            status, body = answer.status, await json_of(answer)
    except (aiohttp.ClientError, TimeoutError) as fault:
        return bad("OpenID", f"{address} cannot be reached ({why(fault)}); see homeserver.address")
    if status == 401 and body.get("errcode") == "M_UNKNOWN_TOKEN":
        return good("OpenID", f"{address} says whose a token is")
    return bad(
        "OpenID", f"{address} does not say whose a token is ({status}); add openid to the resources of that listener"
    )


async def check_service(patient: Patient) -> Finding:
    """The bridge's own service, from outside: through whatever stands before it."""
    service = _service(patient)
    if not patient.running:
        return warn("call service", "not tried: the bridge does not run; ask again while it does")
    room = f"!doctor-{secrets.token_hex(4)}:{patient.config.homeserver.domain}"
    try:
        async with patient.http.post(f"{service}/sfu/get", json={"room": room}) as answer:
            body, open_to_all = await json_of(answer), answer.headers.get("Access-Control-Allow-Origin") == "*"
        async with patient.http.get(f"{service}/rtc/v1/validate?access_token=doctor") as refused:
            status = refused.status
    except (aiohttp.ClientError, TimeoutError) as fault:
        return bad("call service", f"{service} cannot be reached ({why(fault)}); lead it to {_port(patient)}")
    if not body or not open_to_all or status != 401:
        return bad(
            "call service", f"{service} is not answered by the bridge ({answer.status}); lead it to {_port(patient)}"
        )
    return good("call service", f"{service} answers")


def _port(patient: Patient) -> str:
    own = patient.config.web
    return f"{own.hostname} port {own.port}, with WebSockets"


# Where clients find the homeserver is read first; whether the bridge runs was found out by an earlier check.
CALL_CHECKS: tuple[Callable[[Patient], Awaitable[Finding]], ...] = (
    check_dependence,
    check_well_known,
    check_transports,
    check_openid,
    check_service,
)
