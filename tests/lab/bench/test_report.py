"""The report: its figures, its page and its pictures, from rows made by hand."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from lambdadb.lab.bench import plots, report, terminal
from lambdadb.lab.bench.records import (
    AURORA_TYPES,
    POLICIES,
    ChangeRecord,
    InvocationRecord,
    Record,
    RunRecord,
    ServerRecord,
)
from lambdadb.lab.bench.summary import cell, label, seconds, summary, timeline


def run(**fields: object) -> RunRecord:
    known: dict[str, object] = {
        "started": "2026-01-01T00:00:00.000+00:00",
        "speed": 120.0,
        "rounds": 3,
        "resume": 15.0,
        "shape": "hold",
        "auto_pause": 420.0,
        "interval": {"hot": 600.0, "cold": 720.0},
        "clusters": {"hot": "embedded", "cold": "embedded"},
        "versions": {"python": "3.13.1", "sqlalchemy": "2.1.9"},
    }
    return RunRecord(**{**known, **fields})  # type: ignore[arg-type]


def invocation(kind: str, policy: str, number: int, **fields: object) -> InvocationRecord:
    known: dict[str, object] = {
        "at": 720.0 * (number - 1) + 1,
        "timestamp": "2026-01-01T00:00:00.000+00:00",
        "experiment": "lambdadb_bench",
        "connects": 1,
        "retries": 0,
        "resume_wait": 0.0,
        "round_trips": 5,
        "sessions_left": 0,
    }
    return InvocationRecord(
        aurora_type=kind,
        policy=policy,
        number=number,
        **{**known, **fields},  # type: ignore[arg-type]
    )


def change(at: float, kind: str) -> ChangeRecord:
    return ChangeRecord(aurora_type="cold", policy="hand_written", at=at, kind=kind, reason="")


ROWS: list[Record] = [
    run(),
    ServerRecord(
        aurora_type="cold", policy="hand_written", versions={"postgresql": "18.4", "vector": "0.8.5"}
    ),
    invocation("hot", "hand_written", 1, elapsed=0.02, new_id=50, paused_share=None),
    invocation("hot", "hand_written", 2, elapsed=0.01, new_id=51, paused_share=0.0),
    change(1.5, "resuming"),
    change(16.5, "available"),
    invocation("cold", "hand_written", 1, elapsed=15.5, new_id=793, round_trips=14),
    change(300.0, "blocked"),
    change(437.0, "paused"),
    change(721.5, "resuming"),
    invocation("cold", "hand_written", 2, elapsed=15.1, new_id=826, paused_share=0.4),
    change(736.5, "available"),
    invocation("cold", "hand_written", 3, error="OperationalError: <gone>", round_trips=2),
]


def test_figures_of_a_cell() -> None:
    """A cell's summary has median, least and most, ids and their steps, sums, and its errors."""
    found = cell(ROWS, "cold", "hand_written")
    assert (found.elapsed_min, found.elapsed_median, found.elapsed_max) == (15.1, 15.3, 15.5)
    assert (found.ids, found.id_steps) == ([793, 826], [33])
    assert (found.invocations, found.errors, found.connects) == (3, 1, 3)
    assert found.round_trips == 5  # neither the first invocation nor the failed one
    assert found.paused_share == 0.4


def test_cell_without_a_success() -> None:
    """A cell that only failed has no figures, and counts its errors."""
    failed = invocation("hot", "sqlalchemy_default", 0, error="LabError: x")
    found = cell([run(), failed], "hot", "sqlalchemy_default")
    assert (found.invocations, found.errors) == (0, 1)
    assert found.elapsed_median is None
    assert found.paused_share is None


def test_states_over_time() -> None:
    """The timeline runs from the first invocation to the last one's end, state by state."""
    spans = timeline(ROWS, "hand_written")
    assert [(state, begin, end) for state, begin, end in spans] == [
        ("paused", 1, 1.5),
        ("resuming", 1.5, 16.5),
        ("available", 16.5, 437.0),
        ("paused", 437.0, 721.5),
        ("resuming", 721.5, 736.5),
        ("available", 736.5, 1441),
    ]
    assert timeline(ROWS, "sqlalchemy_default") == []


def test_time_is_labelled() -> None:
    """A sped-up run says what was fast and what was real; a real one says so."""
    assert "120 times as fast" in label(run())
    assert "in real time" in label(run())
    assert label(run(speed=1.0)) == "all in real time"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "n/a"), (0.0, "0"), (0.0113, "11 ms"), (1.0150, "1.01 s"), (17.351, "17.4 s")],
)
def test_durations(value: float | None, text: str) -> None:
    """A duration has the digits that mean something."""
    assert seconds(value) == text


