"""
A search for secrets where none may be. Every secret of the tests begins with "canary-".
"""

from __future__ import annotations

import logging
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SECRET = re.compile(r"canary-[0-9a-z]")
_TEXTS = {".html", ".json", ".jsonl", ".log", ".svg", ".txt"}


def shown(error: BaseException) -> Iterator[str]:
    """Everything of an error, and of the errors behind it, that a log or a debugger may show."""
    chain, seen = [error], set()
    while chain:
        one = chain.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield from (str(one), repr(one), repr(one.args), repr(vars(one)))
        yield repr(getattr(one, "pgconn", None))
        chain += [one.__cause__, one.__context__, getattr(one, "orig", None)]
    yield pickle.dumps(error).decode("latin-1")


class Search(logging.Handler):
    """What a test may have shown, gathered while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(name)s %(message)s %(args)s"))
        self.texts: list[tuple[str, str]] = []
        self.errors: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        """A log record, with its traceback."""
        self.add("a log record", self.format(record))

    def add(self, where: str, text: str) -> None:
        """Something that was shown."""
        self.texts.append((where, text))

    def add_files(self, directory: Path) -> None:
        """The reports and logs in a directory."""
        for path in directory.rglob("*"):
            if path.suffix in _TEXTS and path.is_file():
                self.add(path.name, path.read_text(errors="replace"))

    def found(self) -> list[str]:
        """Where a secret was shown, with the text around it."""
        texts = [*self.texts]
        texts += [(f"{type(error).__name__}", text) for error in self.errors for text in shown(error)]
        hits = [(where, text, match) for where, text in texts for match in SECRET.finditer(text)]
        return [
            f"{where}: ...{text[max(m.start() - 80, 0) : m.end() + 20]}..." for where, text, m in hits
        ]


def recording(errors: list[BaseException]) -> Any:
    """A `__new__` for a class of exceptions that remembers each one made."""

    def new(cls: type[BaseException], *arguments: Any, **keywords: Any) -> BaseException:
        error = Exception.__new__(cls, *arguments)
        errors.append(error)
        return error

    return staticmethod(new)
