"""
Where a login comes from when it is not in the URL.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Credentials(Protocol):
    """
    A store of logins, asked once per connect, so that a rotated password is found.

    Keep `repr()` free of secrets; lambdadb never prints what `login` returns.
    """

    def login(self, parameters: Mapping[str, object]) -> Mapping[str, object]:
        """
        libpq parameters (`user`, `password`, also `host`, `port`, `dbname`) to connect with.

        Args:
            parameters: Those of the URL and `connect_args`; what is returned overrides them.
        """
        ...
