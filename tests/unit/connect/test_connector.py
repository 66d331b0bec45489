"""How long a connect tries, when it stops, and what it says: in virtual time."""

from __future__ import annotations

import math
import os
import statistics
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from lambdadb import (
    ConnectFailed,
    DatabaseResuming,
    Fault,
    InvalidSettings,
    OutOfTime,
    PerEnvironment,
    ResumeRetry,
    create_engine,
)
from lambdadb.credentials import LoginUnavailable
from lambdadb.deadline import Clock
from lambdadb.drivers.base import AttemptFailed
from lambdadb.drivers.psycopg.faults import diagnose
from lambdadb.settings import Settings
from lambdadb.tracing import Tracer

from ..conftest import connect, invocations_until

HELD = AttemptFailed(Fault.RESUMING, "accepted, not answered", silent=True)
DROPPED = AttemptFailed(Fault.UNREACHABLE, "no answer so far", silent=True)
STARTING = "FATAL:  the database system is starting up"
LOGIN = 0.02  # seconds that a login takes on a scripted server


def refusing(awake, text):
    """A server that refuses at once until it is awake."""

    def script(now):
        if now >= awake:
            return now + LOGIN, None
        return now + 0.001, diagnose(text)

    return script


def holding(awake):
    """A server that holds a connection until it is awake."""
    return lambda now: (max(now, awake) + LOGIN, None)


def losing(awake):
    """A server that never answers what was sent before it was awake."""
    return lambda now: (now + LOGIN, None) if now >= awake else (math.inf, None)


SHAPES = {
    "starting": lambda awake: (refusing(awake, STARTING), HELD),
    "refused": lambda awake: (refusing(awake, "Connection refused"), HELD),
    "closed": lambda awake: (refusing(awake, "server closed the connection unexpectedly"), HELD),
    "reset": lambda awake: (refusing(awake, "Connection reset by peer"), HELD),
    "no_hba": lambda awake: (
        refusing(
            awake, 'FATAL:  no pg_hba.conf entry for host "h", user "u", database "d", SSL encryption'
        ),
        HELD,
    ),
    "held": lambda awake: (holding(awake), HELD),
    "silent": lambda awake: (losing(awake), HELD),
    "dropped": lambda awake: (losing(awake), DROPPED),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(20))
def test_a_second_at_most_is_lost_after_the_database_is_awake(shape, seed, connector_to, clock):
    """Whatever the failures of a resume look like, the session is open within 1.1 s of its end."""
    awake = clock.now() + 14.0 + 2.0 * seed / 20
    connect(connector_to(*SHAPES[shape](awake), seed=seed), host="h")
    assert awake <= clock.now() < awake + 1.1


@pytest.mark.parametrize("shape", SHAPES)
def test_what_a_resume_cost_is_reported(shape, connector_to, clock, recorder):
    """The span of a connect tells every attempt and the seconds lost; a part lies within it."""
    awake = clock.now() + 10.0
    connect(connector_to(*SHAPES[shape](awake)), host="h", port=5433)
    (seen,) = recorder.spans
    assert (seen.attributes["server.address"], seen.attributes["server.port"]) == ("h", 5433)
    assert seen.attributes["lambdadb.attempts"] > 1
    assert 8.0 < seen.attributes["lambdadb.waited"] <= seen.seconds
    assert seen.seconds == pytest.approx(clock.now() - awake + 10.0)
    (wait,) = [part for part in seen.children if part.name in ("resume", "wait")]
    parts = [*seen.children, *wait.children]
    assert all(seen.began <= part.began for part in parts)
    assert all(part.began + part.seconds <= seen.began + seen.seconds + 1e-6 for part in parts)
    assert len(wait.children) <= 10


def test_an_error_that_the_settings_name_is_waited_for(connector_to, clock):
    """As those that lambdadb knows; without the setting it ends the connect at once."""
    script = refusing(clock.now() + 10.0, "FATAL:  this instance is asleep")
    with pytest.raises(ConnectFailed) as raised:
        connect(connector_to(script, HELD), host="h")
    assert (raised.value.fault, raised.value.attempts) == (Fault.MISCONFIGURED, 1)
    retry = ResumeRetry(resuming_errors=["instance is asleep"], timeout=8)
    with pytest.raises(DatabaseResuming):
        connect(connector_to(script, HELD, retry=retry), host="h")
    connect(connector_to(script, HELD, retry=retry), host="h")


