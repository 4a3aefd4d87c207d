"""Each check of the doctor against the fault it is for; the homeserver is a real Synapse wherever one can fail so."""

from __future__ import annotations

import dataclasses
import io
import re
import secrets
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from bridge import doctor
from bridge.config import Config, MediaConfig, load_config
from bridge.demo.synapse import LocalSynapse
from bridge.doctor import Finding, Patient, run_doctor
from bridge.registration import write_registration
from bridge.store import open_store
from tests.helpers.ports import free_port
from tests.helpers.synapse import Homeserver, homeserver, serving, synapse_python

__all__ = ["homeserver", "synapse_python"]  # fixtures

GOOD_SECRET = "0123456789abcdef" * 4


def config_with(**changes: Mapping[str, Any]) -> Config:
    """The defaults with these keys of these sections changed."""
    base = Config()
    tokens = {"as_token": GOOD_SECRET, "hs_token": GOOD_SECRET[::-1]}
    sections = {
        "homeserver": dataclasses.replace(base.homeserver, domain="a.test", **changes.get("homeserver", {})),
        "appservice": dataclasses.replace(base.appservice, **{**tokens, **changes.get("appservice", {})}),
        "web": dataclasses.replace(base.web, **{"link_secret": GOOD_SECRET, **changes.get("web", {})}),
        "media": dataclasses.replace(base.media, **changes.get("media", {})),
    }
    return dataclasses.replace(base, **sections)  # type: ignore[arg-type]


@pytest.fixture
async def patient(tmp_path: Path) -> AsyncIterator[Patient]:
    """A machine in order; a test spoils one thing of it."""
    path = tmp_path / "config.yaml"
    path.write_text("")
    path.chmod(0o600)
    (tmp_path / "index.html").write_text("")
    config = dataclasses.replace(config_with(), database=f"sqlite:///{tmp_path}/a.db")
    async with aiohttp.ClientSession() as http:
        yield Patient(path, config, http, tmp_path)


def spoil(patient: Patient, **changes: Mapping[str, Any]) -> Patient:
    return dataclasses.replace(patient, config=config_with(**changes))


def assert_says(finding: Finding, mark: str, *parts: str) -> None:
    line = str(finding)
    assert line.startswith(f"{mark} ")
    assert "\n" not in line
    for part in parts:
        assert part in line


def as_in(homeserver: Homeserver, patient: Patient, **changes: Mapping[str, Any]) -> Patient:
    """A configuration that fits the running Synapse, with changes."""
    own = homeserver.registration
    appservice = {"as_token": own.as_token, "hs_token": own.hs_token, "port": own.port, "address": own.url}
    fitting: dict[str, Mapping[str, Any]] = {
        "homeserver": {"address": homeserver.url},
        "appservice": appservice | dict(changes.get("appservice", {})),
    }
    return spoil(patient, **fitting)


async def after_reach(patient: Patient) -> Patient:
    """The checks on which the later ones build."""
    await doctor.check_homeserver(patient)
    await doctor.check_token(patient)
    return patient


@asynccontextmanager
async def fake_homeserver(answers: Mapping[str, tuple[int, Any]], date: float | None = None) -> AsyncIterator[str]:
    """A homeserver that answers these paths so, for faults that Synapse does not have."""

    async def answer(request: web.Request) -> web.Response:
        status, body = answers.get(request.path, (404, {"errcode": "M_UNRECOGNIZED", "error": "Unrecognized request"}))
        headers = {"Date": formatdate(date, usegmt=True)} if date is not None else {}
        return web.json_response(body, status=status, headers=headers)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with serving(app, free_port()) as url:
        yield url


# -- the whole


