"""
Logins from AWS Secrets Manager, also in the middle of a rotation.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lambdadb.aws.keys import import_botocore_for_snapshot
from lambdadb.credentials import Login, LoginUnavailable
from lambdadb.credentials.aws.secret_reader import NobodyAnswered, SecretReader, Throttled
from lambdadb.deadline import Clock
from lambdadb.errors import InvalidSettings

logger = logging.getLogger("lambdadb")

FIRST_PAUSE = 5.0
"""Seconds for which a secret that the server has refused is not read again."""
LONGEST_PAUSE = 60.0
"""The pause doubles while the same secret goes on being refused, up to so many seconds."""


class SecretsManager:
    """
    Log in with a secret of AWS Secrets Manager, also while it is rotated.

    The secret is a password alone, or JSON with `password` and, as RDS writes it, `username`, `host`,
    `port` and `dbname`. Its username wins over the URL's, to which its password does not belong; the
    rest fills what the URL leaves out.

    Args:
        secret_id: Name or ARN.
        region: By default the ARN's, else the session's or the function's.
        max_age: Seconds for which a secret is kept in memory. A login that the server refuses is read
            anew at once, whatever its age. A secret that nobody can read anew is used for as long again.
        session: A boto3 or botocore session to read with, for example of an assumed role. Nothing else
            is asked then.
        client: A boto3 client to read with. Nothing else is asked then, and its own timeouts hold.
        clock: Tells a kept secret's age.

    Raises:
        InvalidSettings: An argument cannot work.

    **Costs:** one request in `max_age` seconds. Where the server refuses the login, up to three more,
    and then none for 5 to 60 s.
    """

    def __init__(
        self,
        secret_id: str,
        *,
        region: str | None = None,
        max_age: float = 3600.0,
        session: Any = None,
        client: Any = None,
        clock: Clock | None = None,
    ) -> None:
        if not isinstance(secret_id, str) or not secret_id:
            raise InvalidSettings("secret_id is empty. Is the environment variable that holds it set?")
        if not (isinstance(max_age, (int, float)) and max_age >= 0):
            raise InvalidSettings(f"SecretsManager(max_age={max_age!r}): use 0 or more seconds.")
        if session is not None and client is not None:
            raise InvalidSettings("SecretsManager(session=..., client=...): give one of the two.")
        if client is not None and not hasattr(client, "get_secret_value"):
            raise InvalidSettings('SecretsManager(client=...): use boto3.client("secretsmanager").')
        if session is not None and not hasattr(session, "get_credentials"):
            raise InvalidSettings("SecretsManager(session=...): use boto3.Session().")
        self._secret_id = secret_id
        self._max_age = max_age
        self._clock = clock or Clock()
        arn = secret_id.split(":")
        region = region or (arn[3] if len(arn) > 3 else None)
        self._reader = SecretReader(secret_id, region, session=session, client=client, clock=self._clock)
        self._kept: _KeptSecret | None = None
        self._refused: _RefusedSecret | None = None
        import_botocore_for_snapshot()

    def __repr__(self) -> str:
        return f"SecretsManager({self._secret_id!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_kept": None, "_refused": None}

    def forget(self) -> None:
        """Drop the secret from memory; the next connect reads it again."""
        self._kept = self._refused = None
        self._reader.forget()

    def logins(self, parameters: Mapping[str, object]) -> Iterator[Login]:
        """
        The login in memory or the current one; then, if refused, what a rotation may have made of it.

        Raises:
            LoginUnavailable: The secret cannot be read, or is not a login.
        """
        if (
            self._refused is not None
            and self._clock.idle_since(self._refused.moment) < self._refused.pause
        ):
            # The server may have been given this password by now; Secrets Manager was asked just before.
            yield self._merge(self._refused.secret, parameters)
            return
        yield self._login(self._read_first(), parameters)
        # Refused: the server has another password than the one that was read. A rotation makes the new
        # one AWSPENDING (createSecret), gives it to the server (setSecret), and then makes it AWSCURRENT
        # (finishSecret). AWSCURRENT was read just now. So if the server refuses it, setSecret is done,
        # and the server has the new password. That one is AWSPENDING, unless finishSecret was done
        # before AWSPENDING was read; then it is AWSCURRENT. AWSPENDING cannot be tried first: before
        # setSecret the server does not have it yet.
        #
        # With alternating users, setSecret changes the user that AWSCURRENT does not name. AWSCURRENT,
        # read just now, is right then. Only a second rotation during one connect could break this.
        yield self._login(self._read("AWSCURRENT", fresh=True), parameters)
        try:
            pending = self._read("AWSPENDING", fresh=True)
        except Throttled:
            raise
        except LoginUnavailable as error:  # usually there is none, since no rotation is going on
            logger.info("No pending login to try: %s", error)
        else:
            yield self._login(pending, parameters)
        last = self._read("AWSCURRENT", fresh=True)
        yield self._login(last, parameters)
        self._back_off(last.secret)

    def _back_off(self, secret: dict[str, str | int]) -> None:
        """Every version was refused: read none of them again for a while."""
        before, self._kept = self._refused, None
        again = before is not None and before.secret == secret
        pause = min(before.pause * 2, LONGEST_PAUSE) if before is not None and again else FIRST_PAUSE
        self._refused = _RefusedSecret(secret, self._clock.moment(), pause)
        logger.info("Secret %r was refused. It is read again after %.0f s.", self._secret_id, pause)

    def _read_first(self) -> _KeptSecret:
        kept = self._kept
        if kept is not None and self._clock.idle_since(kept.moment) < self._max_age:
            return kept
        try:
            return self._read("AWSCURRENT")
        except NobodyAnswered as error:
            if kept is None:
                raise
            # Most likely it is still right, and the server refuses it if not.
            logger.warning("%s The login that was read before is tried.", error)
            return _KeptSecret(kept.secret, self._clock.moment())

    def _read(self, stage: str, *, fresh: bool = False) -> _KeptSecret:
        moment = self._clock.moment()
        return _KeptSecret(self._reader.read(stage, fresh=fresh), moment)

    def _login(self, kept: _KeptSecret, parameters: Mapping[str, object]) -> Login:
        self._kept = kept
        return self._merge(kept.secret, parameters)

    def _merge(self, secret: dict[str, str | int], parameters: Mapping[str, object]) -> Login:
        """The secret's user and password, and of the rest what the URL leaves out."""
        login = {k: v for k, v in secret.items() if k in ("user", "password") or not parameters.get(k)}
        if not login.get("user") and not parameters.get("user"):
            raise LoginUnavailable(
                f"Secret {self._secret_id!r} has no username, and the URL has none either: add one, "
                "as app in driver://app@host/database."
            )
        return login


@dataclass(repr=False, eq=False)
class _KeptSecret:
    """A secret, and when it was asked for."""

    secret: dict[str, str | int]
    moment: tuple[float, float]


@dataclass(repr=False, eq=False)
class _RefusedSecret:
    """The secret that the server has refused in all of its versions, when, and for how long it rests."""

    secret: dict[str, str | int]
    moment: tuple[float, float]
    pause: float
