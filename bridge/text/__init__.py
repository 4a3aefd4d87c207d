"""Every sentence of bot and page: Fluent files in English and Persian, one source for both.

``bot.*.ftl`` is read here, ``page.*.ftl`` by the page's build. A missing sentence is a defect that a test finds; at
run time its key is shown rather than nothing.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

from fluent.runtime import FluentBundle, FluentResource

Lang = Literal["en", "fa"]
LANGS: tuple[Lang, ...] = ("en", "fa")

log = logging.getLogger(__name__)


def _load(lang: Lang) -> FluentBundle:
    bundle = FluentBundle([lang], use_isolating=False)  # see ``_NAMES``
    source = (Path(__file__).parent / f"bot.{lang}.ftl").read_text(encoding="utf-8")
    bundle.add_resource(FluentResource(source))
    return bundle


_NAMES = frozenset({"name", "names", "by", "topic", "speakers", "list"})
"""What people wrote: marks keep a Latin name from turning a Persian sentence over (Unicode UAX #9). Commands and
addresses get none: people copy them."""


def _isolated(args: dict[str, Any]) -> dict[str, Any]:
    return {key: f"\u2068{value}\u2069" if key in _NAMES else value for key, value in args.items()}


_BUNDLES: dict[Lang, FluentBundle] = {lang: _load(lang) for lang in LANGS}


def say(lang: Lang, key: str, **args: Any) -> str:
    """The sentence ``key`` in ``lang``, with English in place of one that is missing."""
    for bundle in (_BUNDLES[lang], _BUNDLES["en"]):
        pattern = bundle.get_message(key).value if bundle.has_message(key) else None
        if pattern is not None:
            text, errors = bundle.format_pattern(pattern, _isolated(args) if lang == "fa" else args)
            for error in errors:
                log.error("sentence %s (%s): %s", key, lang, error)
            return str(text)
    log.error("sentence %s is missing", key)
    return key


def keys(lang: Lang) -> set[str]:
    return set(_BUNDLES[lang]._messages)
