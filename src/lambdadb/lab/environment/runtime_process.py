"""A function's process, AWS's runtime client inside it, and its log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from lambdadb.lab.environment.runtime_api import RuntimeAPI
from lambdadb.lab.process import Process


class RuntimeProcess:
    """One process of an environment, from its init to its end."""

    def __init__(self, handler: str, variables: Mapping[str, str], root: Path, output: Path) -> None:
        self.api = RuntimeAPI()
        self.output = Output(output)
        try:
            self.process = Process(
                [sys.executable, "-m", "awslambdaric", handler],
                env={**variables, "AWS_LAMBDA_RUNTIME_API": self.api.address},
                cwd=root,
                output=output,
            )
        except BaseException:
            self.api.close()
            raise

    def wait(self, ready: Callable[[], bool], deadline: float) -> bool:
        """Wait until `ready` or until the process exited; False: the deadline came first."""
        while (left := deadline - time.monotonic()) > 0:
            # An exit makes no request, so it is looked for ten times a second.
            if self.api.wait_for(ready, min(left, 0.1)) or not self.process.running:
                return True
        return False

    def end(self) -> None:
        self.process.kill()
        self.api.close()


class Output:
    """The log of one process, read as it grows: one entry per line that the function ended."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.offset = 0

    def new_lines(self, *, ended: bool = False) -> list[str]:
        """The lines since the last call; one without its end counts once the process ended."""
        if not self.file.exists():
            return []
        with self.file.open("rb") as file:
            file.seek(self.offset)
            text = file.read()
        if ended and text and not text.endswith(b"\n"):
            text += b"\n"
        complete = text[: text.rfind(b"\n") + 1]
        self.offset += len(complete)
        # The runtime client writes the lines of one error as one entry, joined by "\r".
        return [line.replace("\r", "\n") for line in complete.decode(errors="replace").split("\n")[:-1]]
