"""The doctor's look at the widget: what keeps clients from showing it, and people from being known by it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from aiohttp import web

from bridge.config import WidgetConfig
from bridge.doctor_widget import check_widget
from bridge.findings import Patient
from bridge.identity.openid import USERINFO
from tests.helpers.ports import free_port
from tests.helpers.synapse import serving
from tests.unit.test_doctor import assert_says, fake_homeserver, patient, spoil

__all__ = ["patient"]  # a fixture

KNOWS = {USERINFO: (401, {"errcode": "M_UNKNOWN_TOKEN"})}


def with_widget(patient: Patient, public: str, address: str = "", *, running: bool = True, **more: object) -> Patient:
    there = spoil(patient, homeserver={"address": address}, web={"public_url": public})
    config = dataclasses.replace(there.config, widget=WidgetConfig(**more))  # type: ignore[arg-type]
    return dataclasses.replace(there, config=config, running=running)


async def test_what_needs_no_question(patient: Patient) -> None:
    assert_says(await check_widget(with_widget(patient, "https://x", enabled=False)), "✓", "off")
    assert_says(await check_widget(with_widget(patient, "http://stage.a.test")), "!", "not https")


async def test_people_who_cannot_be_known(patient: Patient) -> None:
    async with fake_homeserver({}) as url:
        finding = await check_widget(with_widget(patient, "https://stage.a.test", url))
        assert_says(finding, "✗", "nobody is known by it", "add openid to the resources")
    async with fake_homeserver(KNOWS) as url:
        assert_says(
            await check_widget(with_widget(patient, "https://stage.a.test", url, running=False)), "✓", "ask again"
        )


async def test_what_stands_before_the_page(patient: Patient) -> None:
    headers: dict[str, str] = {}
    there = [200]

    async def page(_: web.Request) -> web.Response:
        return web.Response(status=there[0], headers=headers)

    app = web.Application()
    app.add_routes([web.get("/s/widget", page)])
    async with fake_homeserver(KNOWS) as url, serving(app, free_port()) as public:

        async def says(mark: str, part: str, given: Mapping[str, str], **more: tuple[str, ...]) -> None:
            headers.clear()
            headers.update(given)
            assert_says(await check_widget(with_widget(patient, public, url, running=True, **more)), mark, part)

        await says("✓", "every client", {"Content-Security-Policy": "default-src 'none'"})
        await says("✗", "X-Frame-Options", {"X-Frame-Options": "SAMEORIGIN"})
        await says("✗", "lets only 'self'", {"Content-Security-Policy": "frame-ancestors 'self'"})
        ours = {"Content-Security-Policy": "script-src 'self'; frame-ancestors https://a.example vector:"}
        await says("✓", "https://a.example vector:", ours, clients=("https://a.example", "vector:"))
        there[0] = 404
        await says("✗", "answers 404", {})
    gone = with_widget(patient, f"http://127.0.0.1:{free_port()}")
    async with fake_homeserver(KNOWS) as url:
        away = dataclasses.replace(gone, config=with_widget(patient, gone.config.web.public_url, url).config)
        assert_says(await check_widget(away), "✗", "cannot be reached")
