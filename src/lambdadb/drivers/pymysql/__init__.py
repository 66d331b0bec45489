"""The driver for MySQL and MariaDB, over PyMySQL."""

from lambdadb.errors import InvalidSettings

try:
    import pymysql  # noqa: F401
except ImportError as error:
    raise InvalidSettings(
        "MySQL needs PyMySQL, which is not installed: pip install '.[mysql]' in a clone of lambdadb, or "
        "pip install pymysql."
    ) from error