def test_a_resume_that_holds_the_first_attempt_is_reported(connector_to, clock, recorder, caplog):
    """One attempt, which the server has begun to answer: still a resume in the span, and in the log."""
    connector = connector_to(holding(clock.now() + 10.0), HELD)
    start = connector.driver.make_attempt

    def attempt():
        made = start()
        made.got_first_byte = True
        return made

    connector.driver.make_attempt = attempt
    connect(connector, host="h")
    (seen,) = recorder.spans
    assert (seen.attributes["lambdadb.attempts"], seen.attributes["lambdadb.resumed"]) == (1, True)
    assert 9.0 < seen.attributes["lambdadb.waited"] < 10.0
    assert "is not ready" in caplog.text


def test_an_awake_database_costs_one_attempt(connector_to, clock, recorder):
    """Without a fault there is one attempt and nothing waited for."""
    connect(connector_to(holding(0.0), HELD), host="h")
    (seen,) = recorder.spans
    assert seen.attributes["lambdadb.attempts"] == 1
    assert seen.attributes["lambdadb.waited"] == 0.0
    assert seen.seconds == pytest.approx(LOGIN)
    assert [part.name for part in seen.children] == ["attempt"]


def test_a_slow_login_wins_although_a_second_attempt_was_started(connector_to, clock):
    """An attempt that is only slow is never abandoned, however slow all of them are."""
    connector = connector_to(lambda now: (now + 5.0, None), HELD)
    started = clock.now()
    assert connect(connector, host="h") is connector.driver.made[0]
    assert clock.now() == pytest.approx(started + 5.0)


def test_a_slow_login_wins_although_the_first_attempt_was_lost(connector_to, clock):
    """An attempt that the server has begun to answer is not renewed, however slow the rest is."""
    answers = iter([(math.inf, None)])
    connector = connector_to(lambda now: next(answers, (now + 5.0, None)), HELD)
    start = connector.driver.make_attempt

    def attempt():
        made = start()
        made.got_first_byte = len(connector.driver.made) > 1
        return made

    connector.driver.make_attempt = attempt
    assert connect(connector, host="h") is connector.driver.made[1]
    assert len(connector.driver.made) == 2


def test_the_others_are_closed_when_the_server_answers_one(connector_to, clock):
    """A server that wakes up works on one attempt of each environment, not on two."""
    awake = clock.now() + 10.0
    connector = connector_to(holding(awake), HELD)
    start = connector.driver.make_attempt
    closed = []

    def attempt():
        made = start()
        log_in = made.advance

        def advance():
            if clock.now() >= awake and not made.got_first_byte:
                made.got_first_byte = True
                clock.answers[made.socket] = awake + 3.0
            return log_in()

        made.advance = advance
        made.close = lambda: closed.append((connector.driver.made.index(made), clock.now()))
        return made

    connector.driver.make_attempt = attempt
    assert connect(connector, host="h") is connector.driver.made[0]
    assert len(connector.driver.made) == 3
    assert closed[-1] == (2, pytest.approx(awake + LOGIN))


def test_environments_that_a_full_server_refuses_at_one_moment_come_back_one_by_one(
    connector_to, clock, monkeypatch
):
    """A resume ends for all of them at once. Time that passes in between does not matter."""
    now, wait = clock.now, clock.wait

    def tick():
        clock.time += 1e-6
        return now()

    monkeypatch.setattr(clock, "now", tick)
    monkeypatch.setattr(clock, "wait", lambda sockets, seconds: wait(sockets, max(seconds, 0.0)))
    full = AttemptFailed(Fault.EXHAUSTED, "sorry, too many clients already")
    pauses = []
    for seed in range(100):
        awake = now() + 8.0

        def script(began, awake=awake):
            return (began + LOGIN, None) if began > awake else (awake, full)

        connect(connector_to(script, HELD, seed=seed), host="h")
        pauses.append(now() - LOGIN - awake)
    assert min(pauses) < 0.2
    assert 2.3 < max(pauses) <= 2.6
    assert 1.0 < statistics.median(pauses) < 1.5


def test_a_login_that_falls_silent_in_the_middle_is_renewed(connector_to, clock):
    """A first byte and then nothing: another attempt when a resume typically is over, after 15 s."""
    awake = clock.now() + 14.5
    connector = connector_to(*SHAPES["silent"](awake))
    start = connector.driver.make_attempt

    def attempt():
        made = start()
        made.got_first_byte = True
        return made

    connector.driver.make_attempt = attempt
    connect(connector, host="h")
    assert awake <= clock.now() < awake + 1.0
    assert len(connector.driver.made) == 2


