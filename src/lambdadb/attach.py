"""
`attach`: an engine that somebody else made logs in as one of lambdadb's does.
"""

from __future__ import annotations

import dataclasses
import logging
import weakref
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, event
from sqlalchemy.dialects import registry

from lambdadb.connect.connector import Connector
from lambdadb.credentials import LoginUnavailable
from lambdadb.deadline import Clock
from lambdadb.drivers import REGISTERED
from lambdadb.errors import InvalidSettings
from lambdadb.policy import PerEnvironment
from lambdadb.pool import GuardedPool

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    AnyEngine = Engine | AsyncEngine

logger = logging.getLogger("lambdadb")

_DRIVERS = ("postgresql+psycopg", "postgresql+psycopg_async", "mysql+pymysql")

_attached_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
_PLACE = ("host", "hostaddr", "port", "user")

# The engine has a pool of its own, which does not expect that the server ends an idle session.
_NO_TIMEOUTS = PerEnvironment(idle_session_timeout=None, idle_in_transaction_session_timeout=None)


def attach(engine: AnyEngine, to: AnyEngine) -> None:
    """
    Let an engine that somebody else made, such as a vector store's, log in as one of lambdadb's does.

    Each connection that it opens from now on gets a login of the other engine's `credentials`, its rules
    of TLS, its session tag and its wait for a database that wakes up, and ends its waits with the other
    engine's invocation. It gets them only where host, port and user are the other engine's. The engine
    keeps its own pool, database and settings.

    ```python
    ours = lambdadb.create_engine(url, credentials=SecretsManager("orders/app"))
    attach(store.engine, ours)
    ```

    If you can change the engine's URL, use `?plugin=lambdadb` instead: then it has a policy, too.

    Args:
        engine: A synchronous engine for `postgresql+psycopg` or `mysql+pymysql`, or an asynchronous one
            for the first. One that was made with `creator=` ignores this.
        to: An engine of lambdadb for the same server, of any of the two kinds. It need not be used.

    Raises:
        InvalidSettings: The engines are for different places or databases, `engine` is lambdadb's own,
            attached already, or has another driver, or `to` is not lambdadb's.

    Its connects raise `ConnectFailed` and `DatabaseResuming` as those of lambdadb's engines do. A login
    of the credentials that is for another user, host or port than the engine's URL names is not sent: a
    `ConnectFailed`, too.

    **Costs:** no round trip; a connect costs what one of lambdadb's costs.
    """
    core, ours = _get_core(engine), _get_core(to)
    if not isinstance(ours.pool, GuardedPool):
        raise InvalidSettings("attach(engine, to): `to` was not made by lambdadb.create_engine.")
    if isinstance(core.pool, GuardedPool):
        raise InvalidSettings("attach(engine, to): `engine` is one of lambdadb's and needs no other.")
    name = f"{core.dialect.name}+{core.dialect.driver}"
    if name not in _DRIVERS or core.dialect.name != ours.dialect.name:
        raise InvalidSettings(
            f"attach(engine, to): an engine for {name} cannot be attached to one for "
            f"{ours.dialect.name}. Use postgresql+psycopg for both, or mysql+pymysql for both."
        )
    if core in _attached_engines:
        raise InvalidSettings("attach(engine, to): `engine` is attached already. Attach it once.")
    attached = _Attached(core, ours.pool.connector)
    arguments, parameters = core.dialect.create_connect_args(core.url)
    if (difference := attached.find_difference(arguments, parameters)) is not None:
        raise InvalidSettings(
            f"attach(engine, to): {difference}. A login is given only where host, port and user match. "
            "Make an engine of lambdadb for the same place, with the same user, and attach to that."
        )
    event.listen(core, "do_connect", attached.connect)
    attached.dialect.engine_created(core)
    _attached_engines.add(core)


