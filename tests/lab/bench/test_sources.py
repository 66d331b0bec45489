"""What the report says about where a figure is from."""

from __future__ import annotations

import pytest

from lambdadb.lab.bench.records import RunRecord
from lambdadb.lab.bench.sources import source

HOW = {"network": "80 ms", "TLS": "a proxy's", "Secrets Manager": "moto's", "Aurora": "the lab's"}


def run(cluster: str, emulated: dict[str, str] | None = None) -> RunRecord:
    return RunRecord(
        started="2026-01-01T00:00:00+00:00",
        speed=1.0,
        rounds=2,
        resume=None,
        shape=None,
        auto_pause=None,
        interval={"hot": 600.0, "cold": 720.0, "steady": 20.0},
        clusters={"hot": cluster, "cold": cluster, "steady": cluster},
        versions={},
        emulated=emulated or {},
    )


@pytest.mark.parametrize(
    ("of_run", "kind", "row", "said"),
    [
        (run("embedded"), "hot", "elapsed, median", "measured"),
        (run("embedded"), "cold", "elapsed, median", "measured; resume emulated"),
        (run("embedded"), "steady", "least", "measured; network emulated"),
        (run("embedded"), "cold", "id steps", "measured; pause emulated"),
        (run("embedded"), "cold", "paused", "emulated"),
        (run("a real one"), "cold", "elapsed, median", "measured"),
        (run("a real one"), "cold", "paused", "measured by CloudWatch"),
        (run("c", HOW), "hot", "most", "measured; network, TLS and Secrets Manager emulated"),
        (run("c", HOW), "cold", "most", "measured; network, TLS, Secrets Manager and resume emulated"),
        (run("c", {"AWS": "not AWS's"}), "hot", "paused", "emulated"),
    ],
)
def test_source(of_run: RunRecord, kind: str, row: str, said: str) -> None:
    """Only real clusters are measured alone; of all others it says what was emulated."""
    assert source(of_run, kind, row) == said
