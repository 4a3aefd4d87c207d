"""What we say about ourselves: log lines with their context, metrics, and what may never be logged.

Redaction happens in the formatter, on the finished text, so that no caller, library or traceback gets round it.
Never logged: access, application service and homeserver tokens, passwords, personal links and sessions,
``a=ice-pwd`` of an SDP (RFC 8839 §5.4), and every text that ``setup_logging`` is given.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TextIO, TypeVar

HIDDEN = "[hidden]"
MAX_SERIES = 100
"""Label sets of one metric; further ones are counted together under the value ``other``."""

# -- context ------------------------------------------------------------------------------------

_context: ContextVar[Mapping[str, str] | None] = ContextVar("log_context", default=None)


@contextmanager
def log_context(**about: str | None) -> Iterator[None]:
    """Add ``room``, ``user``, ``event``, … to every log line of this task, and of tasks it starts, within the block."""
    known = {name: value for name, value in about.items() if value is not None}
    token = _context.set({**(_context.get() or {}), **known})
    try:
        yield
    finally:
        _context.reset(token)


def current_context() -> Mapping[str, str]:
    return _context.get() or {}


# -- redaction ----------------------------------------------------------------------------------

_NAMED = (
    r"access_token|refresh_token|as_token|hs_token|link_secret|openid_token|login_token|device|password|macaroon|secret"
)
_PATTERNS = (
    re.compile(rf"(?i)((?:{_NAMED})[\"']?\s*[=:]\s*[\"']?)[^\s\"'&,;}}\]]+"),
    re.compile(r"(?i)(\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]+"),
    re.compile(r"(?i)(\bice-pwd:)[^\s\\\"]+"),
    re.compile(r"(\b[a-z][a-z0-9+]{1,15}://[^\s:/@\"']*:)[^\s@/\"']+(?=@)"),
    re.compile(r"(\b(?:link|session|whep|listen)1\.)[A-Za-z0-9_.-]{16,}"),
)


class Redactor:
    """Hides secrets in a text: those of known form, and exact texts."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        # Longest first, so that a secret that contains another is hidden whole. Short texts would hide half the log.
        self._texts = sorted({text for text in texts if len(text) >= 8}, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for secret in self._texts:
            text = text.replace(secret, HIDDEN)
        for pattern in _PATTERNS:
            text = pattern.sub(lambda found: found[1] + HIDDEN, text)
        return text


# -- logging ------------------------------------------------------------------------------------

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def _one_line(text: str) -> str:
    """Without control characters: what others sent cannot forge a line or steer a terminal."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class HumanFormatter(logging.Formatter):
    """``time LEVEL logger message  room=… user=…``, then the traceback, indented."""

    def __init__(self, redact: Redactor) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        about = "".join(f" {name}={value}" for name, value in current_context().items())
        line = f"{_time(record)} {record.levelname:<7} {record.name}: {record.getMessage()}"
        text = _one_line(self._redact(line + (f" {about}" if about else "")))
        if record.exc_info:
            trace = self._redact(self.formatException(record.exc_info))
            text += "".join(f"\n    {_one_line(each)}" for each in trace.splitlines())
        return text


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ts, level, logger, message, the context, and ``exception`` if there is one."""

    def __init__(self, redact: Redactor) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        body = {name: self._redact(value) for name, value in current_context().items()}
        body |= {"ts": _time(record), "level": record.levelname, "logger": record.name}
        body["message"] = self._redact(record.getMessage())
        if record.exc_info:
            body["exception"] = self._redact(self.formatException(record.exc_info))
        return json.dumps(body, ensure_ascii=False)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{int(record.msecs):03}Z"


def setup_logging(
    level: str = "INFO", *, as_json: bool = False, secrets: Iterable[str] = (), stream: TextIO | None = None
) -> None:
    """Send all log records to ``stream`` (standard error by default), redacted. Replaces what was set up before.

    ``secrets``: exact texts that never appear, such as ``Config.secrets``.
    """
    redact = Redactor(secrets)
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(redact) if as_json else HumanFormatter(redact))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    # Its request lines hold paths with tokens of old servers, and one line a request is no information.
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


