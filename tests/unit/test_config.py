"""The configuration is strict, its errors are one useful line, and the example files tell the truth."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from bridge.config import Config, Level, StageConfig, example_file, load_config, reference
from bridge.errors import ConfigError
from bridge.ids import UserId
from bridge.registration import registration, registration_yaml, with_tokens, write_registration

ROOT = Path(__file__).parents[2]
SECRETS = {
    "EYVAN_APPSERVICE_AS_TOKEN": "a" * 32,
    "EYVAN_APPSERVICE_HS_TOKEN": "h" * 32,
    "EYVAN_WEB_LINK_SECRET": "l" * 32,
}
MINIMAL = "homeserver:\n  domain: example.org\n"


def load(directory: Path, text: str, env: Mapping[str, str] = SECRETS) -> Config:
    path = directory / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, env)


def refusal(directory: Path, text: str, env: Mapping[str, str] = SECRETS) -> str:
    """The one line of a refusal, without the path's directory."""
    with pytest.raises(ConfigError) as fault:
        load(directory, text, env)
    line = str(fault.value)
    assert "\n" not in line
    assert not any(secret in line for secret in SECRETS.values())
    return line.removeprefix(f"{directory}/")


# -- what is taken


def test_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL)
    default = Config()
    assert config.media == default.media
    assert config.stage == StageConfig()
    assert config.database == "sqlite:///eyvan.db"
    assert (config.bot_user, config.server_name) == ("@eyvan:example.org", "example.org")
    assert config.health.hostname == config.web.hostname == config.appservice.hostname == "127.0.0.1"


def test_every_value_comes_from_the_file(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        MINIMAL
        + """
database: postgres://u:p@host/db
web: {public_url: "https://stage.example.org/live/", trusted_proxies: ["10.0.0.0/8"], link_hours: 1}
media: {announce: ["203.0.113.7", "2001:db8::7"], port: 1}
stage: {guests: true, hands: off}
logging: {level: DEBUG, json: true}
""",
    )
    assert config.database == "postgres://u:p@host/db"
    assert config.web.public_url == "https://stage.example.org/live"
    assert config.web.trusted_proxies == ("10.0.0.0/8",)
    assert (config.media.announce, config.media.port) == (("203.0.113.7", "2001:db8::7"), 1)
    assert (config.stage.guests, config.stage.hands) == (True, "off")
    assert (config.logging.level, config.logging.json) == ("DEBUG", True)
    # Plain types: ruamel's own would carry comments and compare oddly.
    assert {type(config.media.port), type(config.stage.guests), type(config.database)} == {int, bool, str}


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (2, 1), (3, 2), (4, 3), (200, 64)])
def test_workers_follow_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, workers: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    for text, wanted in (("auto", workers), ("5", 5)):
        media = load(tmp_path, MINIMAL + f"media: {{port: 7400, workers: {text}}}\n").media
        assert media.ports == range(7400, 7400 + wanted)


def test_it_is_frozen_and_shows_no_secret(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.media.port = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        config.permissions["*"] = Level.ADMIN  # type: ignore[index]
    assert not any(secret in repr(config) for secret in SECRETS.values())
    assert set(config.secrets) == set(SECRETS.values())


def test_an_empty_section_is_its_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, MINIMAL + "media:\nbot:\n").media == Config().media


# -- secrets


def test_secrets_come_from_the_file_a_file_beside_it_or_the_environment(tmp_path: Path) -> None:
    (tmp_path / "link").write_text("f" * 40 + "\n")
    text = MINIMAL + "appservice:\n  as_token: " + "k" * 20 + "\nweb:\n  link_secret_file: link\n"
    env = {"EYVAN_APPSERVICE_HS_TOKEN": "e" * 20, "EYVAN_APPSERVICE_AS_TOKEN": ""}
    config = load(tmp_path, text, env)
    assert config.appservice.as_token == "k" * 20
    assert config.appservice.hs_token == "e" * 20
    assert config.web.link_secret == "f" * 40
    over = load(tmp_path, text, {**env, "EYVAN_WEB_LINK_SECRET": "o" * 32, "EYVAN_DATABASE": "sqlite:///o.db"})
    assert (over.web.link_secret, over.database) == ("o" * 32, "sqlite:///o.db")


