"""Units of work whose BEGIN is sent with the first statement, as their session is known already."""

from __future__ import annotations

import contextlib

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Column, MetaData, Table, Text, event, text
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

import lambdadb
from lambdadb import CommitInDoubt, TransactionEnded, run_transaction
from lambdadb.drivers.psycopg import transaction as transactions
from lambdadb.drivers.psycopg.unit_of_work import UnitOfWork
from lambdadb.lab.faultproxy.unit_shapes import driver_connection

from .lost_answers import LostAnswers

ADD = text("INSERT INTO item (name) VALUES ('a')")
ONE = text("SELECT 1")


def read(connection):
    return connection.scalar(ONE)


def names(engine):
    with engine.connect() as connection:
        return sorted(connection.scalars(text("SELECT name FROM item")))


def driver_of(engine):
    """The driver's connection of an environment, whose session is known."""
    run_transaction(engine, read)
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
    assert driver.session is not None
    return driver


def test_a_session_whose_first_answer_is_lost_is_ended(mode, database, sessions, monkeypatch):
    """Its locks are free for the next run, although the id of its transaction was never seen."""
    backends = []

    def work(connection):
        backends.append(connection.connection.driver_connection.info.backend_pid)
        # The second run waits for the first one's lock, if that is still held.
        connection.execute(text("INSERT INTO item (id, name) VALUES (1, 'a')"))

    def steps():
        engine = mode.create_engine(database)
        run_transaction(engine, read)
        lost = LostAnswers.of_begin(monkeypatch)
        run_transaction(engine, work)
        assert backends[0] not in [pid for pid, *_ in sessions()]
        lost.close()
        assert names(engine) == ["a"]
        engine.dispose()

    mode.run(steps)
    assert len(backends) == 2


def test_another_session_with_the_same_process_id_is_left_alone(database, sessions, monkeypatch):
    """The moment at which a session began tells it from a later one with its process id."""
    engine = lambdadb.create_engine(database)
    driver = driver_of(engine)
    driver.session = driver.session._replace(began=str(int(driver.session.began) - 1))
    lost = LostAnswers.of_begin(monkeypatch)
    run_transaction(
        engine, lambda connection: connection.execute(text("INSERT INTO item DEFAULT VALUES"))
    )
    assert driver.session.backend in [str(pid) for pid, *_ in sessions()]
    lost.close()
    engine.dispose()


@pytest.mark.parametrize("field", ["backend", "server"])
def test_a_session_that_is_shared_is_noticed(field, engine):
    """The answer names the session: if it is another one, BEGIN is answered first from then on."""
    driver = driver_of(engine)
    other = {"backend": "1", "server": driver.session.server._replace(epoch=("1", "1"))}
    driver.session = driver.session._replace(**{field: other[field]})
    run_transaction(engine, lambda connection: connection.execute(ADD))
    assert driver.session is None
    run_transaction(engine, read)
    assert driver.session is None
    assert names(engine) == ["a"]


class OnStandby:
    """An answer to a unit's question as a standby would give it."""

    def __init__(self, answer):
        self.nfields, self._answer = answer.nfields, answer

    def get_value(self, row, column):
        return b"t" if column == 0 else self._answer.get_value(row, column)


def become_standby_once(monkeypatch):
    """The next answer to a unit's question is a standby's."""
    original = UnitOfWork.learn
    standby = [OnStandby]

    def learn(unit, connection, answer):
        original(unit, connection, standby.pop()(answer) if standby else answer)

    monkeypatch.setattr(UnitOfWork, "learn", learn)


def test_a_standby_gives_no_rows_to_a_unit_that_may_write(engine, monkeypatch):
    """A session that has become a standby's: the first statement raises, and the unit is repeated."""
    driver_of(engine)
    become_standby_once(monkeypatch)
    errors, results = [], []

    def work(connection):
        try:
            results.append(read(connection))
        except Exception as error:
            errors.append(error.orig)
            raise

    run_transaction(engine, work)
    assert [type(error) for error in errors] == [psycopg.errors.ReadOnlySqlTransaction]
    assert results == [1]


def in_transaction(driver):
    with driver.transaction():
        driver.execute("INSERT INTO item (name) VALUES ('a')")


def in_pipeline(driver):
    with driver.pipeline():
        driver.execute("INSERT INTO item (name) VALUES (%s)", ["a"])


def by_copy(driver):
    with driver.cursor().copy("COPY item (name) FROM STDIN") as copy:
        copy.write("a\n")


def by_executemany(driver):
    driver.cursor().executemany("INSERT INTO item (name) VALUES (%s)", [["a"]])


def by_stream(driver):
    list(driver.cursor().stream("INSERT INTO item (name) VALUES ('a') RETURNING id"))


def by_named_cursor(driver):
    with driver.cursor("named") as cursor:
        cursor.execute("SELECT 1")
    driver.execute("INSERT INTO item (name) VALUES ('a')")


