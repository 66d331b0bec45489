"""
The drivers: what differs between them, behind the protocols of `lambdadb.drivers.base`.
"""

from __future__ import annotations

from sqlalchemy.dialects import registry

REGISTERED: dict[str, str] = {}
"""The name before `://` of a URL, and the name by which SQLAlchemy finds lambdadb's dialect for it."""


def register(drivernames: tuple[str, ...], name: str, module: str, dialect: str) -> None:
    """
    Add a driver.

    Args:
        drivernames: The names before `://` of the URLs that it serves.
        name: A name of its own, unknown to SQLAlchemy: `lambdadb+` and the driver's name.
        module: Where its synchronous dialect is; imported by the first engine that needs it.
        dialect: The dialect class. It takes `connector` and `statements`, and has `make_driver()`.
    """
    registry.register(name.replace("+", "."), module, dialect)
    REGISTERED.update(dict.fromkeys(drivernames, name))


register(
    ("postgresql", "postgresql+psycopg", "postgresql+psycopg_async"),
    "lambdadb+psycopg",
    "lambdadb.drivers.psycopg.dialect",
    "PsycopgDialect",
)