def test_files(tmp_path: Path) -> None:
    """The folder gets the summary, the page and its pictures as PNG."""
    assert report.write(ROWS, tmp_path, complete=True) == []
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {"summary.json", "report.html", "elapsed.png", "id-steps.png", "paused.png"}
    for name in ("elapsed.png", "id-steps.png", "paused.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    facts = json.loads((tmp_path / "summary.json").read_text())
    assert facts["complete"] is True
    assert facts["run"]["speed"] == 120.0
    assert facts["servers"] == [{"aurora_type": "cold", "postgresql": "18.4", "vector": "0.8.5"}]
    assert facts["published"]["cold"]["lines"][1]["new_id"] == 826


def test_page(tmp_path: Path) -> None:
    """The page needs no network, has hot before cold, and the published figures beside ours."""
    report.write(ROWS, tmp_path, complete=True)
    page = (tmp_path / "report.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "url(" not in page
    assert page.index("Hot cluster") < page.index("Cold cluster")
    assert "120 times as fast" in page
    assert page.count("793, 826") == 2
    assert "interrupted" not in page
    assert "OperationalError: &lt;gone&gt;" in page


def test_interrupted_run_is_labelled(tmp_path: Path) -> None:
    """A run that was cut short says so, in the page and in the summary."""
    report.write(ROWS[:4], tmp_path, complete=False)
    assert "The run was interrupted" in (tmp_path / "report.html").read_text()
    assert summary(ROWS, complete=False)["complete"] is False


STEADY: list[Record] = [
    run(
        interval={"hot": 600.0, "cold": 720.0, "steady": 20.0},
        clusters=dict.fromkeys(AURORA_TYPES, "embedded"),
    ),
    *ROWS[1:],
    *(
        invocation("steady", policy, number, elapsed=0.01, new_id=number, round_trips=trips)
        for policy, trips in (("hand_written", 7), ("per_environment", 2))
        for number in (1, 2, 3)
    ),
]


def test_steady_traffic_beside_the_published_experiment(tmp_path: Path) -> None:
    """The headline picture has a panel for each, and the page says which of them was published."""
    report.write(STEADY, tmp_path, complete=True)
    page = " ".join((tmp_path / "report.html").read_text().split())
    assert "Steady traffic is not part of what was published" in page
    assert "Published experiment of January 2025" in page
    assert page.index("Cold cluster") < page.index("<h2>Steady traffic")
    wide = (tmp_path / "paused.png").read_bytes()
    report.write(ROWS, tmp_path, complete=True)
    assert wide != (tmp_path / "paused.png").read_bytes()


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 120, 200])
def test_a_table_that_fits(columns: int) -> None:
    """No column is cut, and those that are left out are named."""
    console = Console(width=columns, markup=False)
    table, left_out = terminal.fitting_table(STEADY, console)
    headings = [str(column.header) for column in table.columns]
    assert [*headings, *left_out] == ["cluster", "handler", *terminal.COLUMNS]
    with console.capture() as capture:
        console.print(table)
    assert "SQLAlchemy" in capture.get() or "hand-written" in capture.get()
    if columns >= 60:
        assert "…" not in capture.get().replace(", …", "")


def test_what_is_left_out_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A narrow terminal gets a line about the columns that it cannot show."""
    printed = Console(width=70, record=True, file=io.StringIO(), markup=False)
    monkeypatch.setattr(terminal, "Console", lambda **options: printed)
    terminal.print_table(STEADY, tmp_path, complete=True)
    text = " ".join(printed.export_text().split())
    assert re.search(r"Left out, as they do not fit into 70 columns: .*connects, retries, left\.", text)


def test_one_error_is_shown_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """With the cells that it came from, however many."""
    rows = [run(), *(invocation("hot", policy, 0, error="no vector") for policy in POLICIES)]
    terminal.print_table(rows, tmp_path, complete=True)
    out = " ".join(capsys.readouterr().out.split())
    assert out.count("no vector") == 1
    assert "Error: hot, hand-written; hot, SQLAlchemy default; hot, PerEnvironment" in out


def test_run_without_a_row(tmp_path: Path) -> None:
    """A run that was interrupted at once still gives a page."""
    assert report.write([run()], tmp_path, complete=False) == []
    assert (tmp_path / "report.html").exists()


def test_real_cluster_has_no_timeline() -> None:
    """What is not known of a real cluster is not drawn."""
    real = run(auto_pause=None, resume=None, shape=None, speed=1.0, interval={"cold": 720.0})
    rows = [real, invocation("cold", "hand_written", 1, elapsed=15.0, new_id=1)]
    assert set(plots.draw(rows)) == {"elapsed.png", "id-steps.png"}


def test_what_could_not_be_written_is_named(tmp_path: Path) -> None:
    """A file that cannot be written is named with the reason, and does not stop the others."""
    (tmp_path / "elapsed.png").mkdir()
    missing = report.write(ROWS, tmp_path, complete=True)
    assert len(missing) == 1
    assert "elapsed.png: Is a directory" in missing[0]
    assert (tmp_path / "report.html").exists()


def test_another_run_beside() -> None:
    """Each figure of one run is beside that of the other, also where only one of them has the cell."""
    lambda_rows = [
        run(place="Lambda", interval={"cold": 720.0}, clusters={"cold": "c"}),
        invocation("cold", "hand_written", 1, elapsed=17.0, new_id=1),
        invocation("cold", "hand_written", 2, elapsed=17.0, new_id=34),
    ]
    found = report.compared(lambda_rows, ROWS)
    assert found["places"] == ["Lambda", "this machine"]
    rows = {(kind, name): values for kind, name, values in found["rows"]}
    assert rows["cold", "hand-written"][:4] == ["17.0 s", "15.3 s", "33", "33"]
    assert rows["hot", "hand-written"][:2] == ["", "15 ms"]
    page = report.page(lambda_rows, {}, complete=True, beside=ROWS)
    assert "Lambda and this machine" in page
    assert summary(lambda_rows, complete=True, beside=ROWS)["beside"]["run"]["place"] == "this machine"
