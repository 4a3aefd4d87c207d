"""The doctor's checks for Element Call, each against the fault it is for."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from bridge import doctor_calls
from bridge.config import MatrixRtcConfig
from bridge.doctor_calls import FOCI, TRANSPORTS
from bridge.findings import Patient
from tests.helpers.ports import free_port
from tests.helpers.synapse import serving
from tests.unit.test_doctor import assert_says, fake_homeserver, patient, spoil

__all__ = ["patient"]  # a fixture

STAGE = "https://stage.a.test/livekit"
ENTRY = {"type": "livekit", "livekit_service_url": STAGE}
OTHER = {"type": "livekit", "livekit_service_url": "https://rtc.a.test"}


def in_order(
    patient: Patient, address: str = "", *, fallback: str = "", public: str = "https://stage.a.test"
) -> Patient:
    there = spoil(patient, homeserver={"address": address}, web={"public_url": public})
    rtc = MatrixRtcConfig(enabled=True, fallback_service=fallback)
    return dataclasses.replace(there, config=dataclasses.replace(there.config, matrixrtc=rtc))


def put_there(finding: object) -> Any:
    """The transport that a remedy prints."""
    text = str(finding)
    return json.loads(text[text.index("[{") : text.index("}]") + 2])


async def test_what_depends_on_it_is_said(patient: Patient) -> None:
    said = "ALL CALLS OF THIS HOMESERVER DEPEND ON IT"
    assert_says(await doctor_calls.check_dependence(in_order(patient)), "!", said, "fallback_service is empty")
    answers: Mapping[str, tuple[int, Any]] = {"/sfu/get": (400, {"errcode": "M_BAD_JSON"}), "/odd/sfu/get": (502, {})}
    async with fake_homeserver(answers) as url:
        assert_says(await doctor_calls.check_dependence(in_order(patient, fallback=url)), "!", said, url)
        odd = in_order(patient, fallback=url + "/odd")
        assert_says(await doctor_calls.check_dependence(odd), "✗", "answers 502")
    gone = in_order(patient, fallback="http://127.0.0.1:9")
    assert_says(await doctor_calls.check_dependence(gone), "✗", said, "does not answer")


async def test_the_homeserver_s_transport(patient: Patient) -> None:
    cases: list[tuple[tuple[int, Any], str, list[str]]] = [
        ((200, {"rtc_transports": [{"type": "x"}, ENTRY]}), "✓", [STAGE]),
        ((200, {"rtc_transports": [OTHER, ENTRY]}), "✗", ["names https://rtc.a.test first"]),
        ((200, {"rtc_transports": []}), "✗", ["names no LiveKit service"]),
        ((200, {"rtc_transports": "junk"}), "✗", ["names no LiveKit service"]),
        ((404, {}), "✗", ["homeserver.yaml", "msc4143_enabled: true", "max_event_delay_duration"]),
        ((401, {"errcode": "M_UNKNOWN_TOKEN"}), "✗", ["401"]),
    ]
    answers: dict[str, tuple[int, Any]] = {}
    async with fake_homeserver(answers) as url:
        there = in_order(patient, url)
        for answer, mark, parts in cases:
            answers[TRANSPORTS] = answer
            finding = await doctor_calls.check_transports(there)
            assert_says(finding, mark, *parts)
            if "homeserver.yaml" in str(finding):
                assert put_there(finding) == [ENTRY]
        answers[TRANSPORTS] = (200, {"rtc_transports": [ENTRY]})
        answers["/_matrix/client/versions"] = (200, {"unstable_features": {"org.matrix.msc4140": False}})
        assert_says(await doctor_calls.check_transports(there), "!", "max_event_delay_duration: 24h")


async def test_the_file_of_the_server_s_name(patient: Patient) -> None:
    async def serve(body: Any, status: int = 200, *, open_to_all: bool = True) -> tuple[str, Patient]:
        async def file(_: web.Request) -> web.Response:
            return web.json_response(
                body, status=status, headers={"Access-Control-Allow-Origin": "*"} if open_to_all else {}
            )

        app = web.Application()
        app.add_routes([web.get("/", file)])
        async with serving(app, free_port()) as url:
            there = dataclasses.replace(in_order(patient), well_known=url)
            return str(await doctor_calls.check_well_known(there)), there

    base = {"m.homeserver": {"base_url": "https://matrix.a.test/"}}
    line, there = await serve({**base, FOCI: [ENTRY]})
    assert line.startswith("✓")
    assert there.client_url == "https://matrix.a.test"
    line, _ = await serve({**base, FOCI: [OTHER, ENTRY]})
    assert line.startswith("✗")
    line, _ = await serve(base)
    assert line.startswith("!")
    assert put_there(line) == [ENTRY]
    line, there = await serve({"m.homeserver": {"base_url": "http://evil.test"}, FOCI: [ENTRY]}, open_to_all=False)
    assert line.startswith("✗")
    assert "Access-Control-Allow-Origin" in line
    assert not there.client_url, "our token is not sent in clear"
    line, _ = await serve("junk", 404)
    assert line.startswith("!")
    nowhere = dataclasses.replace(in_order(patient), well_known="http://127.0.0.1:9")
    assert_says(await doctor_calls.check_well_known(nowhere), "!", "cannot be read", FOCI)


async def test_who_says_whose_a_token_is(patient: Patient) -> None:
    path = "/_matrix/federation/v1/openid/userinfo"
    async with fake_homeserver({path: (401, {"errcode": "M_UNKNOWN_TOKEN"})}) as url:
        assert_says(await doctor_calls.check_openid(in_order(patient, url)), "✓")
    async with fake_homeserver({}) as url:
        assert_says(await doctor_calls.check_openid(in_order(patient, url)), "✗", "openid")


async def test_our_own_service_from_outside(patient: Patient) -> None:
    assert_says(await doctor_calls.check_service(in_order(patient)), "!", "does not run")
    async with fake_homeserver({}) as url:  # something else answers there
        other = dataclasses.replace(in_order(patient, public=url), running=True)
        assert_says(await doctor_calls.check_service(other), "✗", "not answered by the bridge", "WebSockets")
    gone = dataclasses.replace(in_order(patient, public="http://127.0.0.1:9"), running=True)
    assert_says(await doctor_calls.check_service(gone), "✗", "cannot be reached")
