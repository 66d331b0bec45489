"""
`create_reader_engine`: a second engine, whose transactions only read, on a cluster's readers.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, overload

import sqlalchemy
from sqlalchemy import Engine

from lambdadb.drivers.rds_endpoint import reader_endpoint
from lambdadb.engine import parse_url, with_plugin
from lambdadb.errors import InvalidSettings
from lambdadb.pool import GuardedPool

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from lambdadb.connect.connector import Connector


@overload
def create_reader_engine(
    engine: Engine, host: str | None = None, *, writer_may_answer: bool = False, **keywords: Any
) -> Engine: ...
@overload
def create_reader_engine(
    engine: AsyncEngine, host: str | None = None, *, writer_may_answer: bool = False, **keywords: Any
) -> AsyncEngine: ...
def create_reader_engine(
    engine: Any, host: str | None = None, *, writer_may_answer: bool = False, **keywords: Any
) -> Any:
    """
    Make an engine whose transactions only read, on the readers of another engine's cluster.

    It has the other engine's settings: policy, retry, credentials, tracer, tag and proxy. Its
    transactions are READ ONLY, so that a write is refused wherever it lands. It connects to a standby
    only, and waits for one as for a database that is waking up: a reader of tier 2 to 15 pauses by
    itself, and resumes after the writer. A connection whose reader has been promoted is replaced when
    it is returned.

    ```python
    reader = create_reader_engine(engine)  # orders.cluster-... becomes orders.cluster-ro-...


    @handler(engine, reader)
    def lambda_handler(event, context): ...
    ```

    Args:
        engine: An engine of lambdadb for PostgreSQL.
        host: The readers' host name, `host:port` if the port differs. None: the reader endpoint of
            the Aurora cluster in the engine's URL.
        writer_may_answer: Whether the writer may be read from. The reader endpoint of a cluster without
            readers leads to it.
        **keywords: Passed on to `sqlalchemy.create_engine`. `connect_args` of the other engine are kept.

    Raises:
        InvalidSettings: The host is not known, or the engine is not lambdadb's for PostgreSQL.

    **Costs:** none; the first checkout connects. The check of the server's role costs no round trip.
    """
    core = getattr(engine, "sync_engine", engine)
    if not isinstance(core, Engine) or not isinstance(core.pool, GuardedPool):
        raise InvalidSettings(
            f"create_reader_engine got {type(engine).__name__}: pass an engine of lambdadb."
        )
    make_arguments = getattr(core.dialect, "make_reader_arguments", None)
    if make_arguments is None:
        raise InvalidSettings(
            f"create_reader_engine knows PostgreSQL's standbys only. For {core.dialect.name} make an "
            "engine with the reader endpoint's URL."
        )
    connector: Connector = core.pool.connector
    settings = {
        field.name: getattr(connector.settings, field.name)
        for field in dataclasses.fields(connector.settings)
    }
    arguments = make_arguments(writer_may_answer=writer_may_answer)
    given = {**connector.connect_args, **arguments, **keywords.pop("connect_args", {})}
    options = {"postgresql_readonly": True, **keywords.pop("execution_options", {})}
    create: Any = sqlalchemy.create_engine
    if core.dialect.is_async:
        from sqlalchemy.ext.asyncio import create_async_engine as create
    return create(
        parse_url(_lead_to_readers(core.url, host)),
        connect_args=given,
        execution_options=options,
        **settings,
        **with_plugin(keywords),
    )


def _lead_to_readers(url: sqlalchemy.URL, host: str | None) -> sqlalchemy.URL:
    """Return the URL with the readers' host."""
    if host is None:
        host = reader_endpoint(url.host or "")
        if host is None:
            raise InvalidSettings(
                f"The readers of {url.host!r} are not known: it is not the endpoint of an Aurora "
                "cluster. Use create_reader_engine(engine, 'HOST')."
            )
    name, _, port = host.partition(":")
    return url.set(host=name, port=int(port) if port else url.port)
