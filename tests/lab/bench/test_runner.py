"""The benchmark's own decisions; `test_cli.py` runs it as a whole."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from lambdadb.errors import InvalidSettings
from lambdadb.lab import LabError
from lambdadb.lab.aurora import Shape
from lambdadb.lab.bench.cluster_url import cluster_of, place, redacted, with_tls
from lambdadb.lab.bench.config import (
    STEADY_ROUNDS,
    BenchConfig,
    Cell,
    idle_session_timeout,
    lanes,
)
from lambdadb.lab.bench.records import (
    POLICIES,
    WITH_CONNECTIONS,
    InvocationRecord,
    NoteRecord,
    Record,
    RunRecord,
    as_line,
)
from lambdadb.lab.bench.runner import Bench, log_line

URL = "postgresql+psycopg://app:p%40ss-word@orders.example.com/orders?sslmode=require"
OTHER = "postgresql+psycopg://app@hot.example.com/orders"


def row(cell: Cell, number: int = 1, **fields: object) -> InvocationRecord:
    known = {"at": 0.0, "timestamp": "now", "experiment": "test", **fields}
    return InvocationRecord(
        aurora_type=cell.aurora_type,
        policy=cell.policy,
        number=number,
        **known,  # type: ignore[arg-type]
    )


def test_embedded_cells_run_side_by_side() -> None:
    """All five handlers, hot and cold, in a thread each; steady traffic follows a hot cell."""
    cells = [[(cell.aurora_type, cell.policy) for cell in lane] for lane in lanes(BenchConfig())]
    assert cells == [
        *([("hot", policy), ("steady", policy)] for policy in POLICIES),
        *([("cold", policy)] for policy in POLICIES),
    ]
    assert BenchConfig(rounds=5).invocations == 5 * (5 + 5 + STEADY_ROUNDS)


def test_cells_of_a_real_cluster_run_one_after_the_other() -> None:
    """On a real cluster the handlers take turns: another's session would keep it awake."""
    config = BenchConfig(speed=1, urls={"cold": URL})
    assert [[cell.policy for cell in lane] for lane in lanes(config)] == [list(WITH_CONNECTIONS)]
    assert config.aurora_types == ("cold",)


def test_steady_traffic_follows_on_the_hot_url() -> None:
    """Its cells take their turns on the same cluster, and a cold URL alone has none."""
    (lane,) = lanes(BenchConfig(speed=1, urls={"hot": URL}))
    assert [cell.aurora_type for cell in lane] == ["hot"] * 4 + ["steady"] * 4


def test_time_that_real_clusters_take() -> None:
    """The time told beforehand counts the pause before each handler against a cold cluster."""
    steady = 4 * (STEADY_ROUNDS - 1) * 20 / 60
    assert BenchConfig(speed=1, rounds=2, urls={"hot": URL}).minutes == 40 + steady
    assert BenchConfig(speed=1, rounds=3, urls={"cold": URL}, interval=600).minutes == 120
    assert BenchConfig(speed=1, rounds=2, urls={"hot": OTHER, "cold": URL}).minutes == 96


def test_real_clusters_run_in_real_time() -> None:
    """A speed is refused against a real cluster, whose time nobody can hasten."""
    with pytest.raises(LabError, match="real time"):
        BenchConfig(speed=2, urls={"cold": URL})


@pytest.mark.parametrize("numbers", [{"speed": float("nan")}, {"speed": 0.5}, {"resume": 0.0}])
def test_times_that_cannot_be(numbers: dict[str, float]) -> None:
    """A speed below 1 or a resume of no time is refused before anything starts."""
    with pytest.raises(LabError, match="1 or more"):
        BenchConfig(**numbers)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"engine": "mysql", "speed": 61.0}, "60 at most"),
        ({"engine": "mysql", "speed": 1.0, "urls": {"hot": URL}}, "leave it out"),
        ({"engine": "mysql", "speed": 60.0, "shape": Shape.NO_HBA}, "login-close"),
        ({"shape": Shape.LOGIN_CLOSE}, "no-hba"),
    ],
)
def test_what_an_engine_does_not_have(options: dict[str, Any], text: str) -> None:
    """A speed, a cluster or a shape that the engine cannot have is refused before anything starts."""
    with pytest.raises(LabError, match=text):
        BenchConfig(**options)


def test_wrong_url_is_refused_without_its_password() -> None:
    """A URL that cannot work is refused while building, and its password is not shown."""
    for url in ("mysql+pymysql://app:s3cret@host/orders", "postgresql:/app:s3cret@"):
        with pytest.raises((InvalidSettings, LabError)) as caught:
            BenchConfig(speed=1, urls={"hot": url})
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "same",
    [
        "postgresql+psycopg://other@orders.example.com/orders",
        "postgresql://app@ORDERS.example.com:5432/orders?connect_timeout=3",
    ],
)
def test_one_database_for_both_urls(same: str) -> None:
    """Its cells take turns, the cold ones first: hot ones would keep it awake."""
    config = BenchConfig(speed=1, rounds=2, urls={"hot": URL, "cold": same})
    (lane,) = lanes(config)
    assert [cell.aurora_type for cell in lane] == ["cold"] * 4 + ["hot"] * 4 + ["steady"] * 4
    assert config.minutes == 96 + 40 + 12


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"secret": "a", "iam": True}, "one of the two"),
        ({"secret": "a"}, "has a password, and --secret"),
        ({"iam": True, "urls": {"cold": "postgresql://host/orders"}}, "names no user"),
        ({"secret": "a", "urls": {}}, "for a cluster given by URL"),
        ({"clean_up": True, "urls": {}}, "for a cluster given by URL"),
    ],
)
def test_logins_that_contradict_each_other(options: dict[str, Any], text: str) -> None:
    """A login comes from one place; what is for real clusters alone is not silently ignored."""
    with pytest.raises(LabError, match=text):
        BenchConfig(**{"speed": 1, "urls": {"hot": URL}, **options})


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("db.cluster-x.eu-west-1.rds.amazonaws.com", ("DBClusterIdentifier", "db")),
        ("db.cluster-ro-x.eu-west-1.rds.amazonaws.com", ("DBClusterIdentifier", "db")),
        ("one.x.eu-west-1.rds.amazonaws.com", ("DBInstanceIdentifier", "one")),
        ("db.example.com", None),
    ],
)
def test_cluster_that_cloudwatch_knows(host: str, found: tuple[str, str] | None) -> None:
    """The dimension of its metrics comes from the endpoint's name."""
    assert cluster_of(f"postgresql://u@{host}/d") == found