@pytest.mark.parametrize(("counted", "made"), [(False, 12), (True, 5)])
def test_few_attempts_are_given_up_where_the_server_counts_them(counted, made, connector_to, clock):
    """MySQL blocks a host after many. Each is kept for 5 s there, and a held one is kept as ever."""
    connector = connector_to(holding(clock.now() + 20.1), HELD)
    start = connector.driver.make_attempt

    def attempt():
        attempt = start()
        attempt.end_is_counted = counted
        return attempt

    connector.driver.make_attempt = attempt
    assert connect(connector, host="h") is connector.driver.made[0]
    assert len(connector.driver.made) == made


def test_every_attempt_but_the_winner_is_closed(connector_to, clock):
    """A won race leaves no second session behind, and never has more than two attempts open."""
    awake = clock.now() + 6.0
    connector = connector_to(holding(awake), HELD)
    winner = connect(connector, host="h")
    assert [attempt.closed for attempt in connector.driver.made].count(False) == 1
    assert not winner.closed


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.sampled_from(sorted(SHAPES)),
    resume=st.floats(0.0, 40.0),
    left=st.floats(1.1, 30.0),
    reserve=st.floats(0.0, 1.0),
    seed=st.integers(0, 2**32),
)
def test_nothing_happens_after_the_deadline(shape, resume, left, reserve, seed, connector_to, clock):
    """A connect ends before the invocation's time less the reserve, with a session or an error."""
    ends = clock.now() + left
    invocations = invocations_until(ends)
    script, silence = SHAPES[shape](clock.now() + resume)
    connector = connector_to(
        script, silence, invocations=invocations, seed=seed, retry=ResumeRetry(reserve=reserve)
    )
    try:
        connect(connector, host="h")
    except ConnectFailed:
        assert all(attempt.closed for attempt in connector.driver.made)
        assert resume > left - reserve - 1.1, "gave up although a session was within reach"
    assert clock.now() <= ends - reserve + 1e-6


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('FATAL:  password authentication failed for user "app"', Fault.CREDENTIALS),
        ('FATAL:  database "orders" does not exist', Fault.MISCONFIGURED),
        ('could not translate host name "x" to address: Name or service not known', Fault.MISCONFIGURED),
    ],
)
def test_what_cannot_pass_fails_at_once_and_says_what_to_do(text, fault, connector_to, clock):
    """A wrong password, a missing database and an unknown host are not waited for."""
    started = clock.now()
    connector = connector_to(lambda now: (now + LOGIN, diagnose(text)), HELD)
    with pytest.raises(ConnectFailed) as caught:
        connect(connector, host="h")
    assert clock.now() == pytest.approx(started + LOGIN)
    assert caught.value.fault is fault
    assert caught.value.retry_after is None
    assert fault.remedy in str(caught.value)
    assert " ".join(text.split()) in str(caught.value)
    assert not isinstance(caught.value, DatabaseResuming)


def test_a_refused_login_ends_the_wait_of_a_held_attempt(connector_to, clock):
    """What cannot pass ends the connect even while another attempt is still held."""
    answers = iter([(math.inf, None)])
    refused = AttemptFailed(Fault.CREDENTIALS, "password authentication failed for user")
    connector = connector_to(lambda now: next(answers, (now + LOGIN, refused)), HELD)
    with pytest.raises(ConnectFailed, match="login"):
        connect(connector, host="h")
    assert all(attempt.closed for attempt in connector.driver.made)


@pytest.mark.parametrize("shape", ["starting", "held", "silent", "refused"])
def test_a_resume_longer_than_the_budget_is_a_typed_error_in_time(shape, connector_to, clock):
    """When the time is over first: `DatabaseResuming`, with the reserve still left to answer."""
    ends = clock.now() + 10.0
    invocations = invocations_until(ends)
    connector = connector_to(
        *SHAPES[shape](clock.now() + 60), invocations=invocations, retry=ResumeRetry(reserve=1.5)
    )
    with pytest.raises(DatabaseResuming) as caught:
        connect(connector, host="h")
    assert ends - 1.5 - 0.5 <= clock.now() <= ends - 1.5
    assert caught.value.retry_after >= 1
    assert caught.value.safe_to_repeat
    assert isinstance(caught.value, OperationalError)


