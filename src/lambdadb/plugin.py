"""
lambdadb's plugin for SQLAlchemy: `plugins=["lambdadb"]`, or `?plugin=lambdadb` in a URL.

Every engine of lambdadb is composed here. `lambdadb.create_engine` uses this plugin too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Engine
from sqlalchemy.engine import CreateEnginePlugin
from sqlalchemy.pool import NullPool

from lambdadb.connect.connector import Connector
from lambdadb.deadline import Clock
from lambdadb.drivers import EXAMPLES, REGISTERED
from lambdadb.errors import InvalidSettings
from lambdadb.lifecycle import watch_engine
from lambdadb.policy import PerInvocation
from lambdadb.pool import GuardedPool
from lambdadb.settings import Settings, read_url_settings
from lambdadb.url import check_url

if TYPE_CHECKING:
    from lambdadb.drivers.base import Driver
    from lambdadb.tracing import Tracer

_SETTINGS = (
    *("policy", "retry", "credentials", "tracer", "tag", "allow_unverified_server"),
    *("proxy", "proxy_check", "deadline_function"),
)
_DECIDED_BY_POLICY = {
    *("creator", "async_creator", "module"),
    *("pool", "poolclass", "pool_size", "max_overflow", "pool_timeout", "pool_use_lifo"),
}


class LambdaDBPlugin(CreateEnginePlugin):
    """
    Gives an engine lambdadb's dialect, connector and pool.

    Args:
        url: Its query may hold the settings that fit into a URL, such as `lambdadb_policy`.
        kwargs: The keywords of `create_engine`. lambdadb's own are removed from them.

    Raises:
        InvalidSettings: The URL, a setting or a keyword cannot work.
    """

    def __init__(self, url: URL, kwargs: dict[str, Any]) -> None:
        given = {name: kwargs.pop(name) for name in _SETTINGS if name in kwargs}
        check_url(url)
        if url.drivername not in REGISTERED:
            raise InvalidSettings(
                f"The driver {url.drivername!r} of the url is not supported. Supported are "
                f"{', '.join(sorted(REGISTERED))}. Use {EXAMPLES}."
            )
        self.url, from_url = read_url_settings(url.difference_update_query(["plugin"]))
        chosen = {**from_url, **{name: value for name, value in given.items() if value is not None}}
        if kwargs.get("poolclass") is NullPool and "policy" not in chosen:
            # NullPool opens a connection for each use. Alembic's templates contain it.
            del kwargs["poolclass"]
            chosen["policy"] = PerInvocation()
        if clash := sorted(_DECIDED_BY_POLICY & kwargs.keys()):
            raise InvalidSettings(
                f"{', '.join(clash)}: the policy decides this. For a second session use "
                "PerEnvironment(connections=2); for another pool use sqlalchemy.create_engine."
            )
        self._settings = Settings.from_keywords(**chosen)
        self._check_passwords(kwargs.get("connect_args", {}))
        self._connect_args: Mapping[str, Any] = kwargs.get("connect_args", {})
        kwargs["poolclass"] = GuardedPool

    def _check_passwords(self, connect_args: Mapping[str, Any]) -> None:
        given = self.url.password or "password" in {**self.url.query, **connect_args}
        if self._settings.credentials is not None and given:
            raise InvalidSettings(
                f"Two passwords: one is in the url or in connect_args, and credentials="
                f"{type(self._settings.credentials).__name__} gives one at each connect. Remove the "
                "first."
            )

    def update_url(self, url: URL) -> URL:
        """Return the URL that names lambdadb's dialect."""
        del url
        return self.url.set(drivername=REGISTERED[self.url.drivername])

    def handle_dialect_kwargs(self, dialect_cls: type[Any], dialect_args: dict[str, Any]) -> None:
        """Make the connector and the recorder of statements, and give them to the dialect."""
        driver: Driver = dialect_cls.make_driver()
        driver.choose_proxy(self._settings.proxy)
        if dialect_cls.is_async:
            from lambdadb.loop_clock import LoopClock

            clock: Clock = LoopClock()
        else:
            clock = Clock()
        self._connector = Connector(
            driver=driver, settings=self._settings, clock=clock, connect_args=self._connect_args
        )
        driver.check_parameters({**self.url.query, **self._connect_args})
        recorder = _make_recorder(self._settings.tracer, driver, clock)
        driver.check_installation(traced=recorder is not None)
        dialect_args["connector"] = self._connector
        dialect_args["statements"] = recorder

    def handle_pool_kwargs(self, pool_cls: type[Any], pool_args: dict[str, Any]) -> None:
        """Give the pool the engine's connector and URL."""
        del pool_cls
        pool_args["connector"] = self._connector
        pool_args["url"] = self.url

    def engine_created(self, engine: Engine) -> None:
        """Check the server, and restore the URL that users expect, with SQLAlchemy's driver name."""
        dialect: Any = engine.dialect
        arguments, parameters = dialect.create_connect_args(engine.url)
        self._connector.set_target(arguments, {**parameters, **self._connect_args})
        if self._settings.deadline_function and not getattr(dialect, "calls_deadline_function", False):
            raise InvalidSettings(
                f"deadline_function={self._settings.deadline_function!r}: the driver of this URL "
                "cannot send it with BEGIN. Use postgresql+psycopg, or remove it."
            )
        if self._settings.proxy_check:
            self._check_statements(engine)
        engine.url = self.url.set(drivername=f"{dialect.name}+{dialect.driver}")
        watch_engine(self._connector.environment)

    def _check_statements(self, engine: Engine) -> None:
        from lambdadb.proxy_check import check_statements

        find_pin = getattr(engine.dialect, "find_pin", None)
        if find_pin is None:
            raise InvalidSettings("proxy_check=True: the rules are those of RDS Proxy for PostgreSQL.")
        check_statements(engine, find_pin)


def _make_recorder(tracer: Tracer | None, driver: Driver, clock: Clock) -> Any:
    """Make a recorder if the tracer selects statements; register the tracer for `trace`."""
    if tracer is None:
        return None
    from lambdadb.tracing.trace import register

    register(tracer)
    if tracer.statements == "none":
        return None
    from lambdadb.tracing.statements import StatementRecorder

    return StatementRecorder(tracer, clock, driver.describe_session)