def by_prepared_statement(driver):
    driver.execute("INSERT INTO item (name) VALUES (%s)", ["a"], prepare=True)


def after_a_wrong_statement(driver):
    """psycopg finds the error by itself, when its transaction has begun."""
    with pytest.raises(psycopg.ProgrammingError):
        driver.execute("SELECT %s", ["a", "b"])
    driver.execute("INSERT INTO item (name) VALUES ('a')")


def after_a_refused_setting(driver):
    with pytest.raises(psycopg.ProgrammingError, match="INTRANS"):
        driver.autocommit = True
    driver.execute("INSERT INTO item (name) VALUES ('a')")


@pytest.mark.parametrize(
    "act",
    [
        in_transaction,
        in_pipeline,
        by_copy,
        by_executemany,
        by_stream,
        by_named_cursor,
        by_prepared_statement,
        after_a_wrong_statement,
        after_a_refused_setting,
    ],
    ids=lambda act: act.__name__,
)
def test_whatever_comes_first_is_inside_the_transaction(act, engine):
    """psycopg's own ways to the server find the transaction open, and are undone with it."""
    driver = driver_of(engine)

    def work(connection):
        act(driver_connection(connection))
        assert driver.unit.identity is not None
        assert driver.pgconn.transaction_status == psycopg.pq.TransactionStatus.INTRANS

    def fail(connection):
        work(connection)
        raise KeyError

    with pytest.raises(KeyError):
        run_transaction(engine, fail)
    assert names(engine) == []
    run_transaction(engine, work)
    assert names(engine) == ["a"]


def test_a_unit_that_sends_nothing_has_a_result(engine):
    """No BEGIN and no COMMIT is sent; the table of round trips counts none."""
    driver = driver_of(engine)
    assert run_transaction(engine, lambda connection: "done") == "done"
    assert driver.commit_state == "done"


@pytest.mark.parametrize("statement", ["SELECT 1 FROM no_such_table", "no such statement"])
def test_a_first_statement_that_fails_ends_the_unit_like_any_other(statement, engine):
    """An error that the unit catches: nothing of it is committed, and it is told so."""
    driver_of(engine)

    def work(connection):
        with contextlib.suppress(ProgrammingError):
            connection.exec_driver_sql(statement)

    with pytest.raises(TransactionEnded):
        run_transaction(engine, work)


def test_a_first_statement_that_is_cancelled_ends_the_unit(engine):
    """The server's own statement_timeout, which the unit catches: it is not committed as if empty."""
    driver_of(engine)

    def work(connection):
        connection.connection.driver_connection.pgconn.exec_(b"SET statement_timeout = 50")
        with contextlib.suppress(OperationalError):
            connection.exec_driver_sql("SELECT pg_sleep(60)")

    with pytest.raises(TransactionEnded):
        run_transaction(engine, work)


def test_a_loss_that_the_unit_hides_does_not_look_like_an_empty_unit(engine, sessions):
    """The first statement's answer is lost, and the unit returns all the same: it is repeated."""
    driver_of(engine)
    runs = []

    def work(connection):
        runs.append(1)
        if len(runs) == 1:
            sessions.terminate()
        with contextlib.suppress(OperationalError):
            connection.execute(ADD)

    with pytest.raises(TransactionEnded):
        run_transaction(engine, work)
    assert names(engine) == []


def test_a_unit_that_gives_its_connection_up_is_told(engine):
    """It has sent nothing and returns: another run would do the same, so there is none."""
    driver_of(engine)
    with pytest.raises(TransactionEnded):
        run_transaction(engine, lambda connection: connection.invalidate())


def test_the_line_of_an_error_is_that_of_any_first_statement(engine):
    """`docs/differences.md` says line 2."""
    driver_of(engine)
    with pytest.raises(ProgrammingError, match="LINE 2: SELECT nothing"):
        run_transaction(engine, lambda connection: connection.exec_driver_sql("SELECT nothing"))


def test_a_text_without_a_statement_begins_the_unit_too(engine):
    """An empty text, or a comment: what follows is in one transaction."""
    driver_of(engine)

    def work(connection):
        connection.exec_driver_sql("-- nothing")
        connection.execute(ADD)
        raise KeyError

    with pytest.raises(KeyError):
        run_transaction(engine, work)
    assert names(engine) == []


@pytest.mark.parametrize("goes_on", [True, False], ids=["done", "fails"])
def test_what_follows_rollback_in_one_text_is_told(goes_on, engine):
    """PostgreSQL commits it by itself, unless it fails: the caller hears which of both."""
    last = "INSERT INTO item (name) VALUES ('a')" if goes_on else "SELECT 1 FROM no_such_table"

    def work(connection):
        connection.exec_driver_sql(f"ROLLBACK; INSERT INTO item (name) VALUES ('b'); {last}")

    if goes_on:
        with pytest.raises(TransactionEnded) as raised:
            run_transaction(engine, work)
        assert raised.value.committed
    else:
        with pytest.raises(ProgrammingError):
            run_transaction(engine, work)
    assert names(engine) == (["a", "b"] if goes_on else [])