def test_an_unreachable_network_is_not_called_resuming(connector_to, clock):
    """SYNs that nobody answers are a closed way as often as a resume: `ConnectFailed`, with both."""
    connector = connector_to(*SHAPES["dropped"](clock.now() + 60), retry=ResumeRetry(timeout=5))
    with pytest.raises(ConnectFailed, match="security group") as caught:
        connect(connector, host="h")
    assert not isinstance(caught.value, DatabaseResuming)
    assert caught.value.fault is Fault.UNREACHABLE
    assert caught.value.retry_after is not None


@pytest.mark.parametrize("held", [0.0, 8.0], ids=["awake", "after a resume"])
def test_a_full_server_that_falls_silent_is_still_called_full(held, connector_to, clock):
    """Its last words count, not the attempt that the end of the connect has cut off."""
    full = AttemptFailed(Fault.EXHAUSTED, "sorry, too many clients already")
    awake = clock.now() + held

    def script(began):
        return (max(began + LOGIN, awake), full) if began < awake + 0.1 else (math.inf, None)

    with pytest.raises(ConnectFailed, match="too many clients") as caught:
        connect(connector_to(script, HELD, retry=ResumeRetry(timeout=held + 5.0)), host="h")
    assert caught.value.fault is Fault.EXHAUSTED
    assert not isinstance(caught.value, DatabaseResuming)


def test_taken_connections_are_waited_for_with_growing_pauses(connector_to, clock):
    """Exhausted is waited for, and the attempts spread out instead of storming the server."""
    text = "FATAL:  sorry, too many clients already"
    connector = connector_to(refusing(math.inf, text), HELD, retry=ResumeRetry(timeout=30))
    with pytest.raises(ConnectFailed) as caught:
        connect(connector, host="h")
    assert caught.value.fault is Fault.EXHAUSTED
    assert 8 <= len(connector.driver.made) <= 20


@pytest.mark.parametrize("seed", range(5))
def test_taken_connections_are_waited_for_as_long_as_the_setting_says(connector_to, clock, seed):
    """`exhausted_timeout` ends the wait for a free connection, and no other wait."""
    text = "FATAL:  sorry, too many clients already"
    retry = ResumeRetry(timeout=60, exhausted_timeout=3)
    began = clock.now()
    connector = connector_to(refusing(math.inf, text), HELD, retry=retry, seed=seed)
    with pytest.raises(ConnectFailed) as caught:
        connect(connector, host="h")
    assert clock.now() - began == pytest.approx(3, abs=0.1)
    assert caught.value.fault is Fault.EXHAUSTED
    assert caught.value.retry_after == 5
    resuming = connector_to(refusing(clock.now() + 15, STARTING), HELD, retry=retry, seed=seed)
    connect(resuming, host="h")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "/tmp"])
@pytest.mark.parametrize("text", ["Connection refused", "No such file or directory"])
def test_a_refusal_on_a_developers_machine_is_an_answer(connector_to, clock, host, text):
    """Nothing listens there, and nothing is waking up: one attempt, no wait. Inside Lambda it waits."""
    connector = connector_to(refusing(math.inf, text), HELD, retry=ResumeRetry(timeout=30))
    connector.environment = {}
    began = clock.now()
    with pytest.raises(ConnectFailed) as caught:
        connect(connector, host=host)
    assert (caught.value.attempts, clock.now() - began < 1.0) == (1, True)
    connector.environment = {"AWS_LAMBDA_FUNCTION_NAME": "orders"}
    with pytest.raises(ConnectFailed):
        connect(connector, host=host)
    assert clock.now() - began > 25.0


@pytest.mark.parametrize(
    ("timeout", "left", "waited"),
    [(None, 300.0, 299.0), (None, None, 60.0), (20.0, 300.0, 20.0), (20.0, 10.0, 9.0)],
)
def test_a_connect_may_use_what_the_invocation_has(connector_to, clock, timeout, left, waited):
    """By default all of it less the reserve, or 60 s outside; `timeout` makes it shorter."""
    began = clock.now()
    invocations = None if left is None else invocations_until(began + left)
    retry = ResumeRetry(timeout=timeout)
    connector = connector_to(*SHAPES["silent"](math.inf), invocations=invocations, retry=retry)
    with pytest.raises(ConnectFailed):
        connect(connector, host="h")
    assert clock.now() - began == pytest.approx(waited, abs=1.0)


