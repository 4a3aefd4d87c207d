"""A PostgreSQL of its own for the tests: started as an unprivileged user on a free port, stopped afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.ports import free_port

_START_S = 120  # a hang limit, not an expectation


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running server; ``new_database`` gives each test its own."""

    port: int
    bin: Path
    directory: Path

    def new_database(self) -> str:
        """The URL of a new, empty database."""
        name = "t" + uuid.uuid4().hex
        self._psql(f'CREATE DATABASE "{name}" TEMPLATE template0')
        return self.url(name)

    def url(self, name: str) -> str:
        return f"postgres://eyvan:secret@127.0.0.1:{self.port}/{name}"

    def _psql(self, statement: str) -> None:
        command = [str(self.bin / "psql"), self.url("postgres"), "-qc", statement]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_START_S)

    def stop(self, mode: str = "fast") -> None:
        """``immediate`` is the server's own crash: it recovers at the next start."""
        self._ctl("stop", "-m", mode)

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.directory} -c max_connections=200"
        self._ctl("start", "-l", str(self.directory / "log"), "-o", options)

    def _ctl(self, verb: str, *args: str) -> None:
        data = str(self.directory / "data")
        _as_nobody([str(self.bin / "pg_ctl"), verb, "-D", data, "-w", "-t", str(_START_S), *args], self.directory)


def postgres_bin() -> Path:
    """Where ``initdb`` is. Its absence is a failure, not a reason to skip."""
    for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (path / "initdb").exists():
            return path
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    raise RuntimeError("PostgreSQL is missing: apt-get install postgresql-15")


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    directory = Path(tempfile.mkdtemp(prefix="eyvan-pg-"))
    server = Postgres(free_port(), postgres_bin(), directory)
    password = directory / "password"
    password.write_text("secret\n")
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        for path in (directory, password):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
    try:
        initdb = [str(server.bin / "initdb"), "-D", str(directory / "data"), "-U", "eyvan", "--no-sync", "-E", "UTF8"]
        _as_nobody([*initdb, "--locale=C", "-A", "scram-sha-256", f"--pwfile={password}"], directory)
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _as_nobody(command: list[str], directory: Path) -> None:
    """Run it unprivileged: ``initdb`` and ``postgres`` refuse root."""
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        command = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups", *command]
    output = directory / "output"
    with output.open("w") as out:  # not a pipe: the server inherits it and would hold it open
        done = subprocess.run(command, cwd=directory, stdout=out, stderr=out, timeout=2 * _START_S)
    if done.returncode:
        log = directory / "log"
        raise RuntimeError(
            f"{Path(command[0]).name} failed:\n{output.read_text()}{log.read_text() if log.exists() else ''}"
        )
