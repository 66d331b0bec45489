"""
Stores of logins, for logins that are not in the URL.

A store of your own is a class with one method:

```python
class Vault:
    def logins(self, parameters):
        yield {"user": "app", "password": read_password()}
```
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Awaitable, Iterable, Mapping
from typing import Any, Protocol

from lambdadb.errors import LoginUnavailable

__all__ = ["AsyncCredentials", "Credentials", "Login", "LoginIterator", "LoginUnavailable"]

Login = Mapping[str, object]
"""
`user` and `password`, and optionally `host`, `port` and `database`.

Any other key is one of the driver's own parameters.
"""


class Credentials(Protocol):
    """
    A store of logins, asked at each connect, so that a rotated password is found.

    Keep `repr()` free of secrets; lambdadb never shows what `logins` gives.

    A login is sent only to a server whose certificate is verified, or to this machine. A store with
    `requires_verified_server = True` has this machine verified too.
    """

    def logins(self, parameters: Mapping[str, object]) -> Iterable[Login]:
        """
        Logins to try, best first. The next one is asked for only if the server refused the last.

        So the first may come from a cache, and the next from the store itself. One that equals a
        refused one is not tried again.

        It may block: it runs in a thread of its own, and a connect waits for it no longer than its
        deadline allows. A thread that is waited for no longer goes on by itself; give it an end.

        Args:
            parameters: What the URL and `connect_args` say: `user`, `host`, `port`, `database`, and the
                driver's own parameters. A login overrides them. `default_port` is the port that the
                driver takes where there is no `port`.

        Raises:
            LoginUnavailable: There is none; its text says why and what to do.
        """
        ...


class AsyncCredentials(Protocol):
    """`Credentials` for engines of `lambdadb.aio` alone: `logins` is an asynchronous generator."""

    def logins(self, parameters: Mapping[str, object]) -> AsyncIterable[Login]:
        """Logins to try, as `Credentials.logins`, awaited on the engine's event loop."""
        ...


class LoginIterator:
    """
    The logins that a store gives, one after the other.

    Attributes:
        asynchronous: Whether `next_login` has to be awaited on the event loop.
    """

    def __init__(self, store: Any, parameters: Mapping[str, object]) -> None:
        self._store = store
        self._parameters = parameters
        self._logins: Any = None
        self.asynchronous = inspect.isasyncgenfunction(store.logins)

    def __str__(self) -> str:
        return f"{type(self._store).__name__}.logins()"

    def next_login(self) -> Any:
        """
        The next login; None after the last one, or if they turn out to be asynchronous.

        Raises:
            TypeError: What the store gave is not a login.
            ValueError: It holds a character that PostgreSQL cannot take.
            Exception: Whatever the store raises.
        """
        if self.asynchronous:
            return self._await_login()
        if self._logins is None:
            logins = self._store.logins(self._parameters)
            if hasattr(logins, "__aiter__"):
                self._logins, self.asynchronous = logins, True
                return None
            if not isinstance(logins, Iterable):
                raise TypeError(
                    f"it returned {_name_kind(logins)}: let it yield logins, or return a list"
                )
            self._logins = iter(logins)
        return _check_login(next(self._logins, None))

    async def _await_login(self) -> Login | None:
        if self._logins is None:
            self._logins = self._store.logins(self._parameters)
        self._logins = aiter(self._logins)
        login: Awaitable[Any] = anext(self._logins, None)
        return _check_login(await login)


def _check_login(login: Any) -> Login | None:
    if login is not None and not isinstance(login, Mapping):
        raise TypeError(f"it gave {_name_kind(login)} instead of a login such as {{'password': ...}}")
    for name, value in (login or {}).items():
        if isinstance(value, bytes):
            raise TypeError(f"it gave bytes as {name}, where text is expected")
        if isinstance(value, str) and "\0" in value:
            raise ValueError(f"it gave a NUL character in {name}, which cannot be sent")
    return login


def _name_kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
