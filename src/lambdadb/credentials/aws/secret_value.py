"""
What a secret of Secrets Manager says of a login. No error repeats anything of the secret.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

from lambdadb.credentials import LoginUnavailable

# The keys of the JSON that RDS and its rotation functions write, and lambdadb's names for them.
_KEYS = {
    "username": "user",
    "password": "password",
    "host": "host",
    "port": "port",
    "dbname": "database",
}

# Keys that an error may show. Any other key might itself be the secret.
_FAMILIAR_KEYS = {
    *("username", "user", "user_name", "db_user", "db_username", "pguser"),
    *("password", "pass", "passwd", "pwd", "db_password", "pgpassword"),
    *("host", "hostname", "endpoint", "db_host", "pghost", "port", "db_port", "pgport"),
    *("dbname", "database", "db", "db_name", "pgdatabase", "url", "database_url", "dsn"),
    *("engine", "masterarn", "dbinstanceidentifier", "dbclusteridentifier"),
}


def parse_secret(answer: Mapping[str, Any], name: str) -> dict[str, str | int]:
    """
    The login in an answer of GetSecretValue: `password`, and what it has of the other parameters.

    Args:
        name: The secret's, for errors.

    Raises:
        LoginUnavailable: The secret is not a login.
    """
    text = decode_text(answer)
    if not text:
        raise LoginUnavailable(f"Secret {name!r} is empty, or binary and not text.")
    if "\0" in text:
        raise LoginUnavailable(
            f"Secret {name!r} has a NUL character in it, which PostgreSQL cannot take."
        )
    if text.lstrip()[:1] != "{":  # a password such as 123456 would be JSON too
        password = re.sub(r"\r?\n\Z", "", text)
        if not password:
            raise LoginUnavailable(f"Secret {name!r} is an empty line.")
        return {"password": password}
    values = parse_json_object(text)
    if values is None:
        raise LoginUnavailable(
            f"Secret {name!r} begins with {{ and is not valid JSON. Correct the JSON; a password that "
            'begins with { has to be written as JSON: {"password": "..."}.'
        )
    return _parse_values(values, name)


def _parse_values(values: Mapping[str, Any], name: str) -> dict[str, str | int]:
    login: dict[str, str | int] = {}
    for key, ours in _KEYS.items():
        value = values.get(key)
        if value is None or value == "":
            continue
        if not isinstance(value, str):
            raise LoginUnavailable(f"Secret {name!r}: {key} is neither text nor a number.")
        if "\0" in value:
            raise LoginUnavailable(f"Secret {name!r}: {key} has a NUL character in it.")
        login[ours] = _parse_port(value, name) if key == "port" else value
    if "password" not in login:
        raise LoginUnavailable(
            f"Secret {name!r} has no password. It is JSON with {_describe_keys(values)}; lambdadb reads "
            f"{', '.join(_KEYS)}."
        )
    return login


def _parse_port(value: str, name: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", value) or not 0 < int(value) < 65536:
        raise LoginUnavailable(f"Secret {name!r}: port is not a number from 1 to 65535.")
    return int(value)


def _describe_keys(values: Mapping[str, Any]) -> str:
    known = sorted(key for key in values if key.lower() in _FAMILIAR_KEYS)
    other = len(values) - len(known)
    counted = [f"{other} {'other ' if known else ''}key{'s' if other > 1 else ''}"] if other else []
    parts = [f"the keys {', '.join(known)}"] * bool(known) + counted
    return " and ".join(parts) or "no keys"


def decode_text(answer: Mapping[str, Any]) -> str | None:
    """The text of a secret, be it stored as text or as binary; None if it is not text."""
    text, binary = answer.get("SecretString"), answer.get("SecretBinary")
    if text is None and binary is not None:
        try:
            text = (binary if isinstance(binary, bytes) else base64.b64decode(binary)).decode()
        except (ValueError, TypeError):  # whose text knows the secret
            return None
    return text.removeprefix("\ufeff") if isinstance(text, str) else None


def parse_json_object(text: str) -> dict[str, Any] | None:
    """The JSON object that `text` is, with its numbers as they are written; None if it is none."""
    try:
        found = json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):  # whose text or traceback knows the secret
        return None
    return found if isinstance(found, dict) else None


def _refuse_constant(name: str) -> None:
    """Python reads NaN and Infinity, which are not JSON."""
    raise ValueError(name)
