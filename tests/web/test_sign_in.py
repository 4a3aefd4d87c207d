"""Links and guests → sessions; files and headers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from yarl import URL

from bridge.identity.links import LinkSigner
from bridge.rules.content import STAGE
from tests.helpers.fakes import ADMIN, AVA, BEN, CYD, OTHER, ROOM, until
from tests.web.conftest import Origin


async def test_a_link_opens_a_session(origin: Origin) -> None:
    status, opened = await origin.post({"link": origin.link(AVA)})
    assert status == 200
    assert (opened["user"], opened["stage"]) == (AVA, origin.house.stage().stage_id)
    assert opened["session"].startswith("session1.")
    assert opened["expires_ts"] == origin.clock.now_ms() + 12 * 3_600_000
    assert opened["device"]


async def test_a_fourth_device_is_refused_and_a_known_one_is_not(origin: Origin) -> None:
    link = origin.link(AVA)
    devices = [(await origin.post({"link": link}))[1]["device"] for _ in range(3)]
    status, refused = await origin.post({"link": link})
    assert (status, refused["errcode"], refused["reason"]) == (401, "M_UNKNOWN_TOKEN", "devices")
    for device in devices:
        status, opened = await origin.post({"link": link, "device": device})
        assert (status, opened["device"]) == (200, device)
    assert (await origin.post({"link": origin.link(BEN)}))[0] == 200


async def test_bad_links(origin: Origin) -> None:
    good = origin.link(AVA)
    other_secret = LinkSigner("x" * 40)
    stage_id = origin.house.stage().stage_id
    assert stage_id is not None
    origin.house.matrix.make_room(OTHER, AVA)
    cases: list[tuple[Any, str]] = [
        (good[:-1] + ("A" if good[-1] != "A" else "B"), "altered"),
        (good[:30], "altered"),
        ("", "altered"),
        ("x" * 10_000, "altered"),
        (other_secret.make(AVA, ROOM, stage_id, origin.clock.now_ms(), 1), "altered"),
        (await origin.session(AVA), "altered"),  # a session is no link
        (origin.link(AVA, OTHER, stage=stage_id), "expired"),  # another room
        (origin.link(AVA, stage="another-stage-000000"), "expired"),
        (origin.signer.make(None, ROOM, stage_id, origin.clock.now_ms(), 1), "unknown"),
        (origin.link("@nobody:a.org"), "membership"),  # type: ignore[arg-type]
    ]
    for link, reason in cases:
        status, refused = await origin.post({"link": link})
        assert (status, refused.get("reason")) == (401, reason), link
    old = origin.link(AVA, hours=1)
    origin.clock.advance(3600)
    assert (await origin.post({"link": old}))[1]["reason"] == "expired"


async def test_a_banned_server_gets_no_session(origin: Origin) -> None:
    origin.house.matrix.put(ADMIN, "m.room.server_acl", "", {"allow": ["*"], "deny": ["c.org"]})
    await until(lambda: not origin.house.stage().state.may_hear(CYD), "the ACL")
    assert (await origin.post({"link": origin.link(CYD)}))[1]["reason"] == "membership"
    assert (await origin.post({"link": origin.link(BEN)}))[0] == 200


async def test_a_revoked_link_opens_nothing(origin: Origin) -> None:
    link = origin.link(AVA)
    origin.house.matrix.message(AVA, "!link revoke")
    await until(lambda: "revoke_links" in origin.store.calls, "revoked")
    await origin.house.quiet()
    assert (await origin.post({"link": link}))[1]["reason"] == "revoked"
    origin.clock.advance(1)
    assert (await origin.post({"link": origin.link(AVA)}))[0] == 200


async def test_guests(origin: Origin) -> None:
    stage_id = origin.house.stage().stage_id
    status, refused = await origin.post({"guest": stage_id})
    assert (status, refused["errcode"]) == (403, "M_FORBIDDEN")
    assert "`" not in refused["error"]
    status, refused = await origin.post({"guest": stage_id}, **{"Accept-Language": "fa-IR,fa"})
    assert "مهمان" in refused["error"] or "اعضای اتاق" in refused["error"]
    assert (await origin.post({"guest": "another-stage-000000"}))[0] == 404
    content = {**origin.house.matrix.rooms[ROOM].content(STAGE), "guests": True}
    origin.house.matrix.put(ADMIN, STAGE, "", content)
    await until(lambda: origin.house.stage().state.may_hear(None), "guests on")
    status, opened = await origin.post({"guest": stage_id})
    assert (status, opened["user"], opened["device"]) == (200, None, None)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"null", b"[]", b"7", b'"x"', b"\xff\xfe", b"[" * 15_000, b'{"link": ' + b"9" * 15_000 + b"}",
        b'{"link": 7}', b'{"guest": null}', b'{"link": "a", "guest": "b"}', b'{"link": "\\ud800"}',
        b'{"link": "x", "device": "\\udfff"}', b'{"guest": "short"}', b'{"guest": "\\u0000"}', b'{"link": {"a": 1}}',
    ],
)  # fmt: skip
async def test_junk_is_refused_by_name(origin: Origin, body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    status, refused = await origin.post(body, **{"Content-Type": "application/json; charset=no-such-charset"})
    assert status in (400, 401), refused
    assert refused["errcode"] in ("M_INVALID_PARAM", "M_UNKNOWN_TOKEN")
    assert "went wrong" not in caplog.text
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_body_that_is_too_large(origin: Origin) -> None:
    status, refused = await origin.post(b'"' + b"x" * 20_000 + b'"')
    assert (status, refused["errcode"]) == (413, "M_UNKNOWN")


async def test_a_database_that_does_not_answer(origin: Origin) -> None:
    origin.store.broken = {"open_link"}
    status, refused = await origin.post({"link": origin.link(AVA)})
    assert (status, refused["errcode"]) == (503, "M_UNAVAILABLE")


async def test_too_many_sign_ins_of_one_address(origin: Origin) -> None:
    for _ in range(60):
        assert (await origin.post({}))[0] == 400
    status, refused = await origin.post({})
    assert (status, refused["errcode"]) == (429, "M_LIMIT_EXCEEDED")
    assert refused["retry_after_ms"] > 0
    status, _ = await origin.post({}, **{"X-Forwarded-For": "203.0.113.7"})
    assert status == 429, "the word of somebody who is no proxy of ours counts nothing"


@pytest.mark.parametrize("origin", [{"requests_a_minute": 5}], indirect=True)
async def test_how_many_is_configured(origin: Origin) -> None:
    """… for each address that says nothing yet; who has signed in is not counted so."""
    sessions = [await origin.session(user) for user in (BEN, CYD)]
    assert [(await origin.post({}))[0] for _ in range(5)] == [400, 400, 400, 429, 429]
    for user, session in zip((BEN, CYD), sessions, strict=True):
        await origin.page(user, session)


@pytest.mark.parametrize("origin", [{"trusted_proxies": ("127.0.0.1", "10.0.0.0/8")}], indirect=True)
async def test_a_trusted_proxy_names_the_source(origin: Origin) -> None:
    for _ in range(61):
        await origin.post({}, **{"X-Forwarded-For": "203.0.113.7"})
    assert (await origin.post({}, **{"X-Forwarded-For": "203.0.113.7"}))[0] == 429
    assert (await origin.post({}, **{"X-Forwarded-For": "203.0.113.8"}))[0] == 400
    forged = "203.0.113.99, 203.0.113.7, 10.1.2.3"  # the client wrote the first, our proxies the others
    assert (await origin.post({}, **{"X-Forwarded-For": forged}))[0] == 429
    assert (await origin.post({}, **{"X-Forwarded-For": "x" * 5000}))[0] == 400
    assert len(origin.server._sources._buckets) <= 10_000


# -- files ---------------------------------------------------------------------------------------


@pytest.fixture
def _files(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    static = tmp_path_factory.mktemp("page") / "static"
    (static / "assets").mkdir(parents=True)
    (static / "index.html").write_text("<!doctype html><title>Eyvan</title>")
    (static / "assets" / "app-1a2b.js").write_text("export {}")
    (static.parent / "secret.txt").write_text("secret")
    (static / "link").symlink_to(static.parent / "secret.txt")
    monkeypatch.setattr("bridge.web.server.STATIC", static)


@pytest.mark.usefixtures("_files")
async def test_the_page_and_its_files(origin: Origin) -> None:
    for path in ("/", f"/s/{origin.house.stage().stage_id}", "/s/" + "x" * 22):
        async with origin.http.get(origin.url + path) as response:
            assert response.status == 200
            assert response.headers["Cache-Control"] == "no-store"
            assert "Eyvan" in await response.text()
            _check_headers(response.headers)
    async with origin.http.get(origin.url + "/s/assets/app-1a2b.js") as response:
        assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert response.headers["Content-Type"].startswith(("text/javascript", "application/javascript"))
        _check_headers(response.headers)


def _check_headers(headers: Any) -> None:
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "connect-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "http" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Robots-Tag"] == "noindex"
    assert "microphone=(self)" in headers["Permissions-Policy"]


@pytest.mark.usefixtures("_files")
@pytest.mark.parametrize(
    "path",
    [
        "/s/../secret.txt", "/s/..%2fsecret.txt", "/s/%2e%2e/secret.txt", "/s/assets/..%2f..%2fsecret.txt",
        "/s//etc/passwd", "/s/%2fetc%2fpasswd", "/s/link", "/s/assets", "/s/assets/", "/s/none.js", "/s/a%00b",
        "/s/%ff", "/nothing", "/api/v1/nothing", "/s/" + "x" * 300 + ".js",
    ],
)  # fmt: skip
async def test_nothing_else_is_served(origin: Origin, path: str) -> None:
    async with origin.http.get(URL(origin.url + path, encoded=True)) as response:
        assert response.status == 404
        body = json.loads(await response.text())
        assert body["errcode"] in ("M_NOT_FOUND", "M_UNRECOGNIZED")
        assert "secret" not in body["error"]
        _check_headers(response.headers)


async def test_answers_are_not_kept(origin: Origin) -> None:
    async with origin.http.post(origin.url + "/api/v1/sessions", data=b"{}") as response:
        assert response.headers["Cache-Control"] == "no-store"
        _check_headers(response.headers)
    async with origin.http.get(origin.url + "/api/v1/sessions") as response:
        assert response.status == 405
