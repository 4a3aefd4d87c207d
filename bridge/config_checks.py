"""Checks of single values of the configuration: each says what to write instead, or gives None."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from bridge.errors import BadInput, shown
from bridge.strict_yaml import Check


def between(low: int, high: int) -> Check:
    """A whole number, both ends included."""
    return lambda value: None if low <= value <= high else f"give a whole number from {low} to {high}"


def matches(pattern: str, remedy: str) -> Check:
    """A text that the whole of the regular expression fits."""
    return lambda value: None if re.fullmatch(pattern, value) else remedy


def secret(least: int) -> Check:
    """At least so many visible ASCII characters."""
    remedy = f"give at least {least} random characters without spaces, such as `openssl rand -hex 32` prints"
    return matches(rf"[!-~]{{{least},}}", remedy)


def url(value: Any) -> str:
    """A URL without a slash at its end, so that a path can be put behind it."""
    try:
        good = isinstance(value, str) and re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", value)
        good = good and urlsplit(value).hostname and urlsplit(value).port != 0
    except ValueError:
        good = False
    if not good:
        raise BadInput("", value, "give a URL such as https://host or http://localhost:8008, without ?query and #part")
    return str(value).rstrip("/")


def optional_url(value: Any) -> str:
    """As ``url``, or nothing."""
    return "" if value == "" else url(value)


def addresses(value: tuple[str, ...]) -> str | None:
    """IP addresses of either family."""
    return _each(value, ipaddress.ip_address, "is no IP address; give numbers such as 203.0.113.7 or 2001:db8::7")


def networks(value: tuple[str, ...]) -> str | None:
    """IP addresses, or networks with their prefix."""
    return _each(value, ipaddress.ip_network, "is no address or network; give one such as 127.0.0.1 or 10.0.0.0/8")


def _each(values: tuple[str, ...], parse: Callable[[str], object], remedy: str) -> str | None:
    for value in values:
        try:
            parse(value)
        except ValueError:
            return f"{shown(value)} {remedy}"
    return None


def ancestors(value: tuple[str, ...]) -> str | None:
    """Sources of CSP's frame-ancestors: origins, or a scheme with its colon."""
    for each in value:
        if not re.fullmatch(r"https?://[0-9A-Za-z.*:\[\]-]+|[a-z][a-z0-9+.-]*:", each):
            return (
                f"{shown(each)} is no origin; give one such as https://app.element.io, or vector: for Element Desktop"
            )
    return None


def packet_ms(value: int) -> str | None:
    """Milliseconds of sound in one packet: what the repacketizer can join (RFC 6716 §3.2.5)."""
    return None if value in (20, 40, 60) else "give 20, 40 or 60"


PORT = between(1, 65535)
HOST = matches(r"[0-9A-Za-z.:_-]+", "give an address or host name to listen on, such as 127.0.0.1")
LOCALPART = matches(r"[a-z0-9._=/-]+", "use only a-z, 0-9 and . _ = - / (Matrix user id grammar)")
DATABASE = matches(
    r"sqlite:///[^?#]+|postgres(ql)?://[^/\s]*/\S+",
    "give sqlite:///file.db, sqlite:////absolute/file.db or postgres://user:password@host/database",
)
