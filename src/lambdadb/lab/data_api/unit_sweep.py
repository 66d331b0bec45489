"""The failures of one call that a sweep tries, one after the other, at each call of a unit of work."""

from __future__ import annotations

from dataclasses import dataclass

from lambdadb.lab.data_api.server import Fault

CALLS = ("BeginTransaction", "identity", "first INSERT", "second INSERT", "CommitTransaction")
"""The calls of a unit of work of `run_transaction` with two statements."""


@dataclass(frozen=True, kw_only=True)
class NamedFault(Fault):
    """A fault with a name for people."""

    name: str = ""

    def __str__(self) -> str:
        return self.name


ERRORS = {
    500: "InternalServerErrorException",
    503: "ServiceUnavailableError",
    504: "DatabaseUnavailableException",
}
FAULTS = (
    NamedFault(name="request dropped"),
    NamedFault(name="answer dropped", effect=True),
    NamedFault(name="answer cut", effect=True, cut=True),
    *(
        NamedFault(name=f"{status} {'after' if effect else 'before'}", effect=effect, code=code)
        for status, code in ERRORS.items()
        for effect in (False, True)
    ),
)
"""The request or the answer is dropped, or an error is answered before or after the effect."""
