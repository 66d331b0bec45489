"""
`create_engine`: SQLAlchemy's, with lambdadb's plugin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import URL, Engine
from sqlalchemy.dialects import plugins
from sqlalchemy.engine import make_url

from lambdadb.errors import InvalidSettings
from lambdadb.gc_pause import gc_paused
from lambdadb.url import check_url

if TYPE_CHECKING:
    from lambdadb.credentials import Credentials
    from lambdadb.policy import Policy
    from lambdadb.retry import ResumeRetry
    from lambdadb.tracing import Tracer

# The entry point of the distribution says the same; a copy of the package alone has none.
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
    **keywords: Any,
) -> Engine:
    """
    An ordinary `sqlalchemy.Engine` whose connections follow a policy made for Lambda.

    It opens nothing by itself: call it in module scope and connect in the handler, where there is
    time to wait for a database that is waking up.

    Args:
        url: `postgresql+psycopg://user@host/database`.
        policy: `PerEnvironment()`, the default, or `PerInvocation()`.
        retry: How long a connect waits for a database that is waking up; `ResumeRetry()` by default.
        credentials: Asked for logins at each connect; without it, the URL's own is used.
        tracer: Told of each connect, and of the statements that it wants.
        tag: The session's `application_name`, made of `{name}` (the default), `{version}` and
            `{alias}` of the function. Nothing is sent outside Lambda, or where the URL has its own.
        allow_unverified_server: True lets a login of `credentials` go to a server that is not verified
            by `sslmode=verify-full`; where the store needs one that is, to one that is encrypted.
        **keywords: Passed on to `sqlalchemy.create_engine`.

    Raises:
        InvalidSettings: A URL, a setting or a keyword that cannot work.
        TypeError: A keyword that SQLAlchemy does not know.

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
            **with_plugin(keywords),
        )


def with_plugin(keywords: dict[str, Any]) -> dict[str, Any]:
    """SQLAlchemy's keywords, with lambdadb among the plugins."""
    return {**keywords, "plugins": [*keywords.get("plugins", ()), "lambdadb"]}


def parse_url(url: str | URL) -> URL:
    """
    A URL without the plugin's name in it.

    Raises:
        InvalidSettings: It is none, or would show a password. The text shows nothing of it.
    """
    if not isinstance(url, (str, URL)) or not url:
        raise InvalidSettings(
            f"url is {url!r}. Is the environment variable that holds it set? "
            "Use postgresql+psycopg://user@host:5432/database."
        )
    check_url(url)
    url = make_url(url)
    others = [name for name in _listed(url.query.get("plugin")) if name != "lambdadb"]
    url = url.difference_update_query(["plugin"])
    return url.update_query_dict({"plugin": others}) if others else url


def _listed(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return () if value is None else (value,) if isinstance(value, str) else tuple(value)
