"""The driver for MySQL and MariaDB, over PyMySQL."""

from lambdadb.errors import InvalidSettings

try:
    import pymysql  # noqa: F401
except ImportError as error:
    from lambdadb.extras import install_command

    raise InvalidSettings(
        f"MySQL needs PyMySQL, which is not installed: {install_command('mysql')}, or pip install "
        "pymysql."
    ) from error