def test_copies_of_an_engine_draw_their_own_jitter():
    """A snapshot or a fork copies an engine with its random source: that has no state to copy."""
    random = create_engine("postgresql+psycopg://u@h/d").pool.connector.random
    drawn = []
    for _ in range(2):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writer, repr(random.random()).encode())
            os._exit(0)
        os.waitpid(child, 0)
        drawn.append(os.read(reader, 100))
        os.close(reader)
        os.close(writer)
    assert drawn[0] != drawn[1]


def test_without_time_nothing_is_tried(connector_to, clock):
    """An invocation with less than the reserve left raises `OutOfTime` before any attempt."""
    invocations = invocations_until(clock.now() + 0.4)
    connector = connector_to(holding(0.0), HELD, invocations=invocations)
    with pytest.raises(OutOfTime, match=r"0\.4 s of the invocation"):
        connect(connector, host="h")
    assert connector.driver.made == []


def test_the_session_says_who_it_is_and_when_to_end(connector_to):
    """Tag and idle timeout travel in the startup packet; nothing is set by a statement."""
    connector = connector_to(holding(0.0), HELD, policy=PerEnvironment(idle_session_timeout=90.5))
    connect(connector, host="h", options="-c search_path=sales")
    (sent,) = connector.driver.sent
    assert sent["application_name"] == "orders"
    assert sent["options"] == (
        "-c idle_session_timeout=90500 -c idle_in_transaction_session_timeout=60000 -c search_path=sales"
    )
    assert sent["tcp_user_timeout"] == 5000


def test_the_callers_own_parameters_win(connector_to):
    """An application_name or a keepalive of the URL is kept."""
    connector = connector_to(holding(0.0), HELD)
    connect(connector, host="h", application_name="mine", keepalives_idle=7)
    (sent,) = connector.driver.sent
    assert (sent["application_name"], sent["keepalives_idle"]) == ("mine", 7)


@pytest.mark.parametrize(
    ("host", "proxy"),
    [
        ("orders.proxy-abc123.eu-west-1.rds.amazonaws.com", True),
        ("orders.cluster-abc123.eu-west-1.rds.amazonaws.com", False),
        ("proxy-db.example.com", False),
    ],
)
def test_an_rds_proxy_gets_no_startup_options(host, proxy, connector_to):
    """RDS Proxy refuses `options`, so none are sent there."""
    connector = connector_to(holding(0.0), HELD)
    connect(connector, host=host)
    assert ("options" not in connector.driver.sent[0]) is proxy


class Vault:
    """Credentials with these passwords to try at each connect, in turn."""

    def __init__(self, *rounds):
        self.rounds = iter(rounds)

    def logins(self, parameters):
        for password in next(self.rounds):
            yield {"password": password}


@pytest.fixture
def vault_connector(connector_to):
    """`vault_connector(admitted, *rounds)`: a connector to a server that admits these passwords."""
    refused = AttemptFailed(Fault.CREDENTIALS, 'password authentication failed for user "app"')

    def make(admitted, *rounds):
        def script(now):
            known = connector.driver.sent[-1]["password"] in admitted
            return now + LOGIN, None if known else refused

        connector = connector_to(script, HELD, credentials=Vault(*rounds))
        return connector

    return make


def passwords_sent(connector):
    return [sent["password"] for sent in connector.driver.sent]


def test_credentials_are_asked_at_each_connect(vault_connector):
    """A password that was rotated between two connects is found."""
    connector = vault_connector(["first", "second"], ["first"], ["second"])
    connect(connector, host="h")
    connect(connector, host="h")
    assert passwords_sent(connector) == ["first", "second"]


def test_a_refused_login_is_followed_by_the_next_one(vault_connector, recorder):
    """A stale password costs one refused login; an equal one is not sent again."""
    connector = vault_connector(["new"], ["old", "old", "new"])
    connect(connector, host="h")
    assert passwords_sent(connector) == ["old", "new"]
    assert recorder.spans[0].attributes["lambdadb.attempts"] == 2


def test_a_login_that_works_asks_for_no_other(vault_connector):
    """The second login of a store, which may be dear, is not asked for without need."""
    passwords = iter(["first", "second"])
    connect(vault_connector(["first"], passwords), host="h")
    assert list(passwords) == ["second"]