# -- metrics ------------------------------------------------------------------------------------

_NAME = re.compile(r"eyvan_[a-z0-9_]+\Z")
_Labels = tuple[tuple[str, str], ...]
_M = TypeVar("_M", bound="Metric")


class Metric:
    """A counter or a gauge: one number for each set of labels, at most ``MAX_SERIES`` sets.

    Safe from any thread. Labels must come from a small closed set (a reason, a kind), never from people or rooms;
    the limit is what keeps a mistake from growing.
    """

    def __init__(self, name: str, text: str, kind: str) -> None:
        self.name, self.text, self.kind = name, text, kind
        self._series: dict[_Labels, float] = {}
        self._lock = threading.Lock()

    def _key(self, labels: Mapping[str, object]) -> _Labels:
        key = tuple(sorted((name, str(value)) for name, value in labels.items()))
        if key in self._series or len(self._series) < MAX_SERIES:
            return key
        return tuple((name, "other") for name, _ in key)

    def _add(self, amount: float, labels: Mapping[str, object]) -> None:
        with self._lock:
            key = self._key(labels)
            self._series[key] = self._series.get(key, 0) + amount

    def value(self, **labels: object) -> float:
        """The number now; 0 where nothing was counted."""
        return self._series.get(tuple(sorted((name, str(value)) for name, value in labels.items())), 0)

    def render(self) -> str:
        """Prometheus text exposition format, version 0.0.4."""
        with self._lock:
            series = dict(self._series) or {(): 0.0}
        text = self.text.replace("\\", "\\\\").replace("\n", "\\n")
        lines = [f"# HELP {self.name} {text}", f"# TYPE {self.name} {self.kind}"]
        for labels, value in series.items():
            inner = ",".join(f'{name}="{_escaped(each)}"' for name, each in labels)
            lines.append(f"{self.name}{{{inner}}} {_number(value)}" if inner else f"{self.name} {_number(value)}")
        return "\n".join(lines) + "\n"


class Counter(Metric):
    def inc(self, amount: float = 1, /, **labels: object) -> None:
        if amount < 0:
            raise ValueError(f"{self.name}: a counter only grows, not by {amount}")
        self._add(amount, labels)


class Gauge(Metric):
    def set(self, value: float, /, **labels: object) -> None:
        with self._lock:
            self._series[self._key(labels)] = value

    def inc(self, amount: float = 1, /, **labels: object) -> None:
        self._add(amount, labels)

    def dec(self, amount: float = 1, /, **labels: object) -> None:
        self._add(-amount, labels)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


class Registry:
    """All metrics of one process. Asking for a name again returns the same metric."""

    def __init__(self) -> None:
        self._metrics: dict[str, Metric] = {}

    def counter(self, name: str, text: str) -> Counter:
        """A number that only grows; its name ends in ``_total``."""
        if not name.endswith("_total"):
            raise ValueError(f"{name}: the name of a counter ends in _total")
        return self._get(Counter, name, text, "counter")

    def gauge(self, name: str, text: str) -> Gauge:
        return self._get(Gauge, name, text, "gauge")

    def _get(self, cls: type[_M], name: str, text: str, kind: str) -> _M:
        if not _NAME.match(name):
            raise ValueError(f"{name}: names begin with eyvan_ and hold a-z, 0-9 and _")
        metric = self._metrics.setdefault(name, cls(name, text, kind))
        if not isinstance(metric, cls):
            raise ValueError(f"{name}: it is a {metric.kind} already")
        return metric

    def render(self) -> str:
        return "".join(each.render() for _, each in sorted(self._metrics.items()))


metrics = Registry()
"""The registry of this process."""
