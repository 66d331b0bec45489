"""
The drivers. They implement the protocols of `lambdadb.drivers.base`.
"""

from __future__ import annotations

from sqlalchemy.dialects import registry

REGISTERED: dict[str, str] = {}
"""The driver names of URLs, each with the name of lambdadb's dialect in SQLAlchemy's registry."""

EXAMPLES = "postgresql+psycopg://user@host:5432/database or mysql+pymysql://user@host:3306/database"
"""URLs of both databases, for errors."""


def register(drivernames: tuple[str, ...], name: str, module: str, dialect: str) -> None:
    """
    Add a driver.

    Args:
        drivernames: The driver names (before `://`) of the URLs that it serves.
        name: The name of its dialect in SQLAlchemy's registry: `lambdadb+` and the driver's name.
        module: The module of its synchronous dialect. The first engine that needs it imports it.
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
register(
    ("mysql", "mysql+pymysql", "mysql+asyncmy", "mysql+aiomysql"),
    "lambdadb+pymysql",
    "lambdadb.drivers.pymysql.dialect",
    "PyMySQLDialect",
)
register(
    ("mariadb", "mariadb+pymysql", "mariadb+asyncmy", "mariadb+aiomysql"),
    "lambdadb+pymysql_mariadb",
    "lambdadb.drivers.pymysql.dialect",
    "MariaDBDialect",
)
register(
    ("postgresql+data_api",),
    "lambdadb+data_api",
    "lambdadb.drivers.data_api.dialect",
    "DataApiDialect",
)
register(
    ("mysql+data_api",),
    "lambdadb+mysql_data_api",
    "lambdadb.drivers.data_api.mysql_dialect",
    "MySQLDataApiDialect",
)
