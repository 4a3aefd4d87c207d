"""``eyvan doctor`` for the widget: whether a client could show it, and whether people could be known by it."""

from __future__ import annotations

import re

import aiohttp

from bridge.doctor_calls import check_openid
from bridge.findings import Finding, Patient, bad, good, warn, why
from bridge.matrix.widgets import can_be_shown

_NAME = "widget"


async def check_widget(patient: Patient) -> Finding:
    config = patient.config
    if not config.widget.enabled:
        return good(_NAME, "off (widget.enabled)")
    url = config.web.public_url.rstrip("/")
    if not can_be_shown(url):
        return warn(_NAME, f"{url} is not https, so no client shows it and no room gets one")
    openid = await check_openid(patient)
    if openid.mark != "✓":
        return bad(_NAME, f"nobody is known by it: {openid.text}")
    if not patient.running:
        return good(_NAME, "people are known by it; ask again while the bridge runs for what stands before it")
    page = f"{url}/s/widget"
    try:
        async with patient.http.get(page) as answer:
            status, headers = answer.status, answer.headers
    except (aiohttp.ClientError, TimeoutError) as fault:
        return bad(_NAME, f"{page} cannot be reached ({why(fault)})")
    if status != 200:
        return bad(_NAME, f"{page} answers {status}; lead it to {config.web.hostname} port {config.web.port}")
    if "X-Frame-Options" in headers:
        return bad(_NAME, f"something before {page} adds X-Frame-Options, so no client shows it; take that out there")
    allowed = re.search(r"frame-ancestors ([^;]*)", headers.get("Content-Security-Policy", ""))
    if allowed and allowed[1].split() != list(config.widget.clients):
        return bad(_NAME, f"something before {page} lets only {allowed[1]} show it; that is for widget.clients to say")
    return good(_NAME, f"{page} can be shown by {' '.join(config.widget.clients) or 'every client'}")
