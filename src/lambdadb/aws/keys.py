"""
AWS keys and regions: from the environment variables, where Lambda puts them, else from botocore.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from lambdadb.errors import LoginUnavailable


@dataclass(frozen=True, repr=False)
class Keys:
    """AWS access keys. `token` is the session token of temporary keys."""

    access: str
    secret: str
    token: str | None


def read_environment_keys() -> Keys | None:
    """The keys in the environment variables; None if they are not complete."""
    access = os.environ.get("AWS_ACCESS_KEY_ID")
    secret = os.environ.get("AWS_SECRET_ACCESS_KEY")
    token = os.environ.get("AWS_SESSION_TOKEN") or None
    return Keys(access, secret, token) if access and secret else None


def read_environment_region() -> str | None:
    """The function's own region."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")


def read_session_region(session: Any) -> str | None:
    """The region of a session of boto3 or botocore."""
    named = getattr(session, "region_name", None)
    return named or (None if is_boto3(session) else session.get_config_variable("region"))


def is_boto3(session: Any) -> bool:
    """Whether the session is boto3's; else it is botocore's."""
    return not hasattr(session, "create_client")


def import_botocore_for_snapshot() -> None:
    """
    Import botocore now if connects will need it.

    Under SnapStart the environment variables hold no keys, so botocore is needed. Imported while the
    module is imported, it is part of the snapshot.
    """
    if "AWS_CONTAINER_CREDENTIALS_FULL_URI" in os.environ and read_environment_keys() is None:
        with contextlib.suppress(ImportError):  # create_botocore_session() tells it if it is needed
            import_module("botocore.session")


def create_botocore_session() -> Any:
    """
    A botocore session. It finds keys wherever AWS's tools do, and renews those that expire.

    Raises:
        LoginUnavailable: botocore is not installed.
    """
    try:
        return import_module("botocore.session").Session()
    except ImportError:
        pass
    from lambdadb.extras import install_command

    raise LoginUnavailable(
        "botocore is not installed. It finds AWS keys that are in no environment variable, and knows "
        f"proxies and profiles: {install_command('aws')}, or pip install botocore"
    )


def create_client(session: Any, service: str, region: str | None, timeout: float) -> Any:
    """A client of a boto3 or botocore session that tries twice, `timeout` seconds for each wait."""
    config = import_module("botocore.config").Config(
        connect_timeout=timeout,
        read_timeout=timeout,
        retries={"mode": "standard", "total_max_attempts": 2},
    )
    create = session.client if is_boto3(session) else session.create_client
    return create(service, region_name=region, config=config)


def get_session_keys(session: Any) -> Keys:
    """
    The keys that a session of boto3 or botocore has at this moment.

    Raises:
        LoginUnavailable: It has none.
    """
    try:
        found = session.get_credentials()
        keys = found and found.get_frozen_credentials()
        text = "the environment variables hold none, and botocore found none"
    except Exception as error:
        keys, text = None, f"{type(error).__name__}: {error}"
    if keys is None:
        raise LoginUnavailable(
            f"No AWS credentials: {text}. Inside Lambda the function's role brings them; elsewhere set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
        )
    return Keys(keys.access_key, keys.secret_key, keys.token or None)
