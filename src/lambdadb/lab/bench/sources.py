"""Where each figure of a report is from: measured, emulated or published."""

from __future__ import annotations

from lambdadb.lab.bench.records import RunRecord

# What of an emulated run is in the time of an invocation.
IN_ELAPSED = ("network", "TLS", "Secrets Manager")
# Figures that a pause decides, the resume's time among them.
PRICE = "API requests of 1 million invocations"
OF_A_PAUSE = ("ids", "id steps", "waited for resume", "paused")


def source(run: RunRecord, kind: str, row: str) -> str:
    """
    How a figure of the report came about, in a word or a few.

    Args:
        kind: The cluster.
        row: The figure, as the report names it.
    """
    if row == PRICE:
        return f"at {run.data_api_price:g} USD a million requests, which is not verified"
    embedded = run.clusters[kind] == "embedded"
    if not embedded and not run.emulated:
        return "measured by CloudWatch" if row == "paused" else "measured"
    if row == "paused":
        return "emulated"
    emulated = []
    if row.startswith(("elapsed", "least", "most")):
        emulated += [name for name in IN_ELAPSED if name in run.emulated]
        emulated += ["network"] if kind == "steady" and embedded else []
        emulated += ["resume"] if kind == "cold" else []
    elif row in OF_A_PAUSE and kind == "cold":
        emulated += ["pause"]
    return f"measured; {listed(emulated)} emulated" if emulated else "measured"


def listed(names: list[str]) -> str:
    """Names in a sentence."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