INSERT = "INSERT INTO item (name) VALUES ('a')"


@pytest.mark.parametrize(
    "statement",
    [
        sql.SQL(f"{INSERT};\nEND"),
        sql.SQL("{}; {}").format(sql.SQL(INSERT), sql.SQL("COMMIT")),
        f"{INSERT};-- a line ends\rEND",
        f"{INSERT};/* END */END".encode(),
        f"{INSERT}; COMMIT -- \\",
    ],
    ids=["SQL", "Composed", "carriage return", "bytes", "backslash"],
)
@pytest.mark.parametrize("first", ["SELECT 1", ""])
def test_a_commit_of_the_units_own_whose_answer_is_lost_is_not_repeated(
    first, statement, engine, monkeypatch
):
    """However it is written, and also if it is the unit's first statement."""
    driver_of(engine)
    runs = []

    def work(connection):
        runs.append(1)
        driver = driver_connection(connection)
        if first:
            driver.execute(first)
        runs[1:] or LostAnswers.of_statement(monkeypatch)
        driver.execute(statement)

    with pytest.raises(TransactionEnded) as raised:
        run_transaction(engine, work)
    assert raised.value.committed
    assert runs == [1]
    assert names(engine) == ["a"]


def test_a_commit_by_a_cursor_that_is_not_lambdadbs_is_found_when_the_session_is_lost(engine):
    """The question that ends the session says so too."""
    driver_of(engine)

    def work(connection):
        cursor = psycopg.ClientCursor(driver_connection(connection))
        cursor.execute(INSERT)
        cursor.execute("COMMIT")
        cursor.connection.close()
        raise psycopg.OperationalError

    with pytest.raises(TransactionEnded) as raised:
        run_transaction(engine, work)
    assert raised.value.committed
    assert names(engine) == ["a"]


def test_an_earlier_units_key_does_not_speak_for_a_unit_that_was_lost(engine, monkeypatch):
    """Its COMMIT was not sent: it is repeated, and the index refuses its key as it would have."""
    item = Table("item", MetaData(), Column("name", Text))
    with engine.begin() as connection:
        connection.execute(ADD)
    driver = engine.pool.connector.driver
    monkeypatch.setattr(driver, "ask_outcome", lambda *_: "unknown")  # as after a restart
    LostAnswers.of_statement(monkeypatch)
    with pytest.raises(IntegrityError):
        run_transaction(engine, lambda connection: None, idempotency_key=(item.c.name, "a"))


def test_what_follows_commit_in_a_failed_transaction_may_be_there(engine, monkeypatch):
    """COMMIT is a ROLLBACK there, and the server commits the rest by itself: nobody knows it."""
    driver_of(engine)

    def work(connection):
        driver = driver_connection(connection)
        with contextlib.suppress(psycopg.Error):
            driver.execute("SELECT 1/0")
        LostAnswers.of_statement(monkeypatch)
        driver.execute(f"COMMIT; {INSERT}")

    with pytest.raises(CommitInDoubt):
        run_transaction(engine, work)
    assert names(engine) == ["a"]


@pytest.mark.parametrize(
    "statement",
    [
        f"ROLLBACK; {INSERT}; SELECT 1/0",
        f"ROLLBACK; BEGIN; {INSERT}; ROLLBACK",
        f"SAVEPOINT s; ROLLBACK TO s; {INSERT}; ROLLBACK",
        f"ROLLBACK AND CHAIN; {INSERT}; ROLLBACK",
    ],
)
def test_what_is_undone_after_rollback_is_not_said_to_be_committed(statement, engine):
    """`committed` stays False: the unit may be called again."""
    driver_of(engine)

    def work(connection):
        with contextlib.suppress(Exception):
            connection.exec_driver_sql(statement)

    with pytest.raises(TransactionEnded) as raised:
        run_transaction(engine, work)
    assert not raised.value.committed
    assert names(engine) == []


@pytest.mark.parametrize("prepare", [None, True])
def test_a_first_statement_that_libpq_refuses_leaves_the_transaction_open(prepare, engine):
    """As in psycopg: the unit goes on, and what it does then is committed."""
    driver_of(engine)

    def work(connection):
        driver = driver_connection(connection)
        with pytest.raises(psycopg.OperationalError, match="number of parameters"):
            driver.execute(f"SELECT {','.join(['%s'] * 65536)}", [0] * 65536, prepare=prepare)
        connection.execute(ADD)
        return "done"

    assert run_transaction(engine, work) == "done"
    assert names(engine) == ["a"]