@pytest.mark.parametrize("missing", SECRETS)
def test_a_missing_secret_is_named_with_its_remedy(tmp_path: Path, missing: str) -> None:
    line = refusal(tmp_path, MINIMAL, {name: value for name, value in SECRETS.items() if name != missing})
    assert missing.removeprefix("EYVAN_").lower().split("_", 1)[1] in line
    assert "it is missing; make" in line


def test_secrets_may_be_missing_where_they_are_made(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(MINIMAL)
    assert load_config(path, {}, need_secrets=False).appservice.as_token == ""


def test_a_secret_is_refused_without_being_shown(tmp_path: Path) -> None:
    line = refusal(tmp_path, MINIMAL + "web:\n  link_secret: tooshort-value\n", {})
    assert "as_token" in line or "link_secret" in line
    line = refusal(tmp_path, MINIMAL, {**SECRETS, "EYVAN_WEB_LINK_SECRET": "tooshort-value"})
    assert "web.link_secret: (secret) cannot be used; give at least 32" in line
    assert "tooshort" not in line
    line = refusal(tmp_path, MINIMAL + "web:\n  link_secretx: tooshort-value\n")
    assert "tooshort" not in line


@pytest.mark.parametrize(
    ("web", "expected"),
    [
        ("link_secret_file: nowhere", "config.yaml:4: web.link_secret_file: "),
        ("link_secret_file: [a]", "config.yaml:4: web.link_secret_file: ['a'] cannot be used; give the path"),
        ("link_secret_file: x\n  link_secret: yyyy", "link_secret is given too; keep one of the two"),
    ],
)
def test_secret_files_that_cannot_be_used(tmp_path: Path, web: str, expected: str) -> None:
    env = {name: value for name, value in SECRETS.items() if "LINK" not in name}
    assert expected in refusal(tmp_path, f"{MINIMAL}web:\n  {web}\n", env)


def test_equal_tokens_are_refused(tmp_path: Path) -> None:
    env = {**SECRETS, "EYVAN_APPSERVICE_HS_TOKEN": SECRETS["EYVAN_APPSERVICE_AS_TOKEN"]}
    assert "hs_token: (secret) cannot be used; it must differ from as_token" in refusal(tmp_path, MINIMAL, env)


# -- refusals


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mdia:\n  port: 1", "config.yaml:3: mdia: "),
        ("media:\n  prot: 7400", ":4: media.prot: 7400 cannot be used; there is no such key; known here: bind"),
        ("media:\n  port: '7400'", ":4: media.port: '7400' cannot be used; give a whole number without"),
        ("media:\n  port: 0", "config.yaml:4: media.port: 0 cannot be used; give a whole number from 1 to 65535"),
        ("media:\n  port: true", "config.yaml:4: media.port: True cannot be used; give a whole number"),
        ("media:\n  port: 7400.0", "config.yaml:4: media.port: 7400.0 cannot be used; give a whole number"),
        ("media:\n  port: -1", "config.yaml:4: media.port: -1 cannot"),
        ("media:\n  listener_packet_ms: 30", "media.listener_packet_ms: 30 cannot be used; give 20, 40 or 60"),
        ("media:\n  workers: 0", "config.yaml:4: media.workers: 0 cannot be used; give auto, or a whole number from 1"),
        ("media:\n  workers: 65", "config.yaml:4: media.workers: 65 cannot be used; give auto, or"),
        ("media:\n  workers: yes", "config.yaml:4: media.workers: 'yes' cannot be used; give auto, or"),
        ("media:\n  workers: true", "config.yaml:4: media.workers: True cannot be used; give auto, or"),
        ("media:\n  tcp_single_port: 443", "media.tcp_single_port: 443 cannot be used; give one of web.tls_"),
        ("web:\n  tls_key: k.pem", "web.tls_certificate: '' cannot be used; certificate and key belong together"),
        ("web:\n  tls_pass_to: '8443'", "web.tls_pass_to: '8443' cannot be used; give host:port"),
        (
            "web:\n  tls_pass_to: 127.0.0.1:8443\nmedia:\n  tcp_single_port: 443\n  tcp_announce_port: 443",
            "media.tcp_announce_port: 443 cannot be used; media.tcp_single_port is the port that is announced",
        ),
        ("media:\n  workers: 3\n  port: 65534", "media.port: 65534 cannot be used; 3 workers take ports up to 65536"),
        ("media: 5", "config.yaml:3: media: 5 cannot be used; write `key: value` lines"),
        ("media:\n  announce: 203.0.113.7", "media.announce: '203.0.113.7' cannot be used; give a list of texts"),
        ("media:\n  announce: [stage.example.org]", "'stage.example.org' is no IP address"),
        ("media:\n  announce: [7]", "config.yaml:4: media.announce: [7] cannot be used; give a list of texts"),
        ("web:\n  trusted_proxies: [10.0.0.1/8]", "'10.0.0.1/8' is no address or network"),
        ("web:\n  public_url: stage.example.org", ":4: web.public_url: 'stage.example.org' cannot be used; give"),
        ("web:\n  public_url: https://h/x?y=1", "config.yaml:4: web.public_url"),
        ("web:\n  public_url: https://u:p@h/", "config.yaml:4: web.public_url"),
        ("web:\n  public_url: https://h:99999", "config.yaml:4: web.public_url"),
        ("web:\n  public_url: 5", "config.yaml:4: web.public_url: 5 cannot"),
        ("stage:\n  hands: nobody", ":4: stage.hands: 'nobody' cannot be used; give one of everyone,"),
        ("stage:\n  guests: yes", "config.yaml:4: stage.guests: 'yes' cannot be used; give true or false"),
        ("database: mysql://x", "config.yaml:3: database: (secret) cannot be used; give sqlite:///file.db"),
        ("database: 5", "config.yaml:3: database: (secret) cannot be used; give a text"),
        ("permissions: host", "config.yaml:3: permissions: 'host' cannot be used; write lines such as"),
        ("permissions:\n  '*': king", ":4: permissions.*: 'king' cannot be used; give one of listen,"),
        ("permissions:\n  '@ava': host", "config.yaml:4: permissions.@ava: 'host' cannot be used; the key must be"),
        ("permissions:\n  5: host", "config.yaml:4: permissions.5: 'host' cannot"),
        ("bot:\n  command_prefix: ''", "config.yaml:4: bot.command_prefix: '' cannot be used; give 1 to 8 characters"),
        ("appservice:\n  bot_username: Eyvan Bot", "config.yaml:4: appservice.bot_username: 'Eyvan Bot' cannot"),
        ("logging:\n  level: LOUD", "config.yaml:4: logging.level: 'LOUD' cannot be used; give one of DEBUG"),
        ("media:\n  port: 1\n  port: 2", "config.yaml:5: not valid YAML: found duplicate key"),
        ("media: [", "not valid YAML"),
        ('"a\\nb": 1', "config.yaml:3: 'a\\nb': 1 cannot be used; there is no such key"),
        ("media:\n\tport: 1", "config.yaml:4: not valid YAML"),
        ("a: !!python/object:os.system x", "config.yaml:3: a: "),
        ("---\na: b", "not valid YAML"),
        ("x: " + "[" * 5000, "not valid YAML"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_one_line(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in refusal(tmp_path, MINIMAL + text + "\n")


def test_what_is_no_mapping_is_refused(tmp_path: Path) -> None:
    assert "config.yaml:1: the file: ['a'] cannot be used" in refusal(tmp_path, "- a\n")
    assert "config.yaml: homeserver.domain: it is missing" in refusal(tmp_path, "")
    assert "config.yaml:2: homeserver.domain: it is missing" in refusal(tmp_path, "homeserver:\n  domain: ''\n")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"No such file.*-c"):
        load_config(tmp_path / "none.yaml", SECRETS)
    (tmp_path / "latin").write_bytes(b"homeserver:\n  domain: caf\xe9\n")
    with pytest.raises(ConfigError, match="byte 25 is not UTF-8"):
        load_config(tmp_path / "latin", SECRETS)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda below: st.lists(below, max_size=3)
        | st.dictionaries(
            st.sampled_from(["homeserver", "web", "media", "port", "domain", "permissions", "*"]) | st.text(max_size=5),
            below,
            max_size=4,
        ),
        max_leaves=8,
    )
)  # fmt: skip
def test_whatever_stands_in_it_nothing_but_a_config_error(tmp_path: Path, tree: object) -> None:
    path = tmp_path / "config.yaml"
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(tree, file)
    line = ""
    try:
        load_config(path, SECRETS)
    except ConfigError as fault:
        line = str(fault)
    assert "\n" not in line


