"""The homeserver of demo and tests: what it tells where it cannot start, and that none is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from bridge.demo.federation import make_authority
from bridge.demo.synapse import LocalSynapse, ensure_synapse
from bridge.errors import ConfigError, MatrixRefused, Unavailable
from tests.helpers.ports import free_port
from tests.helpers.synapse import ADDRESS, HANG_S, until


async def test_a_second_start_takes_up_the_same_data(tmp_path: Path, synapse_python: Path) -> None:
    synapse = LocalSynapse(tmp_path, "again.test", free_port(), None, synapse_python)
    await synapse.start()
    first = await synapse.register("ava", "password")
    with pytest.raises(MatrixRefused) as refused:
        await synapse.register("ava", "password")
    assert refused.value.errcode == "M_USER_IN_USE"
    await synapse.stop()
    assert synapse.pid is None

    await synapse.start()
    async with synapse.client(first) as ava:
        assert (await ava.request("GET", "account", "whoami"))["user_id"] == "@ava:again.test"
    again = await synapse.register_or_login("ava", "password")
    assert (again.mxid, again.access_token != first.access_token) == (first.mxid, True)
    with pytest.raises(MatrixRefused):
        await synapse.register_or_login("ava", "wrong")
    await synapse.stop()
    await synapse.stop()


async def test_it_calls_nobody_and_keeps_its_secrets(tmp_path: Path, synapse_python: Path) -> None:
    synapse = LocalSynapse(tmp_path, "quiet.test", free_port(), None, synapse_python)
    path = synapse.write_config()
    config = json.loads(path.read_text())
    assert config["trusted_key_servers"] == []
    assert config["federation_domain_whitelist"] == []
    assert (config["report_stats"], config["url_preview_enabled"], config["push"]) == (False, False, {"enabled": False})
    assert [listener["bind_addresses"] for listener in config["listeners"]] == [[ADDRESS]]
    for name in ("homeserver.yaml", "signing.key", "secrets.json"):
        assert (tmp_path / name).stat().st_mode & 0o077 == 0
    key = (tmp_path / "signing.key").read_text()
    assert json.loads(synapse.write_config().read_text()) == config
    assert (tmp_path / "signing.key").read_text() == key


async def test_a_start_that_fails_shows_the_log(tmp_path: Path, synapse_python: Path) -> None:
    with socket.socket() as taken:
        taken.bind((ADDRESS, 0))
        taken.listen()
        synapse = LocalSynapse(tmp_path, "taken.test", taken.getsockname()[1], None, synapse_python)
        with pytest.raises(Unavailable, match=r"ended with code 1[\s\S]*[Aa]ddress already in use"):
            await synapse.start()
    assert synapse.pid is None


async def test_a_start_that_is_given_up_leaves_no_process(tmp_path: Path, synapse_python: Path) -> None:
    synapse = LocalSynapse(tmp_path, "given-up.test", free_port(), None, synapse_python)
    starting = asyncio.create_task(synapse.start())
    await until(lambda: synapse.pid is not None)
    pid = synapse.pid
    assert pid
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not is_alive(pid)


_STARTS_AND_WAITS = """
import asyncio, sys
from pathlib import Path
from bridge.demo.synapse import LocalSynapse

async def main():
    synapse = LocalSynapse(Path(sys.argv[1]), "orphan.test", int(sys.argv[2]), None, Path(sys.argv[3]))
    await synapse.start()
    print(synapse.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_it_dies_with_a_parent_that_is_killed(tmp_path: Path, synapse_python: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _STARTS_AND_WAITS,
        str(tmp_path),
        str(free_port()),
        str(synapse_python),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert parent.stdout
    pid = int(await asyncio.wait_for(parent.stdout.readline(), HANG_S))
    assert is_alive(pid)
    assert os.getpgid(pid) == pid, "Ctrl-C in the terminal reaches our process group alone"
    parent.send_signal(signal.SIGKILL)
    await parent.wait()
    await until(lambda: not is_alive(pid))


async def test_a_venv_that_works_is_used_as_it_is(synapse_python: Path) -> None:
    said: list[str] = []
    assert await ensure_synapse(synapse_python.parents[1], said.append) == synapse_python
    assert said == []


async def test_an_installation_that_fails_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    said: list[str] = []
    with pytest.raises(ConfigError, match=r"pip install matrix-synapse==\S+ failed \(.+\); is a package index"):
        await ensure_synapse(tmp_path / "venv", said.append)
    assert [line.split()[0] for line in said] == ["making", "installing"]


def test_an_authority_is_kept_and_its_keys_are_private(tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    certificate = authority.certificate.read_bytes()
    settings = authority.settings(8448, ("localhost:8448",))
    assert make_authority(tmp_path).certificate.read_bytes() == certificate
    for key in (authority.key, settings.key):
        assert key.stat().st_mode & 0o077 == 0


def is_alive(pid: int) -> bool:
    """A zombie that its new parent has not fetched yet is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
