"""The benchmark's report: summary.json, the pictures, and a page that a person looks at."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise, product
from pathlib import Path
from statistics import median
from typing import Any

import jinja2

from lambdadb.lab.bench import plots
from lambdadb.lab.bench.records import AURORA_TYPES, POLICIES, Record
from lambdadb.lab.bench.sources import PRICE, source
from lambdadb.lab.bench.summary import (
    NAMES,
    PUBLISHED,
    CellSummary,
    cells,
    cost,
    counted,
    emulated_of,
    failures,
    known,
    label,
    listed,
    notes_of,
    percent,
    run_of,
    seconds,
    summary,
)

TITLES = {"hot": "Hot cluster", "cold": "Cold cluster", "steady": "Steady traffic"}


def write(
    records: Sequence[Record], folder: Path, *, complete: bool, beside: Sequence[Record] = ()
) -> list[str]:
    """
    Write summary.json, the pictures and report.html.

    Args:
        complete: False when the run was interrupted.
        beside: The records of another run, which is shown beside this one.

    Returns:
        What could not be written, with why.
    """
    missing = []
    pictures: dict[str, str] = {}
    facts = summary(records, complete=complete, beside=beside)
    contents = {"summary.json": (json.dumps(facts, indent=2) + "\n").encode()}
    for name, picture in plots.draw(records).items():
        contents[name] = picture
        pictures[name] = base64.b64encode(picture).decode()
    contents["report.html"] = page(records, pictures, complete=complete, beside=beside).encode()
    for name, content in contents.items():
        try:
            (folder / name).write_bytes(content)
        except OSError as error:
            missing.append(f"{folder / name}: {error.strerror}")
    return missing


def page(
    records: Sequence[Record],
    pictures: dict[str, str],
    *,
    complete: bool,
    beside: Sequence[Record] = (),
) -> str:
    """The report as one HTML page that needs no other file and no network."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    templates = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    run = run_of(records)
    return templates.get_template("report.html.j2").render(
        run=run,
        emulated=emulated_of(run),
        label=label(run),
        complete=complete,
        columns=[column(records, kind) for kind in run.interval],
        pictures=pictures,
        servers=summary(records, complete=complete)["servers"],
        errors=Counter(
            (record.aurora_type, NAMES[record.policy], record.error) for record in failures(records)
        ).most_common(),
        notes=notes_of(records),
        beside=compared(records, beside) if beside else None,
        name=PUBLISHED["name"],
        published=PUBLISHED["what"],
    )


def column(records: Sequence[Record], kind: str) -> dict[str, Any]:
    """One half of the page: a table with a column per handler, the published figures first."""
    own = [one for one in cells(records) if one.aurora_type == kind]
    published = PUBLISHED.get(kind)
    lines = published["lines"] if published else []
    times = [line["elapsed"] for line in lines]
    ids = [line["new_id"] for line in lines]
    steps = [after - before for before, after in pairwise(ids)]
    middle = median(times) if times else None
    body = [
        ("elapsed, median", seconds(middle), [seconds(one.elapsed_median) for one in own]),
        ("least", seconds(min(times, default=None)), [seconds(one.elapsed_min) for one in own]),
        ("most", seconds(max(times, default=None)), [seconds(one.elapsed_max) for one in own]),
        ("ids", listed(ids), [listed(one.ids) for one in own]),
        ("id steps", listed(steps), [listed(one.id_steps) for one in own]),
        ("connects", "", [str(one.connects) for one in own]),
        ("retries", "", [str(one.retries) for one in own]),
        ("waited for resume", "", [seconds(one.resume_wait) for one in own]),
        ("round trips, later", "", [known(one.round_trips) for one in own]),
        ("API calls, later", "", [counted(one.calls) for one in own]),
        (PRICE, "", [cost(one.request_cost) for one in own]),
        ("sessions left", "", [known(one.sessions_left) for one in own]),
        ("paused", "", [percent(one.paused_share) for one in own]),
        ("errors", "", [str(one.errors) for one in own]),
    ]
    run = run_of(records)
    return {
        "kind": kind,
        "title": TITLES[kind],
        "interval": every(run.interval[kind]),
        "published": published and published["cluster"],
        "handlers": [NAMES[one.policy] for one in own],
        "body": [
            (*row, source(run, kind, row[0]) if {*row[2]} != {"n/a"} else "")
            for row in body
            if any(row[2])  # no handler has calls of the Data API
        ],
    }


def compared(records: Sequence[Record], beside: Sequence[Record]) -> dict[str, Any]:
    """Two runs by cluster and handler: each figure of one beside that of the other."""
    runs = [run_of(records), run_of(beside)]
    figures = [
        {(one.aurora_type, one.policy): one for one in cells(of_run)} for of_run in (records, beside)
    ]
    rows = []
    there = [cell for cell in product(AURORA_TYPES, POLICIES) if cell in figures[0] | figures[1]]
    for kind, policy in there:
        pair = [figure.get((kind, policy)) for figure in figures]
        values = [(show(one) if one else "") for show in COMPARED.values() for one in pair]
        rows.append((kind, NAMES[policy], values))
    return {
        "places": [run.place for run in runs],
        "labels": [f"{run.place}, {run.started}: {label(run)}" for run in runs],
        "figures": list(COMPARED),
        "rows": rows,
    }


COMPARED: dict[str, Callable[[CellSummary], str]] = {
    "elapsed, median": lambda one: seconds(one.elapsed_median),
    "id steps": lambda one: listed(one.id_steps),
    "connects": lambda one: str(one.connects),
    "paused": lambda one: percent(one.paused_share),
    "errors": lambda one: str(one.errors),
}


def every(interval: float) -> str:
    """How often: in minutes where they are whole ones."""
    return f"{interval / 60:g} minutes" if interval % 60 == 0 else f"{interval:g} seconds"
