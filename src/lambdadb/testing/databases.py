"""A database of its own for each test, copied from a template."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from lambdadb.lab import LabError
from lambdadb.lab.aurora import Server
from lambdadb.lab.postgres import Postgres
from lambdadb.lab.postgres.running import EXAMPLE, RunningPostgres
from lambdadb.testing.sessions import BESIDE, PostgresSessions

IMAGE = "pgvector/pgvector:pg17"
# Only a crash of the machine would lose what is not on the disk; a cluster's pause does not.
SETTINGS = {"fsync": "off"}
CONTAINER_NETWORK = (
    0.05  # seconds: it hands on the end of a connection after the server has forgotten it
)


@contextmanager
def open_postgres(
    kind: str = "embedded", *, image: str = IMAGE, password: str | None = None
) -> Iterator[Server]:
    """
    Start a PostgreSQL, or take one that runs.

    Args:
        kind: "embedded", the lab's own; "container", one of Docker; or a URL of a running server.
        image: The container's image.
        password: The password of the superuser; a random one by default.

    Raises:
        LabError: It cannot be started, or the URL cannot be used.
    """
    if kind == "embedded":
        with Postgres(password=password, settings=SETTINGS) as server:
            yield server
    elif kind == "container":
        with _open_container(image, password or uuid.uuid4().hex) as url:
            yield RunningPostgres(url)
    elif "://" in kind:
        yield RunningPostgres(kind)
    else:
        raise LabError(
            f"The PostgreSQL for the tests is {kind!r}. Say embedded, container, or the URL of a "
            f"running server: {EXAMPLE}"
        )


@contextmanager
def _open_container(image: str, password: str) -> Iterator[str]:
    try:
        from testcontainers.community.postgres import PostgresContainer
    except ImportError:
        raise LabError(
            "A container for the tests needs the package testcontainers: pip install testcontainers"
        ) from None
    with PostgresContainer(
        image, username="postgres", password=password, dbname="postgres", driver="psycopg"
    ) as container:
        yield container.get_connection_url()


class Admin:
    """A session beside the tested ones. It is opened again after the server has restarted."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._connection: psycopg.Connection[Any] | None = None

    def execute(self, statement: Any, parameters: Sequence[Any] = ()) -> psycopg.Cursor[Any]:
        """Run a statement, as `psycopg.Connection.execute`."""
        if self._connection is not None:
            try:
                return self._connection.execute(statement, parameters or None)
            except psycopg.OperationalError:
                if not self._connection.broken:
                    raise
        self.close()
        self._connection = connect(self.url)
        return self._connection.execute(statement, parameters or None)

    def ask(self, statement: Any, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement, and return its rows; none if it gives none."""
        return rows_of(self.execute(statement, parameters))

    def close(self) -> None:
        """Close the session."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def connect(url: str) -> psycopg.Connection[Any]:
    """A session in autocommit that `Sessions` does not show."""
    dsn = url.replace("+psycopg", "", 1)
    return psycopg.connect(dsn, autocommit=True, application_name=BESIDE)


def rows_of(cursor: psycopg.Cursor[Any]) -> list[tuple[Any, ...]]:
    """The rows of a statement; none if it gives none."""
    return cursor.fetchall() if cursor.description else []


class Database:
    """
    A PostgreSQL database of one test.

    Attributes:
        name: Its name.
        url: Its SQLAlchemy URL, with the password in clear text.
        sessions: Its sessions, as the server sees them.
    """

    def __init__(self, server: Server, name: str, admin: Admin) -> None:
        self.server = server
        self.name = name
        network = CONTAINER_NETWORK if isinstance(server, RunningPostgres) else 0.0
        # A server that is down has none.
        self.sessions = PostgresSessions(
            lambda *question: admin.ask(*question) if server.running else [], name, network=network
        )

    def __repr__(self) -> str:
        return f"<Database {self.name}>"

    @property
    def url(self) -> str:
        return self.server.url(self.name)

    def query(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """
        Run a statement in a session of its own, and return its rows; none if it gives none.

        Args:
            statement: With `%s` for each parameter. Without parameters it may be several statements.

        Raises:
            LabError: The cluster before the server is paused.
            psycopg.Error: What the server says.
        """
        if not self.server.running:
            raise LabError(f"{self.name}: the cluster is paused. Connect through it: that wakes it up.")
        with connect(self.url) as connection:
            return rows_of(connection.execute(statement.encode(), parameters or None))


# What is in a database, less its rows. A changed object has another `xmin`, its row's version.
_FINGERPRINT = """
    SELECT array_agg(found ORDER BY found) FROM (
        SELECT concat_ws(' ', 'class', oid, relname, relkind, relowner, relacl, relrowsecurity,
            reloptions) FROM pg_class WHERE oid >= 16384 AND relnamespace <> 'pg_toast'::regnamespace
        UNION ALL SELECT concat_ws(' ', 'column', attrelid, attnum, xmin) FROM pg_attribute
            WHERE attrelid >= 16384
        UNION ALL SELECT concat_ws(' ', 'sequence', schemaname, sequencename, last_value)
            FROM pg_sequences
        UNION ALL SELECT concat_ws(' ', 'constraint', oid, xmin) FROM pg_constraint WHERE oid >= 16384
        UNION ALL SELECT concat_ws(' ', 'default', oid, xmin) FROM pg_attrdef
        UNION ALL SELECT concat_ws(' ', 'label', oid, xmin) FROM pg_enum
        UNION ALL SELECT concat_ws(' ', 'proc', oid, xmin) FROM pg_proc WHERE oid >= 16384
        UNION ALL SELECT concat_ws(' ', 'type', oid, typname, typacl) FROM pg_type WHERE oid >= 16384
        UNION ALL SELECT concat_ws(' ', 'namespace', oid, nspname, nspacl) FROM pg_namespace
        UNION ALL SELECT concat_ws(' ', 'operator', oid, xmin) FROM pg_operator WHERE oid >= 16384
        UNION ALL SELECT concat_ws(' ', 'rule', oid, xmin) FROM pg_rewrite WHERE oid >= 16384
        UNION ALL SELECT concat_ws(' ', 'trigger', oid, xmin) FROM pg_trigger WHERE oid >= 16384
        UNION ALL SELECT concat_ws(' ', 'event trigger', oid, xmin) FROM pg_event_trigger
        UNION ALL SELECT concat_ws(' ', 'extension', oid, xmin) FROM pg_extension
        UNION ALL SELECT concat_ws(' ', 'policy', oid, xmin) FROM pg_policy
        UNION ALL SELECT concat_ws(' ', 'publication', oid, xmin) FROM pg_publication
        UNION ALL SELECT concat_ws(' ', 'setting', setdatabase, setrole, setconfig)
            FROM pg_db_role_setting
        UNION ALL SELECT concat_ws(' ', 'database', datallowconn, datconnlimit, datacl)
            FROM pg_database WHERE datname = current_database()
        UNION ALL SELECT concat_ws(' ', 'large object', oid) FROM pg_largeobject_metadata
        UNION ALL SELECT concat_ws(' ', 'prepared', gid) FROM pg_prepared_xacts
    ) AS objects (found)
"""
_TABLES = """
    SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
    WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
"""


class Databases:
    """
    A database for each test: a copy of a template, or the one of the test before, emptied.

    The template is made when the first test needs one. A copy costs a tenth of a second and more, and
    dropping it a checkpoint. So a copy is used again if the template has no rows, and a test left
    nothing but rows. Names are unique, so that several test runs can share a server.

    Args:
        server: The server.
        create_schema: Called once with the URL of the empty template.
    """

    def __init__(self, server: Server, create_schema: Callable[[str], object]) -> None:
        self._server = server
        self._create_schema = create_schema
        self._admin = Admin(server.url())
        self._prefix = f"test_{uuid.uuid4().hex[:8]}"
        self._template = f"{self._prefix}_template"
        self._count = 0
        self._tables: list[str] | None = None  # None: there is no template yet
        self._reusable = False
        self._clean: Database | None = None
        self._fingerprint: object = None

    def take(self) -> Database:
        """One that is as good as new."""
        if self._tables is None:
            self._tables = self._create_template()
        if self._clean is None:
            self._count += 1
            name = f"{self._prefix}_{self._count}"
            self._admin.ask(f"CREATE DATABASE {name} TEMPLATE {self._template}")
            self._clean = Database(self._server, name, self._admin)
            self._fingerprint = self._clean.query(_FINGERPRINT)
        return self._clean

    def give_back(self, database: Database) -> None:
        """End its sessions; empty it or, if it was changed otherwise, drop it."""
        database.sessions.terminate()
        # A test may have dropped it, or have left it so that nobody can connect.
        with contextlib.suppress(psycopg.Error):
            if self._reusable and self._is_clean(database):
                return
        self._drop(database.name)
        self._clean = None

    def close(self) -> None:
        """Drop all of them, and the template; the databases of a server that is gone are gone."""
        with contextlib.suppress(psycopg.OperationalError):
            if self._clean is not None:
                self._drop(self._clean.name)
            self._drop(self._template)
        self._admin.close()

    def _create_template(self) -> list[str]:
        self._admin.ask(f"CREATE DATABASE {self._template}")
        template = Database(self._server, self._template, self._admin)
        self._create_schema(template.url)
        template.sessions.terminate()  # a database that is in use cannot be copied
        tables = [name for (name,) in template.query(_TABLES)]
        self._reusable = not any(template.query(f"TABLE {name} LIMIT 1") for name in tables)
        return tables

    def _is_clean(self, database: Database) -> bool:
        if self._tables:
            database.query(f"TRUNCATE {', '.join(self._tables)} RESTART IDENTITY CASCADE")
        return database.query(_FINGERPRINT) == self._fingerprint

    def _drop(self, name: str) -> None:
        self._admin.ask(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
