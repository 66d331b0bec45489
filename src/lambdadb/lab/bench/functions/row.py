"""What every handler stores, measures and logs."""

from __future__ import annotations

import json
import os
import random
import time
from dataclasses import dataclass

from lambdadb.tracing import Span, Tracer

DIMENSIONS = 1536


@dataclass
class Connects(Tracer):
    """What the connects of one invocation cost."""

    connects: int = 0
    retries: int = 0
    resume_wait: float = 0.0

    def record(self, span: Span) -> None:
        """Count a connect of lambdadb."""
        self.connects += span.error is None
        self.retries += int(span.attributes["lambdadb.attempts"]) - 1
        self.resume_wait += span.seconds if "lambdadb.fault" in span.attributes else 0.0

    def count(self, *_: object) -> None:
        """Count a connect of SQLAlchemy's own."""
        self.connects += 1

    def begin(self) -> float:
        """Forget the invocation before, and return the time."""
        self.connects, self.retries, self.resume_wait = 0, 0, 0.0
        return time.perf_counter()


cost = Connects()


def random_row() -> dict[str, str]:
    """Return a row: the experiment's name, and a random vector, as pgvector's text and as JSON."""
    vector = ",".join(f"{random.random():.7f}" for _ in range(DIMENSIONS))
    return {"content": os.environ["EXPERIMENT"], "embedding": f"[{vector}]"}


def log(policy: str, elapsed: float, new_id: object) -> dict[str, object]:
    """Print the experiment's one JSON line, and return it."""
    line: dict[str, object] = {
        "elapsed": elapsed,
        "aurora_type": os.environ["AURORA_TYPE"],
        "new_id": new_id,
        "experiment": os.environ["EXPERIMENT"],
        "policy": policy,
        **vars(cost),
    }
    print(json.dumps(line))
    return line
