"""
`create_engine`: SQLAlchemy's `create_engine` with lambdadb's plugin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import URL, Engine
from sqlalchemy.dialects import plugins
from sqlalchemy.engine import make_url

from lambdadb.drivers import EXAMPLES
from lambdadb.errors import InvalidSettings
from lambdadb.gc_pause import gc_paused
from lambdadb.url import check_url

if TYPE_CHECKING:
    from lambdadb.credentials import Credentials
    from lambdadb.drivers.base import Proxy
    from lambdadb.policy import Policy
    from lambdadb.retry import ResumeRetry
    from lambdadb.tracing import Tracer

# The distribution's entry point does the same. A copy of the package alone has no entry point.
plugins.register("lambdadb", "lambdadb.plugin", "LambdaDBPlugin")


def create_engine(
    url: str | URL,
    *,
    policy: Policy | None = None,
    retry: ResumeRetry | None = None,
    credentials: Credentials | None = None,
    tracer: Tracer | None = None,
    tag: str | None = None,
    allow_unverified_server: bool | None = None,
    proxy: Proxy | None = None,
    proxy_check: bool | None = None,
    deadline_function: str | None = None,
    **keywords: Any,
) -> Engine:
    """
    Make an ordinary `sqlalchemy.Engine` whose connections follow a policy made for Lambda.

    It opens no connection. Call it in module scope, and connect in the handler, where there is time
    to wait for a database that is waking up.

    Args:
        url: `postgresql+psycopg://user@host/database` or `mysql+pymysql://user@host/database`.
        policy: `PerEnvironment()`, the default, or `PerInvocation()`.
        retry: How long a connect waits for a database that is waking up; `ResumeRetry()` by default.
        credentials: A store that is asked for logins at each connect. None uses the URL's login.
        tracer: Records each connect, and the statements that it selects.
        tag: The session's `application_name`, or with MySQL `program_name`, made of `{name}` (the
            default), `{version}` and `{alias}` of the function. Outside Lambda a tag with `{name}` is
            not sent. A name in the URL or in `connect_args` wins.
        allow_unverified_server: True sends a login of `credentials` also to a server that is not
            verified by `sslmode=verify-full`. A login of `RdsIam` still needs encryption.
        proxy: "rds-proxy" or "pgbouncer" (and other poolers) if the URL's name leads to one, "none" if
            it does not. None finds out: RDS Proxy by its host name, others by what they answer. A proxy
            that is found by a refusal costs the engine's first connect one more attempt.
        proxy_check: True logs each statement that would pin a client of RDS Proxy, with the line of code
            that sent it. It is for development: it costs each statement some microseconds.
        deadline_function: A function in the database, such as "lambdadb_deadline", that is called with
            each BEGIN of an invocation. The server then ends the transaction at the invocation's end,
            also if the environment is killed or frozen. `lambdadb deadline` prints its SQL.
        **keywords: Passed on to `sqlalchemy.create_engine`.

    Raises:
        InvalidSettings: The URL, a setting or a keyword cannot work.
        TypeError: SQLAlchemy does not know a keyword.

    **Costs:** none; the first checkout connects.
    """
    url = parse_url(url)
    with gc_paused():
        return sqlalchemy.create_engine(
            url,
            policy=policy,
            retry=retry,
            credentials=credentials,
            tracer=tracer,
            tag=tag,
            allow_unverified_server=allow_unverified_server,
            proxy=proxy,
            proxy_check=proxy_check,
            deadline_function=deadline_function,
            **with_plugin(keywords),
        )


def with_plugin(keywords: dict[str, Any]) -> dict[str, Any]:
    """Add lambdadb to the plugins in SQLAlchemy's keywords."""
    return {**keywords, "plugins": [*keywords.get("plugins", ()), "lambdadb"]}


def parse_url(url: str | URL) -> URL:
    """
    Parse a URL, and remove lambdadb from its plugins.

    Raises:
        InvalidSettings: It is not a URL, or would show a password. The text does not show it.
    """
    if not isinstance(url, (str, URL)) or not url:
        raise InvalidSettings(
            f"url is {url!r}. Is the environment variable that holds it set? Use {EXAMPLES}."
        )
    check_url(url)
    url = make_url(url)
    others = [name for name in _to_tuple(url.query.get("plugin")) if name != "lambdadb"]
    url = url.difference_update_query(["plugin"])
    return url.update_query_dict({"plugin": others}) if others else url


def _to_tuple(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return () if value is None else (value,) if isinstance(value, str) else tuple(value)
