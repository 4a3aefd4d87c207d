"""What survives a crash, in SQLite or PostgreSQL."""

from bridge.store.database import sqlite_file
from bridge.store.store import DatabaseStore, open_store

__all__ = ["DatabaseStore", "open_store", "sqlite_file"]