# -- permissions


def test_the_most_specific_rule_wins(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        MINIMAL
        + "permissions:\n  '*': listen\n  partner.org: speak\n"
        + "  '@boss:partner.org': admin\n  '@low:example.org': listen\n",
    )
    users = ("@x:far.net", "@x:partner.org", "@boss:partner.org", "@low:example.org", "@x:example.org", "@boss:far.net")
    found = [config.permission(UserId(user)) for user in users]
    assert found == [Level.LISTEN, Level.SPEAK, Level.ADMIN, Level.LISTEN, Level.HOST, Level.LISTEN]
    assert Level.LISTEN < Level.SPEAK < Level.HOST < Level.ADMIN


def test_without_rules_all_speak_and_ours_host(tmp_path: Path) -> None:
    for text in (MINIMAL, MINIMAL + "permissions: {}\n"):
        config = load(tmp_path, text)
        assert config.permission(UserId("@x:far.net")) == Level.SPEAK
        assert config.permission(UserId("@x:example.org")) == Level.HOST
    lowered = load(tmp_path, MINIMAL + "permissions: {example.org: speak}\n")
    assert lowered.permission(UserId("@x:example.org")) == Level.SPEAK


# -- the files beside the code


def test_the_example_is_what_the_declarations_say() -> None:
    assert (ROOT / "config.example.yaml").read_text() == example_file(), "run: python -m bridge.config example"
    assert (ROOT / "docs/configuration.md").read_text() == reference(), "run: python -m bridge.config markdown"