async def test_a_machine_in_order(homeserver: Homeserver, tmp_path: Path) -> None:
    own = homeserver.registration
    (tmp_path / "index.html").write_text("")
    path = tmp_path / "config.yaml"
    path.write_text(
        f"""
homeserver: {{address: "{homeserver.url}", domain: a.test}}
appservice: {{address: "{own.url}", port: {own.port}, as_token: "{own.as_token}", hs_token: "{own.hs_token}"}}
database: sqlite:///{tmp_path}/a.db
web: {{public_url: "https://stage.a.test/live", link_secret: "{GOOD_SECRET}"}}
media: {{port: {free_port()}, announce: ["198.51.100.7", "8.8.4.4"]}}
"""
    )
    path.chmod(0o600)
    out = io.StringIO()
    code = await run_doctor(path, {}, out, tmp_path)
    lines = out.getvalue().splitlines()
    assert code == 0, out.getvalue()
    assert [line.split(":")[0] for line in lines] == [
        "✓ configuration",
        "✓ secrets",
        "✓ database",
        "✓ homeserver",
        "✓ clock",
        "✓ bot",
        "✓ way back",
        "✓ sound port",
        "✓ sound by TCP",
        "✓ addresses",
        "✓ public URL",
        "✓ page",
        "✓ widget",
        "✓ calls",
    ]
    assert "ALL CALLS OF THIS HOMESERVER DEPEND ON IT" in lines[-1], "said before anybody turns it on"
    assert not any(secret in out.getvalue() for secret in (own.as_token, own.hs_token, GOOD_SECRET))


async def test_the_registration_we_write_is_taken_by_synapse(synapse_python: Path, tmp_path: Path) -> None:
    """The operator's first steps: registration, tokens into the configuration, homeserver, doctor."""
    ports = {name: free_port() for name in ("homeserver", "appservice", "media")}
    path, registration = tmp_path / "config.yaml", tmp_path / "registration.yaml"
    text = f"""
homeserver: {{address: "http://127.0.0.1:{ports["homeserver"]}", domain: a.test}}
appservice: {{address: "http://127.0.0.1:{ports["appservice"]}", port: {ports["appservice"]}}}
database: sqlite:///{tmp_path}/a.db
media: {{port: {ports["media"]}}}
"""
    path.write_text(text)
    advice = write_registration(load_config(path, {}, need_secrets=False), registration)
    tokens = dict(re.findall(r'(as_token|hs_token): "(\w+)"', advice))
    env = {f"EYVAN_APPSERVICE_{name.upper()}": token for name, token in tokens.items()}
    synapse = LocalSynapse(tmp_path / "synapse", "a.test", ports["homeserver"], registration, synapse_python)
    await synapse.start()
    out = io.StringIO()
    try:
        await run_doctor(path, env, out, tmp_path)
    finally:
        await synapse.stop()
    assert "✓ bot: @eyvan:a.test" in out.getvalue()
    assert f"✓ way back: the homeserver reaches port {ports['appservice']}" in out.getvalue()


async def test_one_fault_is_exit_1_and_the_other_checks_go_on(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        f'homeserver: {{address: "http://127.0.0.1:{free_port()}", domain: a.test}}\ndatabase: sqlite:///{tmp_path}/a.db\n'
    )
    out = io.StringIO()
    assert await run_doctor(path, {}, out, tmp_path) == 1
    assert len(out.getvalue().splitlines()) == 3 + len(doctor.CHECKS)  # and the configuration, widget and calls
    assert "✗ secrets: appservice.as_token, appservice.hs_token, web.link_secret missing" in out.getvalue()


