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

from collections.abc import AsyncIterable, Iterable, Mapping
from typing import Protocol

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
