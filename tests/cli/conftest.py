"""Command lines that end with the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .processes import Started


@pytest.fixture
def start(tmp_path: Path) -> Iterator[type[Started]]:
    """Start command lines that end with the test."""
    started: list[Started] = []

    class Kept(Started):
        def __init__(self, *arguments: str, read: str = "stdout") -> None:
            super().__init__(*arguments, folder=tmp_path, read=read)
            started.append(self)

    yield Kept  # type: ignore[misc]
    for one in started:
        one.close()