def test_when_every_login_is_refused_the_server_s_refusal_is_the_error(vault_connector):
    """After the last login of the store the connect fails, as with a wrong password in the URL."""
    connector = vault_connector([], ["old", "new"])
    with pytest.raises(ConnectFailed, match="password authentication failed") as caught:
        connect(connector, host="h")
    assert caught.value.fault is Fault.CREDENTIALS
    assert caught.value.attempts == 2


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (LoginUnavailable("The secret orders/app is marked for deletion"), "marked for deletion"),
        (
            ConnectionError("no route to the vault"),
            r"logins\(\) raised ConnectionError: no route",
        ),
        (TimeoutError("no answer within 2.0 s"), "no answer within 2.0 s"),
    ],
)
def test_a_store_that_fails_is_named_as_the_reason(error, said, connector_to, recorder):
    """The error says that the login was missing and why, and that the database was not asked."""

    class Broken:
        def logins(self, parameters):
            raise error
            yield

    connector = connector_to(holding(0.0), HELD, credentials=Broken())
    with pytest.raises(ConnectFailed, match=said) as caught:
        connect(connector, host="h")
    assert caught.value.fault is Fault.LOGIN
    assert caught.value.__cause__ is error
    assert connector.driver.made == []
    assert recorder.spans[0].error is caught.value


def giving(answer):
    """A store whose `logins` is an ordinary function."""
    return type("Vault", (), {"logins": lambda self, parameters: answer()})()


def test_a_store_may_return_a_list(connector_to):
    """A generator is the usual form, not the only one."""
    connector = connector_to(holding(0.0), HELD, credentials=giving(lambda: [{"password": "only"}]))
    connect(connector, host="h")
    assert passwords_sent(connector) == ["only"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda: None, "it returned None"),
        (lambda: {"password": "canary-1kept"}, "it gave a str instead of a login"),
        (lambda: [("user", "canary-1kept")], "it gave a tuple instead of a login"),
        (lambda: [], "the credentials gave none"),
        (lambda: [{"password": b"canary-1kept"}], "it gave bytes as password"),
        (lambda: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_a_store_that_gives_no_login_is_told_what_it_gave(answer, said, connector_to):
    """As a failed connect, like all that goes wrong in a store; by its type, not by its value."""
    connector = connector_to(holding(0.0), HELD, credentials=giving(answer))
    with pytest.raises(ConnectFailed, match=said) as caught:
        connect(connector, host="h")
    assert caught.value.fault is Fault.LOGIN


def test_a_store_that_hangs_is_waited_for_no_longer_than_the_deadline():
    """A call in a thread is given up when time is over; its own end is not waited for."""
    release = threading.Event()
    try:
        with pytest.raises(TimeoutError):
            Clock().result(release.wait, 0.0)
    finally:
        release.set()


def test_asynchronous_credentials_need_an_asynchronous_engine(connector_to):
    """A synchronous connect has no event loop to ask them on, and says so."""

    class Vault:
        async def logins(self, parameters):
            yield {"password": "canary-5tale"}

    connector = connector_to(holding(0.0), HELD, credentials=Vault())
    with pytest.raises(InvalidSettings, match="create_async_engine"):
        connect(connector, host="h")


def test_the_operator_reads_of_a_wait_once(connector_to, clock, caplog):
    """One warning when waiting begins, with the reason and the limit; none when all is well."""
    connector = connector_to(refusing(clock.now() + 9, STARTING), HELD)
    connect(connector, host="h", password="canary-5tale")
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "starting up" in warnings[0]
    assert "h:5432" in warnings[0]
    assert "canary" not in caplog.text
    caplog.clear()
    connect(connector, host="h")
    assert not caplog.records


def test_a_tracer_that_fails_does_not_fail_the_connect(connector_to, caplog):
    """Observability is not worth a handler: the failure is logged with its traceback."""

    class Broken(Tracer):
        def record(self, span):
            raise ZeroDivisionError

    connector = connector_to(holding(0.0), HELD)
    object.__setattr__(connector, "settings", Settings(tracer=Broken()))
    assert connect(connector, host="h") is connector.driver.made[0]
    assert "ZeroDivisionError" in caplog.text


def test_nothing_of_a_connector_is_shown(connector_to):
    """It knows the whole environment, and so may a password: its repr does not."""
    assert "orders" not in repr(connector_to(holding(0.0), HELD))
