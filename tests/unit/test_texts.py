"""Every sentence that code can ask for is there, in both languages, with the same variables, and renders."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from fluent.syntax import FluentParser
from fluent.syntax import ast as ftl

import bridge
from bridge.live.card import html_of, plain_of
from bridge.rules.effects import Tell
from bridge.rules.inputs import ActName
from bridge.text import LANGS, Lang, keys, say

ROOT = Path(bridge.__file__).parent
RULES = ROOT / "rules"
SAMPLES: dict[str, Any] = {
    "prefix": "!", "bot": "@eyvan:a.org", "name": "Ava", "by": "Ben", "topic": "باغ", "level": 50, "kick": 50,
    "limit": 20, "seconds": 61, "count": 2, "list": "1. Ava", "speakers": "Ava, Ben", "names": "Ava", "more": 0,
    "listeners": 1, "hands": 0, "url": "https://x/s/1", "to": "!new",
    "code": "0042", "yes": "👍", "sound": "music", "language": "fa",
    "whep": "https://x/whep/1", "token": "whep1.a.b", "stream": "https://x/listen/1.ogg?t=listen1.a.b",
}  # fmt: skip


def source(lang: Lang) -> str:
    return (ROOT / "text" / f"bot.{lang}.ftl").read_text(encoding="utf-8")


def messages(lang: Lang) -> dict[str, set[str]]:
    """key → its variables. Fails on junk, which Fluent passes over in silence."""
    found: dict[str, set[str]] = {}
    for entry in FluentParser().parse(source(lang)).body:
        assert not isinstance(entry, ftl.Junk), entry.content
        if isinstance(entry, ftl.Message):
            assert entry.id.name not in found, f"{entry.id.name} stands twice"
            found[entry.id.name] = set(re.findall(r"\$(\w+)", _text(entry, lang)))
    return found


def _text(entry: ftl.Message, lang: Lang) -> str:
    assert entry.span is not None
    return source(lang)[entry.span.start : entry.span.end]


def test_same_keys_and_variables() -> None:
    assert messages("en") == messages("fa")
    assert keys("en") == keys("fa") == set(messages("en"))


@pytest.mark.parametrize("lang", LANGS)
@pytest.mark.parametrize("number", [0, 1, 2, 5, 1000])
def test_every_sentence_renders(lang: Lang, number: int, caplog: pytest.LogCaptureFixture) -> None:
    args = {**SAMPLES, "listeners": number, "hands": number, "more": number, "count": number}
    for key, variables in messages(lang).items():
        assert variables <= set(args), f"{key} wants {variables - set(args)}"
        text = say(lang, key, **args)
        assert text.strip(), key
        assert text != key
        assert "{" not in text
        for name in variables - {"more", "hands", "listeners", "sound", "language"}:
            shown = f"{args[name]:,}" if isinstance(args[name], int) else args[name]
            assert shown in text, (key, name)
    assert caplog.records == []


def test_persian_is_persian() -> None:
    for key in messages("fa"):
        assert re.search("[آ-ی]", say("fa", key, **SAMPLES)), key
        assert "ي" not in say("fa", key, **SAMPLES)


def strings(*files: Path) -> set[str]:
    """All text constants of the files."""
    found: set[str] = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def reasons_of_rules() -> set[str]:
    """What the rules return as a sentence's key: ``return "why", {…}``, ``Answer(… text="why")``, ``Announce("why")``,
    and what ``why_no_hand`` returns."""
    found: set[str] = set()
    for file in RULES.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
                found |= _constants(node.value.elts[0])
            elif isinstance(node, ast.FunctionDef) and node.name == "why_no_hand":
                for each in ast.walk(node):
                    if isinstance(each, ast.Return) and each.value is not None:
                        found |= _constants(each.value)
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Answer", "Announce"):
                texts = [word.value for word in node.keywords if word.arg == "text"]
                texts += node.args[:1] if node.func.id == "Announce" else []  # type: ignore[attr-defined]
                for text in texts:
                    found |= _constants(text)
    return {word for word in found if "-" in word or word in ("who", "encrypted", "help")}


def _constants(node: ast.expr) -> set[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return {node.value}
    if isinstance(node, ast.IfExp):
        return _constants(node.body) | _constants(node.orelse)
    if isinstance(node, ast.Tuple):
        return _constants(node.elts[0])
    return set()


def test_every_reason_of_the_rules_has_a_sentence() -> None:
    reasons = reasons_of_rules()
    assert {"no-stage", "target-higher", "not-moderator", "status-live", "stage-ended"} <= reasons
    assert reasons - keys("en") == set()


def test_every_act_has_its_done() -> None:
    own_words = {"status", "hands", "link", "link_player", "help"}  # answered by what they show
    done = {f"done-{act.replace('_', '-')}" for act in get_args(ActName) if act not in own_words}
    assert done - keys("en") == set()
    assert {key for key in keys("en") if key.startswith("done-")} == done


def test_everybody_told_by_chat_has_a_sentence() -> None:
    """``Tell(…, by_chat=True)`` and what a live stage tells itself."""
    told: set[str] = {"cut_not_written", "not_written", "cut_not_kept"}  # by a variable in the rules
    for file in RULES.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == Tell.__name__:
                by_chat = any(word.arg == "by_chat" for word in node.keywords)
                told |= _constants(node.args[1]) if by_chat else set()
    assert "invited" in told
    assert {"tell-" + key.replace("_", "-") for key in told} - keys("en") == set()


def test_every_key_in_live_and_web_has_a_sentence() -> None:
    """Whatever looks like a key of ours in the code that says things is one."""
    said = strings(
        *RULES.glob("*.py"),
        *(ROOT / "live").glob("*.py"),
        ROOT / "web" / "session.py",
        ROOT / "matrix" / "commands.py",
        *(ROOT / "matrix").glob("call_[kls]*.py"),
    )
    stems = {key.split("-")[0] for key in keys("en") if "-" in key}
    asked = {s for s in said if re.fullmatch(r"[a-z]+(-[a-z]+)+", s) and s.split("-")[0] in stems}
    assert {"link-later", "moved-to", "too-old", "no-stage", "stage-ended", "session-over"} <= asked
    assert asked - keys("en") == set()


def test_no_sentence_is_for_nothing() -> None:
    files = [
        *(ROOT / "live").glob("*.py"),
        *RULES.glob("*.py"),
        *(ROOT / "web").glob("*.py"),
        *(ROOT / "matrix").glob("*.py"),
    ]
    said = strings(*files)
    made = {f"done-{act.replace('_', '-')}" for act in get_args(ActName)}
    made |= {"tell-invited", "tell-cut-not-written", "tell-not-written", "tell-cut-not-kept"}
    assert keys("en") - said - made == set()


def test_names_are_isolated_in_persian_and_what_one_copies_is_not() -> None:
    """A Latin name must not turn a sentence over; a mark inside a command or an address would break it when copied."""
    assert "\u2068Ava\u2069" in say("fa", "done-mute", name="Ava")
    assert "Ava" in say("en", "done-mute", name="Ava").split()
    card_guest = say("fa", "card-guest", url="https://x/s/1")
    assert card_guest.endswith(" https://x/s/1")
    for key in messages("fa"):
        for code in re.findall("`([^`]*)`", say("fa", key, **SAMPLES)):
            assert not set(code) & set("\u2066\u2067\u2068\u2069\u200e\u200f"), key


def test_commands_stand_from_left_to_right_in_persian() -> None:
    plain, html = plain_of(say("fa", "card-join", prefix="!")), html_of(say("fa", "card-join", prefix="!"))
    assert "\u200e!link\u200e" in plain
    assert "\u200e<code>!link</code>\u200e" in html
    assert "\u200e" not in plain_of(say("en", "card-join", prefix="!"))


def test_html_is_escaped() -> None:
    assert html_of("<b> & `<i>`\nx") == "&lt;b&gt; &amp; <code>&lt;i&gt;</code><br>x"


def test_a_missing_sentence_shows_its_key(caplog: pytest.LogCaptureFixture) -> None:
    assert say("fa", "no-such-sentence") == "no-such-sentence"
    assert "no-such-sentence" in caplog.text
