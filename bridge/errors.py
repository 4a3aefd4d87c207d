"""Errors, by whose fault it is.

::

    EyvanError
     ├── Theirs                 the person or client who asked must do something else
     │    ├── BadInput          a field has a value we cannot take      M_INVALID_PARAM   400
     │    ├── Refused           understood, and not allowed             M_FORBIDDEN       403
     │    ├── NotFound          no such stage, session, person          M_NOT_FOUND       404
     │    ├── BadToken          link, session or token does not hold    M_UNKNOWN_TOKEN   401
     │    └── Full              a limit is reached; later may do        M_LIMIT_EXCEEDED  429
     ├── Network                the other side cannot be reached now; retried by us
     │    └── Unavailable
     ├── Homeserver             the homeserver answered and said no
     │    └── MatrixRefused
     ├── Operator               the configuration or the machine must be changed
     │    └── ConfigError
     └── Ours                   a defect in this program

Each carries a text that names the field, the value and the remedy; ``errcode`` is in Matrix's
form (client-server API, "Standard error response").
"""

from __future__ import annotations

import reprlib

_SHOWN = 80


def shown(value: object) -> str:
    """``value`` as one short line, safe for a log and for an answer."""
    text = reprlib.repr(value) if isinstance(value, list | dict | tuple) else repr(value)  # never deep, never long
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


class EyvanError(Exception):
    errcode = "M_UNKNOWN"
    status = 500


class Theirs(EyvanError):
    errcode = "M_INVALID_PARAM"
    status = 400


class BadInput(Theirs):
    """A field has a value that cannot be taken; nothing was changed."""

    def __init__(self, field: str, value: object, remedy: str) -> None:
        super().__init__(f"{field}: {shown(value)} cannot be used; {remedy}")
        self.field, self.value, self.remedy = field, value, remedy


class Refused(Theirs):
    """Understood, and not allowed. ``reason`` is the key of a sentence in ``text/``."""

    errcode = "M_FORBIDDEN"
    status = 403

    def __init__(self, reason: str, **args: object) -> None:
        super().__init__(reason)
        self.reason, self.args_for_text = reason, args


class NotFound(Theirs):
    errcode = "M_NOT_FOUND"
    status = 404


class BadToken(Theirs):
    """``reason``: ``expired``, ``altered``, ``revoked``, ``devices``, ``membership``, ``unknown``."""

    errcode = "M_UNKNOWN_TOKEN"
    status = 401

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Full(Theirs):
    errcode = "M_LIMIT_EXCEEDED"
    status = 429

    def __init__(self, text: str, retry_after_ms: int) -> None:
        super().__init__(text)
        self.retry_after_ms = retry_after_ms


class Network(EyvanError):
    pass


class Unavailable(Network):
    """The other side did not answer in time, or answered that it cannot now."""

    errcode = "M_UNAVAILABLE"
    status = 503


class Homeserver(EyvanError):
    pass


class MatrixRefused(Homeserver):
    """The homeserver said no: a retry of the same request will not help."""

    def __init__(self, errcode: str, status: int, text: str) -> None:
        super().__init__(f"{errcode}: {text}")
        self.errcode, self.status, self.text = errcode, status, text


class Operator(EyvanError):
    pass


class ConfigError(Operator):
    """One line: file, line, key, value, remedy. The command exits with 2."""


class Ours(EyvanError):
    """A defect in this program: logged with its traceback, never shown to people as it is."""
