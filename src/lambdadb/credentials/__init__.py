"""
Where a login comes from when it is not in the URL.

A store of one's own is a class with one method:

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

Login = Mapping[str, object]
"""libpq's `user` and `password`, and if need be `host`, `port`, `dbname` and others."""


class Credentials(Protocol):
    """
    A store of logins, asked at each connect, so that a rotated password is found.

    Keep `repr()` free of secrets; lambdadb never shows what `logins` gives.
    """

    def logins(self, parameters: Mapping[str, object]) -> Iterable[Login]:
        """
        Logins to try, best first. The next one is asked for only if the server refused the last.

        So the first may come from a cache, and the next from the store itself. One that equals a
        refused one is not tried again.

        It may block: it runs in a thread of its own, and a connect waits for it no longer than its
        deadline allows. A thread that is waited for no longer goes on by itself; give it an end.

        Args:
            parameters: libpq's, of the URL and `connect_args`; a login overrides them.

        Raises:
            LoginUnavailable: There is none; its text says why and what to do.
        """
        ...


class AsyncCredentials(Protocol):
    """`Credentials` for engines of `lambdadb.aio` alone: `logins` is an asynchronous generator."""

    def logins(self, parameters: Mapping[str, object]) -> AsyncIterable[Login]:
        """Logins to try, as `Credentials.logins`, awaited on the engine's event loop."""
        ...


class LoginUnavailable(Exception):
    """
    A store has no login to give. The text, which reaches the user, says why and what to do.

    A connect that meets it raises `ConnectFailed` with `Fault.LOGIN`, as for any other exception of a
    store.
    """


class LoginIterator:
    """
    A store that is asked: the logins that it gives, one after the other.

    Attributes:
        asynchronous: Whether `following` has to be awaited on the event loop.
    """

    def __init__(self, store: Any, parameters: Mapping[str, object]) -> None:
        self._store = store
        self._parameters = parameters
        self._logins: Any = None
        self.asynchronous = inspect.isasyncgenfunction(store.logins)

    def __str__(self) -> str:
        return f"{type(self._store).__name__}.logins()"

    def following(self) -> Any:
        """
        The next login; None after the last one, or if they turn out to be asynchronous.

        Raises:
            TypeError: What the store gave is none.
            Exception: Whatever the store raises.
        """
        if self.asynchronous:
            return self._awaited()
        if self._logins is None:
            logins = self._store.logins(self._parameters)
            if hasattr(logins, "__aiter__"):
                self._logins, self.asynchronous = logins, True
                return None
            if not isinstance(logins, Iterable):
                raise TypeError(f"it returned {_kind(logins)}: let it yield logins, or return a list")
            self._logins = iter(logins)
        return self._checked(next(self._logins, None))

    async def _awaited(self) -> Login | None:
        if self._logins is None:
            self._logins = self._store.logins(self._parameters)
        self._logins = aiter(self._logins)
        following: Awaitable[Any] = anext(self._logins, None)
        return self._checked(await following)

    def _checked(self, login: Any) -> Login | None:
        if login is not None and not isinstance(login, Mapping):
            raise TypeError(f"it gave {_kind(login)} instead of a login such as {{'password': ...}}")
        for name, value in (login or {}).items():
            if isinstance(value, bytes):
                raise TypeError(f"it gave bytes as {name}, where text is expected")
        return login


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
