"""Log lines carry their context and no secret; metrics are bounded."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.telemetry import HIDDEN, MAX_SERIES, Redactor, Registry, current_context, log_context, setup_logging

log = logging.getLogger("bridge.test")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_line_carries_its_context(stream: io.StringIO) -> None:
    setup_logging("INFO", stream=stream)
    with log_context(room="!r:x", user="@a:x"), log_context(event="$e", user=None):
        log.info("role %s", "speaker")
    log.info("after")
    log.debug("too low")
    first, second = stream.getvalue().splitlines()
    assert first.endswith("bridge.test: role speaker  room=!r:x user=@a:x event=$e")
    assert second.endswith(" INFO    bridge.test: after")


def test_json_lines(stream: io.StringIO) -> None:
    setup_logging("INFO", as_json=True, stream=stream)
    with log_context(room="!r:x"):
        try:
            raise ValueError("access_token=verysecret\nsecond line")
        except ValueError:
            log.exception("سلام\nforged")
    (line,) = stream.getvalue().splitlines()
    body = json.loads(line)
    assert (body["level"], body["logger"], body["message"], body["room"]) == (
        "ERROR",
        "bridge.test",
        "سلام\nforged",
        "!r:x",
    )
    assert "verysecret" not in line
    assert "ValueError" in body["exception"]
    assert body["ts"].endswith("Z")


async def test_tasks_keep_their_own_context() -> None:
    async def work(room: str) -> str:
        with log_context(room=room):
            await asyncio.sleep(0)
            return current_context()["room"]

    assert list(await asyncio.gather(work("!a"), work("!b"))) == ["!a", "!b"]
    assert current_context() == {}


def test_others_text_forges_no_line(stream: io.StringIO) -> None:
    setup_logging("INFO", stream=stream)
    log.info("topic %s", "a\n2026-01-01 ERROR bridge: forged\r\x1b[31m\u2028")
    (line,) = stream.getvalue().split("\n")[:-1]
    assert "\x1b" not in line
    assert "\u2028" not in line
    assert "\\n2026" in line


def test_a_traceback_is_indented_and_redacted(stream: io.StringIO) -> None:
    setup_logging("INFO", secrets=["exactly-this-secret"], stream=stream)
    try:
        raise RuntimeError("exactly-this-secret")
    except RuntimeError:
        log.exception("failed")
    lines = stream.getvalue().splitlines()
    assert lines[1] == "    Traceback (most recent call last):"
    assert all(line.startswith("    ") for line in lines[1:])
    assert "exactly-this-secret" not in stream.getvalue()


def test_set_up_twice_logs_once(stream: io.StringIO) -> None:
    setup_logging("INFO", stream=io.StringIO())
    setup_logging("INFO", stream=stream)
    log.info("once")
    assert stream.getvalue().count("once") == 1


@pytest.mark.parametrize(
    "text",
    [
        "GET /_matrix/x?access_token=SECRETVALUE99&a=1",
        '{"access_token": "SECRETVALUE99", "user_id": "@a:x"}',
        "{'as_token': 'SECRETVALUE99'}",
        "hs_token: SECRETVALUE99",
        "Authorization: Bearer SECRETVALUE99",
        "'Authorization': 'Basic SECRETVALUE99=='",
        "a=ice-ufrag:abcd\r\na=ice-pwd:SECRETVALUE99\r\na=setup:active",
        r'"sdp": "a=ice-pwd:SECRETVALUE99\r\na=setup:active"',
        "postgres://eyvan:SECRETVALUE99@db/eyvan",
        "link1.SECRETVALUE99SECRETVALUE99.SECRETVALUE99",
        'session "session1.SECRETVALUE99SECRETVALUE99.SECRETVALUE99"',
        "link_secret=SECRETVALUE99",
        "password='SECRETVALUE99'",
        '"device":"SECRETVALUE99"',
        "EYVAN_APPSERVICE_AS_TOKEN=SECRETVALUE99",
    ],
)
def test_secrets_of_known_form_are_hidden(text: str) -> None:
    hidden = Redactor()(f"before {text} after")
    assert "SECRETVALUE99" not in hidden
    assert HIDDEN in hidden
    assert hidden.startswith("before ")
    assert hidden.endswith(" after")


@pytest.mark.parametrize("text", ["room=!r:x user=@a:example.org event=$e", "http://localhost:8008/a", "3 devices now"])
def test_the_rest_stays(text: str) -> None:
    assert Redactor()(text) == text


@settings(deadline=None)
@given(st.text(min_size=8, max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_an_exact_secret_is_hidden_wherever_it_stands(secret: str, before: str, after: str) -> None:
    if secret not in HIDDEN:
        hidden = Redactor([secret[:8], secret])(before + secret + after)
        assert secret not in hidden or secret in before + HIDDEN + after


# -- metrics


def test_counters_and_gauges_in_prometheus_text() -> None:
    registry = Registry()
    refused = registry.counter("eyvan_refused_total", "Requests refused,\nby reason")
    refused.inc(reason="full")
    refused.inc(2, reason="full")
    refused.inc(reason='a"\\\n')
    peers = registry.gauge("eyvan_peers", "Peers now")
    peers.set(5)
    peers.inc()
    peers.dec(0.5)
    registry.counter("eyvan_never_total", "Never counted")
    assert registry.render() == (
        "# HELP eyvan_never_total Never counted\n# TYPE eyvan_never_total counter\neyvan_never_total 0\n"
        "# HELP eyvan_peers Peers now\n# TYPE eyvan_peers gauge\neyvan_peers 5.5\n"
        "# HELP eyvan_refused_total Requests refused,\\nby reason\n# TYPE eyvan_refused_total counter\n"
        'eyvan_refused_total{reason="full"} 3\neyvan_refused_total{reason="a\\"\\\\\\n"} 1\n'
    )
    assert refused.value(reason="full") == 3
    assert refused.value(reason="none") == 0


def test_a_large_counter_keeps_its_units() -> None:
    registry = Registry()
    packets = registry.counter("eyvan_packets_total", "Packets")
    packets.inc(123_456_789)
    packets.inc()
    assert "eyvan_packets_total 123456790\n" in registry.render()


def test_labels_are_bounded() -> None:
    registry = Registry()
    counter = registry.counter("eyvan_x_total", "x")
    for n in range(3 * MAX_SERIES):
        counter.inc(user=f"@{n}:x")
    assert len(registry.render().splitlines()) == 2 + MAX_SERIES + 1
    assert counter.value(user="other") == 2 * MAX_SERIES
    counter.inc(user="@0:x")
    assert counter.value(user="@0:x") == 2


def test_the_same_name_is_the_same_metric() -> None:
    registry = Registry()
    assert registry.counter("eyvan_x_total", "x") is registry.counter("eyvan_x_total", "x")
    with pytest.raises(ValueError, match="counter already"):
        registry.gauge("eyvan_x_total", "x")


def test_wrong_use_is_named() -> None:
    registry = Registry()
    with pytest.raises(ValueError, match="_total"):
        registry.counter("eyvan_x", "x")
    with pytest.raises(ValueError, match="eyvan_"):
        registry.gauge("x", "x")
    with pytest.raises(ValueError, match="grows"):
        registry.counter("eyvan_x_total", "x").inc(-1)
