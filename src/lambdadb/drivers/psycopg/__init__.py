"""psycopg 3, synchronous and asynchronous."""

from lambdadb.errors import InvalidSettings

try:
    import psycopg  # noqa: F401
except ImportError as error:  # psycopg itself is always installed
    from lambdadb.extras import install_command

    raise InvalidSettings(
        f"PostgreSQL needs libpq, which psycopg does not find: {install_command('binary')}, or the "
        "system's own (Debian: apt-get install libpq5)."
    ) from error