def test_the_example_loads_and_shows_every_key_at_its_default() -> None:
    config = load_config(ROOT / "config.example.yaml", {}, need_secrets=False)
    named = {"*": Level.SPEAK, "example.org": Level.HOST, "@ava:example.org": Level.ADMIN}
    assert config.permissions == named
    domain = dataclasses.replace(config.homeserver, domain="")
    assert dataclasses.replace(config, homeserver=domain, permissions=Config().permissions) == Config()
    text = YAML(typ="safe").load((ROOT / "config.example.yaml").read_text())
    for section in dataclasses.fields(Config):
        value = getattr(config, section.name)
        if dataclasses.is_dataclass(value):
            assert list(text[section.name]) == [each.name for each in dataclasses.fields(value)]


def example_config() -> Config:
    env = {name: f"the {name.split('_', 2)[2].lower()} of config.yaml".replace(" ", "-") for name in list(SECRETS)[:2]}
    return load_config(ROOT / "config.example.yaml", env, need_secrets=False)


def test_the_registration_example_is_what_the_example_configuration_makes() -> None:
    assert (ROOT / "registration.example.yaml").read_text() == registration_yaml(example_config())


# -- registration


def test_the_registration_names_bot_and_prefix_alone() -> None:
    made = registration(example_config())
    assert [user["regex"] for user in made["namespaces"]["users"]] == [
        r"@eyvan:example\.org$",
        r"@eyvan_.*:example\.org$",
    ]
    assert all(user["exclusive"] for user in made["namespaces"]["users"])
    assert made["namespaces"]["rooms"] == made["namespaces"]["aliases"] == []
    assert (made["rate_limited"], made["receive_ephemeral"], made["de.sorunome.msc2409.push_ephemeral"]) == (False,) * 3
    assert (made["sender_localpart"], made["url"]) == ("eyvan", "http://localhost:29340")


def test_writing_it_makes_missing_tokens_and_says_where_they_go(tmp_path: Path) -> None:
    config = load_config(ROOT / "config.example.yaml", {"EYVAN_APPSERVICE_AS_TOKEN": "k" * 32}, need_secrets=False)
    path = tmp_path / "registration.yaml"
    advice = write_registration(config, path)
    written = YAML(typ="safe").load(path.read_text())
    assert written["as_token"] == "k" * 32
    assert len(written["hs_token"]) == 64
    assert f'hs_token: "{written["hs_token"]}"' in advice
    assert "as_token" not in advice
    assert str(path) in advice
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["registration.yaml"]


def test_it_is_replaced_only_by_force(tmp_path: Path) -> None:
    path = tmp_path / "registration.yaml"
    write_registration(example_config(), path)
    before = path.read_text()
    changed, _ = with_tokens(dataclasses.replace(example_config(), appservice=Config().appservice))
    with pytest.raises(ConfigError, match="--force"):
        write_registration(changed, path)
    assert path.read_text() == before
    write_registration(changed, path, force=True)
    assert path.read_text() == registration_yaml(changed) != before
    with pytest.raises(ConfigError, match="cannot be written"):
        write_registration(changed, tmp_path / "no" / "where.yaml")