class _Attached:
    """Opens the connections of an attached engine."""

    def __init__(self, core: Engine, ours: Connector) -> None:
        drivername = REGISTERED[f"{core.dialect.name}+{core.dialect.driver}"]
        dialect: Any = registry.load(drivername.replace("+", "."))
        clock = Clock()
        if core.dialect.is_async:
            from lambdadb.loop_clock import LoopClock

            dialect, clock = dialect.get_async_dialect_cls(core.url), LoopClock()
        self.dialect = dialect
        self._ours = ours
        settings = dataclasses.replace(ours.settings, policy=_NO_TIMEOUTS)
        if settings.credentials is not None:
            store = _MatchingLogins(settings.credentials)
            settings = dataclasses.replace(settings, credentials=store)
        self._connector = Connector(
            driver=dialect.make_driver(),
            settings=settings,
            clock=clock,
            invocations=ours.invocations,
            environment=ours.environment,
        )
        self._connector.driver.choose_proxy(settings.proxy)
        self._told = False

    def connect(self, dialect: Any, record: Any, arguments: Any, parameters: Any) -> Any:
        """SQLAlchemy's `do_connect` listener. None: SQLAlchemy connects, without anything of ours."""
        del dialect, record
        if (difference := self.find_difference(arguments, parameters)) is not None:
            if not self._told:
                self._told = True
                logger.warning("An attached engine connects elsewhere, without a login: %s", difference)
            return None
        return self._connector.connect(self._connector.driver.make_target(arguments, parameters))

    def find_difference(self, arguments: Any, parameters: Any) -> str | None:
        """Say in what a connect differs from the other engine's; None if it leads to the same place."""
        theirs = self._connector.driver.make_target(arguments, parameters).login_parameters
        assert self._ours.target is not None
        return _find_difference(theirs, self._ours.target.login_parameters)


class _MatchingLogins:
    """A store's logins, for the host, the port and the user that an engine names, and no others."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.requires_verified_server = bool(getattr(store, "requires_verified_server", False))

    def logins(self, parameters: Mapping[str, object]) -> Any:
        """The store's logins. The engine's own database stays."""
        found = self._store.logins(parameters)
        if hasattr(found, "__aiter__"):
            return self._check_awaited(found, parameters)
        return self._check_each(found, parameters)

    def _check_each(self, found: Iterable[Any], parameters: Mapping[str, object]) -> Iterator[Any]:
        for login in found:
            yield _check_login(login, parameters)

    async def _check_awaited(self, found: Any, parameters: Mapping[str, object]) -> AsyncIterator[Any]:
        async for login in found:
            yield _check_login(login, parameters)


def _check_login(login: Any, parameters: Mapping[str, object]) -> Any:
    if not isinstance(login, Mapping):
        return login  # the connector says what is wrong
    for name in _PLACE:
        named, own = _read(name, login), _read(name, parameters)
        if named and own and named != own:
            raise LoginUnavailable(
                f"The login is for the {name} {named!r}, and the engine's URL names {own!r}: it was not "
                "sent. Correct the URL, or attach the engine to one whose credentials are for it."
            )
    return {name: value for name, value in login.items() if name != "database"}


def _find_difference(theirs: Mapping[str, object], ours: Mapping[str, object]) -> str | None:
    """Say in what two connects differ. A user that only one of them names is no difference."""
    for name in _PLACE:
        one, other = _read(name, theirs), _read(name, ours)
        if one != other and (name != "user" or (one and other)):
            return f"its {name} is {one!r}, and lambdadb's is {other!r}"
    return None


def _read(name: str, parameters: Mapping[str, object]) -> str:
    value = parameters.get(name) or (parameters.get("default_port") if name == "port" else None)
    text = "" if value is None else str(value)
    return text if name == "user" else text.lower()


def _get_core(engine: Any) -> Engine:
    core = getattr(engine, "sync_engine", engine)
    if not isinstance(core, Engine):
        raise InvalidSettings(f"attach got {type(engine).__name__}: pass two engines.")
    return core