async def test_a_wrong_configuration_is_its_line(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("homeserver:\n  domian: a.test\n")
    out = io.StringIO()
    assert await run_doctor(path, {}, out, tmp_path) == 2
    (line,) = out.getvalue().splitlines()
    assert line.startswith(f"✗ configuration: {path}:2: homeserver.domian")


# -- this machine


async def test_secrets(patient: Patient) -> None:
    assert_says(await doctor.check_secrets(patient), "✓")
    weak = spoil(patient, appservice={"hs_token": "abab" * 8})
    assert_says(await doctor.check_secrets(weak), "✗", "appservice.hs_token can be guessed", "openssl")
    patient.path.chmod(0o644)
    assert_says(await doctor.check_secrets(patient), "!", "chmod o-r")


async def test_database(patient: Patient) -> None:
    assert_says(await doctor.check_database(patient), "✓", "SQLite")
    for url in ("sqlite:////nowhere/at/all.db", f"postgres://eyvan:secret@127.0.0.1:{free_port()}/eyvan"):
        broken = dataclasses.replace(patient, config=dataclasses.replace(patient.config, database=url))
        finding = await doctor.check_database(broken)
        assert_says(finding, "✗", "cannot be opened")
        assert "secret" not in str(finding)


async def test_a_database_that_is_not_there_is_not_made(patient: Patient, tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    assert_says(await doctor.check_database(patient), "✓", "a.db will be made", str(tmp_path))
    assert not file.exists()
    await (await open_store(patient.config.database)).close()
    assert_says(await doctor.check_database(patient), "✓", "opened, written and read")
    file.chmod(0o640)
    assert_says(await doctor.check_database(patient), "!", "others on this machine can read", f"chmod 600 {file}")


async def test_sound_port(patient: Patient) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        busy = spoil(patient, media={"bind": "127.0.0.1", "port": port})
        assert_says(await doctor.check_udp(busy), "✗", f"port {port} cannot be bound", "in use", "media.port")
        busy.running = True
        assert_says(await doctor.check_udp(busy), "✓", "running bridge")
    busy.running = False
    assert_says(await doctor.check_udp(busy), "✓")
    several = spoil(patient, media={"bind": "127.0.0.1", "port": port, "workers": 3})
    assert_says(await doctor.check_udp(several), "✓", f"ports {port} to {port + 2}, one for each media worker")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", port + 2))
        assert_says(await doctor.check_udp(several), "✗", f"port {port + 2} cannot be bound")
    elsewhere = spoil(patient, media={"bind": "203.0.113.250", "port": port})
    elsewhere.running = True
    assert_says(await doctor.check_udp(elsewhere), "✗", "cannot be bound")


async def test_sound_by_tcp(patient: Patient) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the relay has it
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        busy = spoil(patient, media={"bind": "127.0.0.1", "port": port})
        assert_says(await doctor.check_tcp(busy), "✗", f"port {port} cannot be bound", "in use", "media.tcp: false")
        off = spoil(patient, media={"bind": "127.0.0.1", "port": port, "tcp": False})
        assert_says(await doctor.check_tcp(off), "!", "media.tcp")
        busy.running = True
        assert_says(await doctor.check_tcp(busy), "✓", "running bridge")
        with socket.create_connection(("127.0.0.1", port)):
            taken.accept()[0].close()  # leaves a connection in TIME_WAIT, which holds up nobody
    busy.running = False
    assert_says(await doctor.check_tcp(busy), "✓", "firewall")
    forwarded = spoil(patient, media={"bind": "127.0.0.1", "port": port, "tcp_announce_port": 443})
    assert_says(await doctor.check_tcp(forwarded), "✓", "port 443 forwarded to it")


async def test_one_port_for_page_and_sound(patient: Patient, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        media = {"bind": "127.0.0.1", "tcp_single_port": port}
        taken.listen()
        busy = spoil(patient, media=media)
        assert_says(await doctor.check_tcp(busy), "✗", f"port {port}, for page and sound,", "CAP_NET_BIND_SERVICE")
        busy.running = True
        assert_says(await doctor.check_tcp(busy), "✓", "running bridge")
    assert_says(await doctor.check_tcp(spoil(patient, media=media)), "✓", "firewall")
    unreadable = spoil(patient, media=media, web={"tls_certificate": str(tmp_path / "none.pem")})
    assert_says(await doctor.check_tcp(unreadable), "✗", "none.pem cannot be read", "web.tls_certificate")


@pytest.mark.parametrize(
    ("announce", "told", "part"),
    [
        (["10.0.0.5"], {"tcp_single_port": 443}, "port 443 at the private address 10.0.0.5; set media.tcp_single_port"),
        (
            ["10.0.0.5"],
            {"tcp_announce_port": 443},
            "port 443 at the private address 10.0.0.5; set media.tcp_announce_port",
        ),
        (["8.8.4.4"], {"tcp_announce_port": 993}, "refuses port 993; set media.tcp_announce_port above 1023"),
        (["8.8.4.4"], {"port": 53}, "refuses port 53; set media.port above 1023"),
    ],
)
async def test_ports_that_chromium_refuses(
    patient: Patient, announce: list[str], told: dict[str, int], part: str
) -> None:
    changed = spoil(patient, media={"announce": tuple(announce), **told})
    assert_says(await doctor.check_announce(changed), "!", part)
    allowed = spoil(patient, media={"announce": ("8.8.4.4",), "tcp_announce_port": 443})
    assert_says(await doctor.check_announce(allowed), "✓", "")


@pytest.mark.parametrize(
    ("announce", "port", "mark", "part"),
    [
        (["8.8.4.4"], 7400, "✓", "browsers are told 8.8.4.4"),
        (["8.8.4.4", "10.0.0.5"], 7400, "✓", "10.0.0.5"),
        (["10.0.0.5"], 7400, "!", "only your own network"),
        (["192.168.1.5"], 443, "!", "Chromium refuses port 443 at the private address 192.168.1.5"),
        (["8.8.4.4", "fd00::5"], 443, "!", "fd00::5"),
        (["8.8.4.4"], 443, "✓", ""),
        (["0.0.0.0"], 7400, "✗", "no browser elsewhere reaches 0.0.0.0"),
        (["8.8.4.4", "127.0.0.1", "::1"], 7400, "✗", "127.0.0.1, ::1"),
    ],
)
async def test_addresses(patient: Patient, announce: list[str], port: int, mark: str, part: str) -> None:
    changed = spoil(patient, media={"announce": tuple(announce), "port": port})
    assert_says(await doctor.check_announce(changed), mark, part)


async def test_addresses_of_the_interface(patient: Patient) -> None:
    assert_says(await doctor.check_announce(spoil(patient, media={"bind": "8.8.4.4"})), "✓", "8.8.4.4")
    assert_says(await doctor.check_announce(spoil(patient, media={"bind": "127.0.0.1"})), "✗", "127.0.0.1")
    own = doctor._own_addresses(MediaConfig().bind)
    assert "127.0.0.1" not in own
    assert not any(":" in each for each in own), "0.0.0.0 takes no IPv6"


@pytest.mark.parametrize(
    ("url", "mark"),
    [
        ("https://stage.example.org/live", "✓"),
        ("http://stage.example.org", "✗"),
        ("http://10.0.0.5:8480", "✗"),
        ("http://localhost:8480", "!"),
        ("http://127.0.0.1:8480", "!"),
        ("http://[::1]:8480", "!"),
    ],
)
async def test_public_url(patient: Patient, url: str, mark: str) -> None:
    assert_says(await doctor.check_public_url(spoil(patient, web={"public_url": url})), mark, url)


async def test_page(patient: Patient) -> None:
    assert_says(await doctor.check_page(patient), "✓")
    (patient.static / "index.html").unlink()
    assert_says(await doctor.check_page(patient), "✗", "make page")


# -- the homeserver


async def test_a_homeserver_that_is_not_there(patient: Patient) -> None:
    nobody = spoil(patient, homeserver={"address": f"http://127.0.0.1:{free_port()}"})
    assert_says(await doctor.check_homeserver(nobody), "✗", "cannot be reached", "homeserver.address")
    assert_says(await doctor.check_clock(nobody), "!", "not compared")
    assert_says(await doctor.check_token(nobody), "✗", "not tried")
    assert_says(await doctor.check_way_back(nobody), "✗", "not tried")


async def test_something_else_at_the_homeservers_address(patient: Patient) -> None:
    async with fake_homeserver({}) as url:
        wrong = spoil(patient, homeserver={"address": url})
        assert_says(await doctor.check_homeserver(wrong), "✗", "is no homeserver: 404")
        assert not wrong.reached


@pytest.mark.parametrize(("off", "mark", "part"), [(-60, "!", "s ahead of"), (60, "!", "s behind"), (0, "✓", "agree")])
async def test_clock(patient: Patient, off: float, mark: str, part: str) -> None:
    now = time.time()
    async with fake_homeserver({"/_matrix/client/versions": (200, {"versions": ["v1.11"]})}, now + off) as url:
        asked = spoil(patient, homeserver={"address": url})
        assert_says(await doctor.check_homeserver(asked), "✓", "v1.11")
        assert_says(await doctor.check_clock(asked), mark, part)


async def test_a_token_that_synapse_does_not_know(homeserver: Homeserver, patient: Patient) -> None:
    stranger = as_in(homeserver, patient, appservice={"as_token": secrets.token_hex(16)})
    assert_says(await doctor.check_homeserver(stranger), "✓")
    assert_says(await doctor.check_token(stranger), "✗", "does not know appservice.as_token", "registration")
    assert_says(await doctor.check_way_back(stranger), "✗", "not tried")


async def test_a_bot_of_another_name(homeserver: Homeserver, patient: Patient) -> None:
    other = as_in(homeserver, patient, appservice={"bot_username": "another"})
    await doctor.check_homeserver(other)
    assert_says(await doctor.check_token(other), "✗", "@eyvan:a.test", "@another:a.test", "bot_username")


async def test_synapse_comes_back_to_us(homeserver: Homeserver, patient: Patient) -> None:
    fitting = await after_reach(as_in(homeserver, patient))
    finding = await doctor.check_way_back(fitting)
    assert_says(finding, "✓", f"port {homeserver.registration.port}")
    assert_says(await doctor.check_way_back(fitting), "✓")  # the listener left the port free


async def test_synapse_reaches_the_bridge_that_runs(homeserver: Homeserver, patient: Patient) -> None:
    came = []

    async def ping(request: web.Request) -> web.Response:
        came.append(request.headers["Authorization"])
        return web.json_response({})

    app = web.Application()
    app.router.add_post("/_matrix/app/v1/ping", ping)
    fitting = await after_reach(as_in(homeserver, patient))
    async with serving(app, homeserver.registration.port):
        assert_says(await doctor.check_way_back(fitting), "✓", "the bridge that is running")
    assert came == [f"Bearer {homeserver.registration.hs_token}"]
    assert fitting.running


async def test_synapse_comes_with_another_hs_token(homeserver: Homeserver, patient: Patient) -> None:
    old = await after_reach(as_in(homeserver, patient, appservice={"hs_token": secrets.token_hex(16)}))
    finding = await doctor.check_way_back(old)
    assert_says(finding, "✗", "another hs_token", "registration")
    assert homeserver.registration.hs_token not in str(finding)


async def test_synapse_does_not_reach_us(homeserver: Homeserver, patient: Patient) -> None:
    deaf = await after_reach(as_in(homeserver, patient, appservice={"port": free_port()}))
    assert_says(await doctor.check_way_back(deaf), "✗", "does not reach", homeserver.registration.url)


async def test_the_token_belongs_to_another_id(homeserver: Homeserver, patient: Patient) -> None:
    other = await after_reach(as_in(homeserver, patient, appservice={"id": "other"}))
    assert_says(await doctor.check_way_back(other), "✗", "another id than other")


async def test_our_own_address_is_not_ours(homeserver: Homeserver, patient: Patient) -> None:
    elsewhere = await after_reach(as_in(homeserver, patient, appservice={"hostname": "203.0.113.250"}))
    assert_says(await doctor.check_way_back(elsewhere), "✗", "cannot be listened on", "appservice.hostname")


@pytest.mark.parametrize(
    ("status", "errcode", "part"),
    [
        (400, "M_URL_NOT_SET", "has no url"),
        (404, "M_UNRECOGNIZED", "1.84"),
        (504, "M_CONNECTION_TIMEOUT", "does not reach"),
    ],
)
async def test_other_answers_to_the_ping(patient: Patient, status: int, errcode: str, part: str) -> None:
    answers = {
        "/_matrix/client/versions": (200, {"versions": []}),
        "/_matrix/client/v3/account/whoami": (200, {"user_id": "@eyvan:a.test"}),
        "/_matrix/client/v1/appservice/eyvan/ping": (status, {"errcode": errcode, "error": "x"}),
    }
    async with fake_homeserver(answers) as url:
        asked = await after_reach(spoil(patient, homeserver={"address": url}, appservice={"port": free_port()}))
        assert_says(await doctor.check_way_back(asked), "✗", part)
