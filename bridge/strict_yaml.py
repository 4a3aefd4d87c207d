"""YAML into frozen dataclasses, strictly; and the same declarations as an example file and as a table.

A field made by ``key`` carries its default, check and explanation. A section is a field whose type is a dataclass.
Whatever does not fit is a ConfigError of one line that ends with what to write instead.
"""

from __future__ import annotations

import dataclasses
import re
import textwrap
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from bridge.errors import BadInput, ConfigError, shown

Check = Callable[[Any], str | None]
"""Looks at a value of the right type; the remedy if it cannot be used, else None."""
Parse = Callable[[Any], Any]
"""Makes the value from YAML; raises BadInput whose ``field`` is the key below, or empty for the whole."""

_SECRET, _MISSING = "(secret)", "(missing)"


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of one key beside its type."""

    doc: str
    check: Check | None
    parse: Parse | None
    secret: bool
    required: str
    hint: Any


def key(
    default: Any, doc: str, check: Check | None = None, *, parse: Parse | None = None, secret: bool = False,
    required: str = "", hint: Any = None,
) -> Any:  # fmt: skip
    """Declare a key. ``required``: how to get a value, where the (empty) default does not do. ``hint``: its value in
    the example, where that is not the default. A secret is never shown, and may come from a file or the environment.
    """
    metadata = {"key": Key(doc, check, parse, secret, required, hint)}
    if isinstance(default, MappingProxyType):  # which has no hash, so dataclasses would take it for mutable
        return field(default_factory=lambda: default, metadata=metadata, repr=not secret)
    return field(default=default, metadata=metadata, repr=not secret)


def env_name(name: str) -> str:
    """The environment variable of a secret: ``web.link_secret`` → ``EYVAN_WEB_LINK_SECRET``."""
    return "EYVAN_" + name.replace(".", "_").upper()


def read(cls: type[Any], path: Path, env: Mapping[str, str], *, need_secrets: bool) -> Any:
    """The file as a ``cls``, every default filled in. Raises ConfigError.

    ``need_secrets=False`` lets required secrets be empty.
    """
    reader = _Reader(path, env, need_secrets)
    return reader.section(cls, reader.tree(), "")


class _Reader:
    """One file while it is read; knows where each key stands."""

    def __init__(self, path: Path, env: Mapping[str, str], need_secrets: bool) -> None:
        self.path, self.env, self.need_secrets = path, env, need_secrets

    def error(self, line: int | None, name: str, value: object, remedy: str) -> ConfigError:
        where = f"{self.path}:{line}" if line else f"{self.path}"
        name = name if name.isprintable() else shown(name)
        if value == _MISSING:
            return ConfigError(f"{where}: {name}: it is missing; {remedy}")
        return ConfigError(f"{where}: {name}: {value if value == _SECRET else shown(value)} cannot be used; {remedy}")

    def tree(self) -> Any:
        try:
            tree = YAML(typ="rt", pure=True).load(self.path.read_text(encoding="utf-8"))
        except OSError as fault:
            raise ConfigError(f"{self.path}: it cannot be read ({fault.strerror}); give its path with -c") from fault
        except UnicodeDecodeError as fault:
            raise ConfigError(f"{self.path}: byte {fault.start} is not UTF-8; save the file as UTF-8") from fault
        except (YAMLError, RecursionError) as fault:
            mark = fault.problem_mark if isinstance(fault, MarkedYAMLError) else None
            problem = fault.problem if isinstance(fault, MarkedYAMLError) else str(fault)
            what = " ".join((problem or "it cannot be understood").split())
            where = f"{self.path}:{mark.line + 1}" if mark else f"{self.path}"
            raise ConfigError(f"{where}: not valid YAML: {what}; compare with config.example.yaml") from fault
        return {} if tree is None else tree

    def section(self, cls: type[Any], tree: Any, prefix: str, line: int | None = 1) -> Any:
        if not isinstance(tree, dict):
            name = prefix.rstrip(".") or "the file"
            raise self.error(line, name, tree, "write `key: value` lines, as in config.example.yaml")
        fields = {each.name: each for each in dataclasses.fields(cls)}
        self._refuse_unknown(fields, tree, prefix)
        values: dict[str, Any] = {}
        for name, kind in typing.get_type_hints(cls).items():
            if dataclasses.is_dataclass(kind):
                below = tree.get(name)
                below = {} if below is None else below
                values[name] = self.section(typing.cast(type[Any], kind), below, f"{name}.", _line(tree, name))
            else:
                values[name] = self._value(fields[name], kind, tree, prefix)
        return cls(**values)

    def _refuse_unknown(self, fields: Mapping[str, dataclasses.Field[Any]], tree: Any, prefix: str) -> None:
        known = [*fields, *(f"{name}_file" for name, each in fields.items() if _is_secret(each))]
        for name in tree:
            if name not in known:
                value = _SECRET if re.search(r"(?i)token|secret|password", str(name)) else tree[name]
                remedy = f"there is no such key; known here: {', '.join(known)}"
                raise self.error(_line(tree, str(name)), f"{prefix}{name}", value, remedy)

    def _value(self, each: dataclasses.Field[Any], kind: Any, tree: Any, prefix: str) -> Any:
        about: Key = each.metadata["key"]
        name, line = prefix + each.name, _line(tree, each.name)
        raw = tree.get(each.name)
        if about.secret:
            raw, line = self._secret(name, each.name, tree, line)
        if raw is None or (raw == "" and about.required):
            if about.required and (self.need_secrets or not about.secret):
                raise self.error(line, name, _MISSING, about.required)
            return _default(each)
        if about.parse:
            return self._parsed(about.parse, raw, name, line)
        value, remedy = _convert(raw, kind)
        remedy = remedy or (about.check(value) if about.check else None)
        if remedy:
            raise self.error(line, name, _SECRET if about.secret else raw, remedy)
        return value

    def _parsed(self, parse: Parse, raw: Any, name: str, line: int | None) -> Any:
        try:
            return parse(raw)
        except BadInput as fault:
            below = f"{name}.{fault.field}" if fault.field else name
            raise self.error(_line(raw, fault.field) or line, below, fault.value, fault.remedy) from fault

    def _secret(self, name: str, short: str, tree: Any, line: int | None) -> tuple[Any, int | None]:
        """The value from the environment, a file or the key itself, and the line to name in an error."""
        from_env = self.env.get(env_name(name))
        if from_env:
            return from_env, None
        beside = tree.get(f"{short}_file")
        if beside is None:
            return tree.get(short), line
        line = _line(tree, f"{short}_file")
        if tree.get(short):
            raise self.error(line, f"{name}_file", beside, f"{short} is given too; keep one of the two")
        if not isinstance(beside, str) or not beside:
            raise self.error(
                line, f"{name}_file", beside, "give the path of a file, from the configuration's directory"
            )
        file = self.path.parent / beside
        try:
            return file.read_text(encoding="utf-8").strip(), line
        except (OSError, ValueError) as fault:
            reason = getattr(fault, "strerror", None) or "it is not UTF-8"
            raise self.error(line, f"{name}_file", str(file), f"it cannot be read: {reason}") from fault


def _convert(raw: Any, kind: Any) -> tuple[Any, str | None]:
    """``raw`` as a plain value of ``kind``, or what to write instead."""
    if typing.get_origin(kind) is Literal:
        options = typing.get_args(kind)
        good = isinstance(raw, str) and raw in options
        return (str(raw), None) if good else (None, "give one of " + ", ".join(options))
    if typing.get_origin(kind) is tuple:
        good = isinstance(raw, list) and all(isinstance(each, str) for each in raw)
        return (tuple(str(each) for each in raw), None) if good else (None, 'give a list of texts: ["one", "two"]')
    if kind is bool:
        return (bool(raw), None) if isinstance(raw, bool) else (None, "give true or false")
    if kind is int:
        good = isinstance(raw, int) and not isinstance(raw, bool)
        return (int(raw), None) if good else (None, "give a whole number without quotes")
    return (str(raw), None) if isinstance(raw, str) else (None, "give a text, in quotes if it looks like a number")


def _line(tree: Any, name: str) -> int | None:
    """The line, from 1, on which ``name`` stands."""
    data = getattr(getattr(tree, "lc", None), "data", None) or {}
    return next((int(where[0]) + 1 for each, where in data.items() if str(each) == name), None)


def _is_secret(each: dataclasses.Field[Any]) -> bool:
    return "key" in each.metadata and each.metadata["key"].secret


def _default(each: dataclasses.Field[Any]) -> Any:
    factory = each.default_factory
    return each.default if factory is dataclasses.MISSING else factory()


# -- the declarations, printed ------------------------------------------------------------------


def _keys(cls: type[Any], prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any], Any]]:
    """Every key with its whole name and type, in the order of declaration."""
    kinds = typing.get_type_hints(cls)
    for each in dataclasses.fields(cls):
        kind = kinds[each.name]
        if dataclasses.is_dataclass(kind):
            yield from _keys(typing.cast(type[Any], kind), f"{each.name}.")
        else:
            yield prefix + each.name, each, kind


def example(cls: type[Any]) -> str:
    """A whole file with every key, explained, at its default or its hint."""
    lines: list[str] = []
    kinds = typing.get_type_hints(cls)
    section = ""
    for name, each, _ in _keys(cls):
        head, _, short = name.rpartition(".")
        if head != section or not head:
            lines.append("")
        if head and head != section:
            lines += [f"# {kinds[head].__doc__}", f"{head}:"]
        section, about, indent = head, each.metadata["key"], "  " if head else ""
        doc = about.doc + (f" Or {short}_file, or {env_name(name)}." if about.secret else "")
        lines += [f"{indent}# {line}" for line in textwrap.wrap(doc, 110)]
        value = _default(each) if about.hint is None else about.hint
        lines += [f"{indent}{line}" for line in _yaml(short or name, value)]
    head = f"# {(cls.__doc__ or '').strip().splitlines()[0]}"
    return "\n".join([head, *lines]) + "\n"


def _yaml(name: str, value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [f"{name}:", *(f"  {_scalar(each)}: {below}" for each, below in value.items())]
    return [f"{name}: {_scalar(value)}"]


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(_scalar(each) for each in value) + "]"
    plain = not isinstance(value, str) or re.fullmatch(r"[A-Za-z/][A-Za-z0-9_./:-]*[A-Za-z0-9_/]", value)
    return str(value) if plain else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def markdown(cls: type[Any]) -> str:
    """A table of every key, its type, default and meaning."""
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, each, kind in _keys(cls):
        about = each.metadata["key"]
        default = "*required*" if about.required else f"`{_inline(_default(each))}`"
        doc = about.doc + (f" Also `{name}_file`, `{env_name(name)}`." if about.secret else "")
        rows.append(f"| `{name}` | {_kind(kind)} | {default} | {doc} |")
    return "\n".join(rows) + "\n"


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(
            f"{_scalar(each)}: {str(getattr(below, 'name', below)).lower()}" for each, below in value.items()
        )
    return _scalar(value)


def _kind(kind: Any) -> str:
    if typing.get_origin(kind) is types.UnionType:
        return " or ".join(_kind(each) for each in typing.get_args(kind))
    if typing.get_origin(kind) is Literal:
        return ", ".join(f"`{each}`" for each in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return "list of texts"
    return {bool: "true or false", int: "whole number", str: "text"}.get(kind, "mapping")