def test_a_transaction_whose_begin_failed_is_never_called_committed(engine, monkeypatch):
    """The unit hides that its server is a standby, and returns: its result is not taken."""
    driver_of(engine)
    become_standby_once(monkeypatch)

    def work(connection):
        with contextlib.suppress(psycopg.Error):
            driver_connection(connection).execute("SELECT 1")
        driver_connection(connection).execute(INSERT)

    with pytest.raises(TransactionEnded):
        run_transaction(engine, work)
    assert names(engine) == []


def test_what_a_listener_sends_before_the_unit_is_committed_with_it(engine):
    """Also if the unit itself sends nothing."""
    driver_of(engine)

    @event.listens_for(engine, "begin", once=True)
    def begin(connection):
        connection.execute(ADD)

    run_transaction(engine, lambda connection: None)
    assert names(engine) == ["a"]


def test_a_session_that_has_ended_needs_no_right_to_end_it(engine, sessions, monkeypatch):
    """A role without pg_terminate_backend(): a first statement that is lost is repeated."""
    driver_of(engine)
    monkeypatch.setattr(transactions, "TERMINATE", "no_such_function(pid)")
    runs = []

    def work(connection):
        runs.append(1)
        runs[1:] or sessions.terminate()
        connection.execute(ADD)

    run_transaction(engine, work)
    assert len(runs) == 2
    assert names(engine) == ["a"]


def by_stream_commit(driver):
    with contextlib.suppress(psycopg.ProgrammingError):
        list(driver.cursor().stream("COMMIT"))


def by_own_cursor(driver):
    psycopg.ClientCursor(driver).execute("COMMIT")


def by_libpq(driver):
    driver.pgconn.exec_(b"COMMIT")


@pytest.mark.parametrize("commit", [by_stream_commit, by_own_cursor, by_libpq])
def test_a_commit_that_no_cursor_saw_is_asked_for(commit, engine):
    """The transaction is over, and this host does not know how: the server does."""
    driver_of(engine)

    def work(connection):
        driver = driver_connection(connection)
        driver.execute(INSERT)
        commit(driver)
        raise KeyError

    with pytest.raises(TransactionEnded) as raised:
        run_transaction(engine, work)
    assert raised.value.committed
    assert names(engine) == ["a"]


def test_begin_is_not_cut_short_by_the_time_limit_of_what_follows(engine):
    """psycopg's `notifies(timeout=0)` first: BEGIN is answered all the same."""
    driver_of(engine)

    def work(connection):
        assert list(driver_connection(connection).notifies(timeout=0)) == []
        connection.execute(ADD)

    run_transaction(engine, work)
    assert names(engine) == ["a"]


@pytest.mark.parametrize(("is_lost", "error"), [(False, TransactionEnded), (True, CommitInDoubt)])
def test_what_follows_rollback_in_a_pipeline_is_told(is_lost, error, engine):
    """psycopg's pipeline sends it before the answer to ROLLBACK, and the server commits it."""
    driver_of(engine)

    def work(connection):
        driver = driver_connection(connection)
        with driver.pipeline() as pipeline:
            for statement in ("SELECT 1", "ROLLBACK", INSERT, "SELECT 2"):
                driver.execute(statement)
            if is_lost:
                pipeline.sync()
                driver.close()

    with pytest.raises(error) as raised:
        run_transaction(engine, work)
    assert getattr(raised.value, "committed", True)
    assert names(engine) == ["a"]


def test_psycopgs_transaction_begins_no_second_one(engine):
    """After ROLLBACK it would open one of its own, and commit it."""
    driver_of(engine)

    def work(connection):
        driver = driver_connection(connection)
        driver.execute("ROLLBACK")
        with driver.transaction():
            driver.execute(INSERT)

    with pytest.raises(TransactionEnded):
        run_transaction(engine, work)
    assert names(engine) == []


def test_rollback_ends_a_unit_that_has_sent_nothing_too(engine):
    """The same unit has the same end on a connection's first use and on later ones."""

    def work(connection):
        driver_connection(connection).rollback()
        connection.execute(ADD)

    for _ in range(2):
        with pytest.raises(TransactionEnded):
            run_transaction(engine, work)
        driver_of(engine)
    assert names(engine) == []


def test_begin_travels_with_the_statement_on_an_engine_in_autocommit(database, monkeypatch):
    """A unit is a transaction there too, and costs the same."""
    engine = lambdadb.create_engine(database, isolation_level="AUTOCOMMIT")
    driver_of(engine)
    monkeypatch.delattr(UnitOfWork, "begin")  # what waits for the answer to BEGIN

    def work(connection):
        connection.execute(ADD)
        raise KeyError

    with pytest.raises(KeyError):
        run_transaction(engine, work)
    assert names(engine) == []
    engine.dispose()
