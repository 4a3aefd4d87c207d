"""The database: opened and upgraded, one transaction at a time, its errors told in our words.

mautrix' pools and upgrades are used as they are, with three precautions. Its SQLite transaction neither commits nor
rolls back when the task is cancelled, and its ``acquire`` hands a connection down to tasks started meanwhile: so every
transaction runs in a task of ours that nobody cancels, over ``acquire_direct``. It asks for ``synchronous = NORMAL``,
which may lose the last commits with the power: FULL is set. It leaves the process when asyncpg is confused: turned off.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import sqlite3
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import asyncpg
from mautrix.util.async_db import Connection
from mautrix.util.async_db import Database as Pool
from mautrix.util.async_db.errors import DatabaseException
from yarl import URL

from bridge.errors import ConfigError, Unavailable
from bridge.store.upgrades import upgrades

log = logging.getLogger(__name__)

_T = TypeVar("_T")
Work = Callable[[Connection], Awaitable[_T]]

_FAULTS = (sqlite3.Error, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)
_CONNECTIONS = 4  # to PostgreSQL: one writes, the others read
_TIMEOUT_S = 30.0


class Database:
    """Owns the pool and the tasks of running transactions; ``close`` joins them.

    One transaction writes at a time, in the order of the calls: the rows of the inbox are numbered in the order
    in which they were committed.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._writer = asyncio.Lock()
        self._running: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def write(self, work: Work[_T]) -> _T:
        """Run ``work`` in a transaction; returns after the commit, which a cancelled caller does not stop.

        Raises Unavailable where the database does not answer; nothing of ``work`` is kept then.
        """
        return await self._run(self._written(work))

    async def read(self, work: Work[_T]) -> _T:
        """Run ``work``, which only reads. Raises Unavailable."""
        return await self._run(self._with_connection(work))

    async def _written(self, work: Work[_T]) -> _T:
        async def in_transaction(conn: Connection) -> _T:
            async with cast(AbstractAsyncContextManager[None], conn.transaction()):  # its stub says coroutine
                return await work(conn)

        async with self._writer:
            return await self._with_connection(in_transaction)

    async def _with_connection(self, work: Work[_T]) -> _T:
        async with self._pool.acquire_direct() as conn:
            return await work(conn)

    async def _run(self, transaction: Coroutine[Any, Any, _T]) -> _T:
        if self._closed:
            transaction.close()
            raise Unavailable("database: it is closed; the bridge is stopping")
        task = asyncio.ensure_future(transaction)
        self._running.add(task)
        task.add_done_callback(self._done)
        try:
            return await asyncio.shield(task)
        except _FAULTS as fault:
            raise Unavailable(f"database: {_reason(fault)}; it is tried again with the next request") from fault

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # told to the caller; one that was cancelled has nobody to tell

    async def close(self) -> None:
        """Wait for running transactions, then close. Harmless twice."""
        if self._closed:
            return
        self._closed = True
        try:
            await asyncio.gather(*self._running, return_exceptions=True)
        finally:
            await self._pool.stop()


async def open_database(url: str) -> Database:
    """Connect, and bring the schema up to date. Raises ConfigError naming ``database`` and the remedy."""
    try:
        pool = _sqlite(url) if url.startswith("sqlite:") else _postgres(url)
    except ValueError as fault:
        raise ConfigError(f"database: {hidden(url)} cannot be used ({fault}); see config.example.yaml") from fault
    try:
        await pool.start()
    except DatabaseException as fault:
        await _stop(pool)
        raise ConfigError(f"database: {hidden(url)} cannot be used: {fault}; give Eyvan one of its own") from fault
    except _FAULTS as fault:
        await _stop(pool)
        raise ConfigError(
            f"database: {hidden(url)} cannot be opened: {_reason(fault)}; check that it is there, that it may be "
            "written, and user and password"
        ) from fault
    return Database(pool)


async def _stop(pool: Pool) -> None:
    try:
        await pool.stop()
    except _FAULTS as fault:
        log.debug("closing a database that did not open: %s", fault)


def sqlite_file(url: str) -> Path | None:
    """The file that a database URL names; None where it names none."""
    path = Path(url.removeprefix("sqlite:///"))
    return path if url.startswith("sqlite:///") and path.name else None


def _make_private(path: Path) -> None:
    """Made before SQLite makes it: it gives -wal and -shm the mode of the database (its os_unix.c, findCreateFileMode).
    A file that is there already keeps the mode that somebody gave it."""
    with suppress(OSError):  # SQLite meets the same trouble, and says it
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _sqlite(url: str) -> Pool:
    path = sqlite_file(url)
    if path is None:
        raise ValueError("write sqlite:///relative.db or sqlite:////absolute.db")
    if not path.parent.is_dir():
        raise ConfigError(f"database: {url} cannot be opened: there is no directory {path.parent}; make it")
    _make_private(path)
    pragmas = ["PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", "PRAGMA busy_timeout = 10000"]
    pragmas.append("PRAGMA secure_delete = ON")  # what is emptied or forgotten is overwritten in the file
    return Pool.create(
        URL.build(scheme="sqlite", path=str(path.absolute())),
        db_args={"min_size": 1, "init_commands": pragmas},
        upgrade_table=upgrades,
        owner_name="eyvan",
        ignore_foreign_tables=False,
    )


def _postgres(url: str) -> Pool:
    return Pool.create(
        URL(url),
        db_args={
            "min_size": 1,
            "max_size": _CONNECTIONS,
            "timeout": _TIMEOUT_S,
            "command_timeout": _TIMEOUT_S,
            # Whatever the server's default: "stored" means on its disk.
            "server_settings": {"synchronous_commit": "on", "application_name": "eyvan"},
            "meow_exit_on_ice": False,
        },
        upgrade_table=upgrades,
        owner_name="eyvan",
        ignore_foreign_tables=False,
    )


def pack(value: object) -> str:
    """JSON in ASCII, which every database takes, NUL and lone surrogates included; the inverse of ``json.loads``."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"))


def pack_name(text: str) -> str:
    """A name as a column's text: readable, and distinct for distinct names."""
    return pack(text)[1:-1]


def unpack_name(packed: str) -> str:
    return cast(str, json.loads(f'"{packed}"'))


def hidden(url: str) -> str:
    """The database's URL without its password."""
    return re.sub(r"(://[^:/@]*:)[^@]*@", r"\1…@", url)


def _reason(fault: BaseException) -> str:
    return " ".join(str(fault).split()) or type(fault).__name__
