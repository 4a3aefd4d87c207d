"""The registration: the file by which a homeserver knows this application service.

Application Service API v1.15, "Registration". Made from the configuration, so that the two cannot disagree.
"""

from __future__ import annotations

import dataclasses
import io
import os
import re
import secrets
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from bridge.config import Config
from bridge.errors import ConfigError

RTC_PREFIX = "rtc/livekit"  # MSC4512, MSC4195: below it the homeserver passes on to us what clients ask


def registration(config: Config) -> dict[str, Any]:
    """The registration of a configuration that has its tokens, in the order in which it is written."""
    own, server = config.appservice, re.escape(config.homeserver.domain)
    users = [rf"@{re.escape(own.bot_username)}:{server}$", rf"@{re.escape(own.user_prefix)}.*:{server}$"]
    return {
        "id": own.id,
        "url": own.address,
        "as_token": own.as_token,
        "hs_token": own.hs_token,
        "sender_localpart": own.bot_username,
        # Ours is the pacing: the bot answers many people at once.
        "rate_limited": False,
        "namespaces": {
            "users": [{"exclusive": True, "regex": regex} for regex in users],
            "aliases": [],
            "rooms": [],
        },
        # Typing, receipts and presence are of no use to us (MSC2409).
        "de.sorunome.msc2409.push_ephemeral": False,
        "receive_ephemeral": False,
        **(_claims(config) if config.matrixrtc.enabled and config.matrixrtc.claim_rtc else {}),
    }


def _claims(config: Config) -> dict[str, Any]:
    address = config.appservice.address.rstrip("/")
    return {"io.element.msc4512.proxy_prefix": RTC_PREFIX, "io.element.msc4512.proxy_url": address}


def registration_yaml(config: Config) -> str:
    text = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 200
    yaml.dump(registration(config), text)
    return text.getvalue()


def with_tokens(config: Config) -> tuple[Config, dict[str, str]]:
    """The configuration with the tokens that it lacks, and those alone, by their key."""
    own = config.appservice
    made = {name: secrets.token_hex(32) for name in ("as_token", "hs_token") if not getattr(own, name)}
    as_token, hs_token = own.as_token or made["as_token"], own.hs_token or made["hs_token"]
    complete = dataclasses.replace(own, as_token=as_token, hs_token=hs_token)
    return dataclasses.replace(config, appservice=complete), made


def write_registration(config: Config, path: Path, *, force: bool = False) -> str:
    """Write the file, readable by its owner alone; returns what to tell the operator.

    Raises ConfigError where the file is there already and not ``force``, or cannot be written.
    """
    complete, made = with_tokens(config)
    text = registration_yaml(complete)
    beside = path.with_name(f".{path.name}.new")
    try:
        if not force and path.exists():
            raise FileExistsError
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        if force:
            beside.replace(path)
        else:
            os.link(beside, path)  # fails where somebody made it meanwhile
            beside.unlink()
    except FileExistsError as fault:
        beside.unlink(missing_ok=True)
        raise ConfigError(f"{path}: it is there already; give --force to replace it, and its tokens") from fault
    except OSError as fault:
        raise ConfigError(f"{path}: it cannot be written ({fault.strerror}); give another path") from fault
    return _advice(path, made)


def _advice(path: Path, made: dict[str, str]) -> str:
    lines = [
        f"Wrote {path}. Let the homeserver's user read it, name it in homeserver.yaml, then restart the homeserver:",
        "",
        "  app_service_config_files:",
        f"    - {path.absolute()}",
    ]
    if made:
        lines += ["", "Tokens were made. Put them into your configuration:", "", "  appservice:"]
        lines += [f'    {name}: "{token}"' for name, token in made.items()]
    return "\n".join(lines)