@pytest.mark.parametrize("url", ["postgresql:///orders", "postgresql://host", "postgresql://"])
def test_a_url_without_host_or_database_is_refused(url: str) -> None:
    """libpq would take them from variables that the functions do not have."""
    with pytest.raises(LabError, match="the cold URL needs a host and a database"):
        BenchConfig(speed=1, urls={"cold": url})


@pytest.mark.parametrize(
    ("url", "added"),
    [
        ("postgresql://u:p@orders.example.com/d", ["sslmode=verify-full", "sslrootcert="]),
        ("postgresql://u:p@orders.example.com/d?sslmode=require", ["sslmode=require"]),
        (
            "postgresql://u:p@c.cluster-x.eu-west-1.rds.amazonaws.com/d",
            ["sslmode=verify-full", "eu-west-1.pem"],
        ),
        ("postgresql://u:p@127.0.0.1/d", []),
    ],
)
def test_every_handler_verifies_a_real_cluster(url: str, added: list[str]) -> None:
    """libpq alone gives a password to any server: the URL says for all four what to verify."""
    made = with_tls(url)
    assert all(part in made for part in added)
    assert ("sslmode" in made) == bool(added)


def test_place_of_a_cluster() -> None:
    """A cluster is named by host, port and database: no user, no password, no option."""
    assert place(URL) == "orders.example.com:5432/orders"
    assert place(None) == "embedded"


def test_no_password_in_a_message() -> None:
    """A password is taken out of a message, as it is and as a URL writes it."""
    assert redacted("login p@ss-word or p%40ss-word failed", [URL]) == "login *** or *** failed"
    assert redacted("nothing to hide", []) == "nothing to hide"


def test_idle_timer_follows_the_speed() -> None:
    """The server's idle timer gets its 60 s divided by the speed of the idle time."""
    assert idle_session_timeout(BenchConfig(speed=120)) == 0.5
    assert idle_session_timeout(BenchConfig(speed=1)) == 60


def test_log_line_is_the_last_json_line() -> None:
    """The figures come from the handler's last JSON line, whatever else it logged."""
    assert log_line(['{"new_id": 1}', '{"new_id": 2}', "END"]) == {"new_id": 2}
    with pytest.raises(LabError, match="no JSON line"):
        log_line(["START", "END"])


class Rehearsal(Bench):
    """A bench whose cells are played instead of run."""

    def run_cell(self, cell: Cell) -> None:
        if cell.policy == "sqlalchemy_default":
            raise RuntimeError("no such server")
        self.queue.put(row(cell))


def test_a_cell_that_fails_is_a_row() -> None:
    """A cell that cannot be set up is a row with its error, and the others run on."""
    with Rehearsal(BenchConfig()) as bench:
        first, *rows = bench.records()
    assert isinstance(first, RunRecord)
    assert isinstance(rows[0], NoteRecord)
    assert all(isinstance(one, InvocationRecord) for one in rows[1:])
    errors = [one for one in rows if isinstance(one, InvocationRecord) and one.error]
    assert {(one.aurora_type, one.policy) for one in errors} == {
        ("hot", "sqlalchemy_default"),
        ("cold", "sqlalchemy_default"),
        ("steady", "sqlalchemy_default"),
    }
    assert {one.error for one in errors} == {"RuntimeError: no such server"}
    assert len(rows) == 1 + 15
    assert not bench.interrupted


class Endless(Bench):
    """A bench whose cells measure one row and then wait to be stopped."""

    def __init__(self, config: BenchConfig) -> None:
        super().__init__(config)
        self.waiting = threading.Semaphore(0)

    def run_cell(self, cell: Cell) -> None:
        self.queue.put(row(cell))
        self.waiting.release()
        assert self.stop.wait(30)
        self.queue.put(row(cell, number=2))


def test_interrupted_run_keeps_all_rows() -> None:
    """An interrupt ends all cells, and every row that was measured by then is still given."""
    rows: list[Record] = []
    with Endless(BenchConfig()) as bench:
        for one in bench.records():
            rows.append(one)
            if len(rows) == 3:
                for _ in bench.threads:
                    bench.waiting.acquire(timeout=30)
                bench.interrupt()
    assert bench.interrupted
    assert len(rows) == 2 + 2 * len(bench.threads)
    assert not any(thread.is_alive() for thread in bench.threads)


def test_rows_are_json_lines() -> None:
    """Each row is one line of JSON that names its kind and holds the published fields."""
    line = as_line(row(Cell("cold", "hand_written"), elapsed=15.2, new_id=793))
    assert "\n" not in line
    fields = json.loads(line)
    assert fields["record"] == "invocation"
    assert {"elapsed", "aurora_type", "new_id", "experiment"} <= fields.keys()
