"""The store's rows in a PostgreSQL database: all that is PostgreSQL's own. For a person: docs/how-to/postgresql.md.

One connection writes, and its session holds an advisory lock that PostgreSQL frees when that session is over, however
it ends. So whoever can write is alone; and a lost connection is a fence: the next one gets the lock only when the old
session has ended, with whatever it was about to commit. Then an outcome that nobody was told is there to be read.
A pooler that shares sessions between transactions (PgBouncer's `transaction` mode) breaks this: connect without one.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import URL, Connection, Engine, Text, create_engine, event, func, make_url, select
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.ext.compiler import compiles

from fednode.errors import BadConfig, NotAuthorised, StoreAway, StoreError, StoreLocked, UsageError
from fednode.store.writer import as_store_error, is_away

SCHEMES = ("postgresql", "postgres")
LOCK = 0x6665646E               # "fedn": one store a database
TAKE_LOCK_S = 5                 # for the end of a session whose process is dead already
MAX_NAME = 63                   # of an application, in bytes

# Of the server, for our sessions. A commit that returned survives a loss of power. Whose machine vanished without a
# word is found out within half a minute, and its lock freed.
SETTINGS = {
    "synchronous_commit": "on", "lock_timeout": "30s", "statement_timeout": "120s",
    "idle_in_transaction_session_timeout": "120s", "client_encoding": "utf8",
    "tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
# Of this side: the same.
WIRE = {
    "connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}

log = structlog.get_logger(__name__)


@compiles(Text, "postgresql")
def _text_by_its_bytes(kind: Text, compiler: Any, **named: Any) -> str:
    """Ordered like the names of the house, not as a language has it."""
    return 'TEXT COLLATE "C"'


@dataclass(frozen=True)
class PostgresDatabase:
    """`engine.Database` at an address."""

    url: URL

    @staticmethod
    def at(text: str) -> PostgresDatabase:
        """Raises UsageError where the driver is missing, BadConfig where `text` is no URL. Neither tells a password."""
        url = _read(text)
        try:
            import psycopg  # noqa: F401
        except ImportError:
            raise UsageError(
                "a database in PostgreSQL needs the package psycopg", fix="pip install 'fednode[postgres]'"
            ) from None
        return PostgresDatabase(url.set(drivername="postgresql+psycopg"))

    @property
    def name(self) -> str:
        """Its address, without any secret."""
        shown = URL.create("postgresql", host=self.url.host, port=self.url.port, database=self.url.database)
        return shown.render_as_string()

    @property
    def way_back(self) -> str:
        return "restore the database from a dump of the older one"

    def open(self, *, is_writer: bool) -> Engine:
        """It connects on first use. The writing one has a single connection, which holds the lock."""
        options = " ".join(f"-c {name}={value}" for name, value in SETTINGS.items())
        given = str(self.url.query.get("options", ""))
        connect = {**WIRE, "application_name": _application(), "options": f"{options} {given}".strip()}
        if not is_writer:
            return create_engine(
                self.url, connect_args=connect, pool_pre_ping=True, isolation_level="REPEATABLE READ",
                execution_options={"postgresql_readonly": True},
            )
        engine = create_engine(
            self.url, connect_args=connect, pool_pre_ping=True, pool_size=1, max_overflow=0,
            isolation_level="READ COMMITTED",
        )
        event.listen(engine, "connect", self._take_lock)
        return engine

    def keep_before(self, head: str) -> None:
        """Nothing: the steps are one transaction here, and a dump is for whoever runs the database."""

    def num_bytes(self, c: Connection) -> int:
        return int(c.execute(select(func.pg_database_size(func.current_database()))).scalar_one())

    def refusal(self, error: DBAPIError) -> StoreError | UsageError | NotAuthorised:
        """Why it does not open."""
        said = str(error.orig).strip()
        fix = "correct --database or FEDNODE_DATABASE"
        if "authentication failed" in said or "no password supplied" in said or "no pg_hba.conf entry" in said:
            return NotAuthorised(f"{self.name} refuses this user: {said}", fix=f"{fix}, its user or its password")
        if "does not exist" in said and "FATAL" in said:
            return UsageError(f"{self.name} cannot be used: {said}", fix=f"create it (createdb), or {fix}")
        if "permission denied" in said:
            return NotAuthorised(f"{self.name}: {said}", fix="make this user the owner of the database")
        if is_away(error):
            return StoreAway(f"{self.name} does not answer: {said}", fix=f"start PostgreSQL, or {fix}")
        return as_store_error(error)

    def _take_lock(self, connection: Any, record: object) -> None:
        """Of a new session. Raises StoreLocked naming the holder."""
        try:
            connection.execute(f"SET lock_timeout = '{TAKE_LOCK_S}s'")
            connection.execute(f"SELECT pg_advisory_lock({LOCK})")
            connection.execute(f"SET lock_timeout = '{SETTINGS['lock_timeout']}'")
            connection.commit()
        except Exception as error:
            holder = _holder(connection) if getattr(error, "sqlstate", "") == "55P03" else ""
            connection.close()
            if not holder:
                raise
            if holder == _application():
                raise StoreAway(
                    f"{self.name} still has a broken session of ours", fix="wait half a minute: PostgreSQL ends it"
                ) from None
            raise StoreLocked(
                f"{self.name} is in use by {holder}", fix="end that central node, or choose another --database"
            ) from None
        _warn(self.name, connection)


def _read(text: str) -> URL:
    """The address; no part of a wrong one is told, for it may be the password."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        url = URL.create("none")
    if url.drivername not in SCHEMES or not url.database or "@" in (url.host or ""):
        raise BadConfig(
            "the setting database is no URL of a PostgreSQL database",
            fix="write it as postgresql://USER@HOST/NAME, special characters of a password as %XX; "
            "without the setting, rows lie in the state dir",
            field="database",
        )
    return url


def _application() -> str:
    """What we are called in PostgreSQL's own lists, and by whom the lock keeps out."""
    return f"fednode process {os.getpid()} on {socket.gethostname()}"[:MAX_NAME]


def _holder(connection: Any) -> str:
    connection.rollback()
    found = connection.execute(
        "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND "
        "granted AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
        f"AND classid = 0 AND objid = {LOCK}"
    ).fetchone()
    return str(found[0]) if found and found[0] else "another central node"


def _warn(name: str, connection: Any) -> None:
    """What no session of ours can set."""
    for setting in ("fsync", "full_page_writes"):
        row = connection.execute(f"SHOW {setting}").fetchone()
        if row and row[0] == "off":
            log.warning("database.unsafe", database=name, setting=f"{setting} = off", lost_with="a loss of power")
    connection.commit()
