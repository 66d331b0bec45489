"""How a dialect's executions become spans, whatever the driver is."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lambdadb.tracing import Tracer
from lambdadb.tracing.statements import StatementRecorder


class Kept(Tracer):
    """Keeps spans."""

    def __init__(self, statements="all", *, on=True):
        self.statements = statements
        self.on = on
        self.spans = []

    def recording(self):
        return self.on

    def record(self, span):
        self.spans.append(span)


class Driver:
    """A driver of no known database, whose statements take as long as is said."""

    def __init__(self, clock, seconds=0.0, error=None):
        self.clock, self.seconds, self.error = clock, seconds, error
        self.executed = []
        dialect = SimpleNamespace(
            name="scripted",
            driver="scripted",
            server_version_info=(7, 1),
            loaded_dbapi=SimpleNamespace(__version__="2.0"),
        )
        connection = SimpleNamespace(driver_connection="session")
        root = SimpleNamespace(dialect=dialect, connection=connection)
        self.context = SimpleNamespace(root_connection=root)

    def do_execute(self, cursor, statement, parameters, context):
        self.executed.append((cursor, statement, parameters))
        self.clock.time += self.seconds
        if self.error is not None:
            raise self.error

    do_executemany = do_execute_no_params = do_execute


def describe(session, error):
    told = {"db.system.name": "scripted", "db.namespace": f"of {session}"}
    return told if error is None else {**told, "db.response.status_code": "E1"}


def test_a_statement_is_executed_and_recorded(clock):
    """The function gets what the dialect gave; the span has the driver's description and the text."""
    tracer, driver = Kept(), Driver(clock, seconds=0.25)
    recorder = StatementRecorder(tracer, clock, describe)
    recorder.execute(driver.do_execute, "cursor", "SELECT 'canary'", {"a": 1}, driver.context)
    assert driver.executed == [("cursor", "SELECT 'canary'", {"a": 1})]
    (span,) = tracer.spans
    assert (span.name, span.began, span.seconds, span.error) == ("statement", 1000.0, 0.25, None)
    assert span.attributes == {
        "db.system.name": "scripted",
        "db.namespace": "of session",
        "db.query.text": "SELECT ?",
        "db.operation.name": "SELECT",
        "lambdadb.server_version": "7.1",
        "lambdadb.driver": "scripted 2.0",
    }


def test_a_batch_has_its_size(clock):
    """`executemany` is one statement, with the number of its rows."""

    class Batch(Driver):
        def do_executemany(self, cursor, statement, parameters, context):
            self.executed.append(parameters)

    tracer, driver = Kept(), Batch(clock)
    recorder = StatementRecorder(tracer, clock, describe)
    recorder.execute(driver.do_executemany, "cursor", "INSERT", [{}, {}, {}], driver.context)
    assert tracer.spans[0].attributes["db.operation.batch.size"] == 3


@pytest.mark.parametrize("error", [ValueError("canary"), KeyboardInterrupt()])
def test_an_error_passes_and_is_recorded(clock, error):
    """What ended the statement, a cancellation too, reaches the caller and the span."""
    tracer, driver = Kept(), Driver(clock, error=error)
    recorder = StatementRecorder(tracer, clock, describe)
    with pytest.raises(type(error)) as caught:
        recorder.execute(driver.do_execute, "cursor", "SELECT 1", {}, driver.context)
    assert caught.value is error
    (span,) = tracer.spans
    assert span.error is error
    assert span.attributes["error.type"] == type(error).__name__
    assert span.attributes["db.response.status_code"] == "E1"


@pytest.mark.parametrize(
    ("tracer", "seconds"), [(Kept(on=False), 9.0), (Kept("none"), 9.0), (Kept(0.5), 0.25)]
)
def test_a_statement_that_is_not_recorded_is_not_described(clock, tracer, seconds):
    """Nothing is asked of the driver for a span that nobody keeps."""

    def fail(*arguments):
        pytest.fail("described")

    driver = Driver(clock, seconds=seconds)
    StatementRecorder(tracer, clock, fail).execute(
        driver.do_execute, "cursor", "SELECT 1", {}, driver.context
    )
    assert len(driver.executed) == 1
    assert tracer.spans == []


def test_a_description_that_fails_changes_nothing(clock, log):
    """The statement's result stands; the failure is logged."""

    def fail(*arguments):
        raise RuntimeError("not this version")

    tracer, driver = Kept(), Driver(clock)
    StatementRecorder(tracer, clock, fail).execute(
        driver.do_execute, "cursor", "SELECT 1", {}, driver.context
    )
    assert tracer.spans == []
    assert "Kept failed; the traced work goes on" in log.text
