"""The life of an execution environment, in real processes, as the server sees it."""

from __future__ import annotations

import os
import signal
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from lambdadb.lab.environment import Environment, FunctionError, ManagedEnvironment, Snapshot
from lambdadb.lab.postgres import Postgres

# AWS's runtime client waits in a thread, so that handlers of signals run, since Python 3.12.
THREAD = {"AWS_EXECUTION_ENV": "AWS_Lambda_python3.13"}

START = """
import os, signal, sys, threading, time
from pathlib import Path
import lambdadb
from sqlalchemy import text

engine = lambdadb.create_engine(os.environ["DATABASE_URL"])
PID = text("SELECT pg_backend_pid()")

def ask(engine=engine):
    with engine.connect() as connection:
        return connection.scalar(PID)
"""


class Server:
    """The server's own view of the test's sessions."""

    def __init__(self, postgres: Postgres, name: str) -> None:
        self.url = postgres.url()
        self.name = name
        self.connection = psycopg.connect(self.url.replace("+psycopg", ""), autocommit=True)

    def sessions(self) -> list[tuple[int, str, str]]:
        rows = self.connection.execute(
            "SELECT pid, state, query FROM pg_stat_activity WHERE application_name = %s", [self.name]
        )
        return rows.fetchall()

    def become(self, count: int, seconds: float = 10.0) -> list[tuple[int, str, str]]:
        end = time.monotonic() + seconds
        while len(found := self.sessions()) != count:
            assert time.monotonic() < end, f"{found} instead of {count} sessions"
            time.sleep(0.005)
        return found


@pytest.fixture
def server(postgres: Postgres, tmp_path: Path) -> Iterator[Server]:
    """The shared server, with a name of its own for the test's function."""
    server = Server(postgres, tmp_path.name)
    yield server
    server.connection.close()


@pytest.fixture
def make(server: Server, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Build an environment, of any kind, from a function's source text."""
    made: list[Any] = []

    def build(source: str, kind: Any = Environment, **options: Any) -> Any:
        (tmp_path / "function.py").write_text(START + textwrap.dedent(source))
        own = options.pop("environment", {})
        made.append(
            kind(
                "function.handler",
                function_name=server.name,
                path=[tmp_path],
                environment={"DATABASE_URL": server.url, **own},
                **options,
            )
        )
        return made[-1]

    yield build
    for environment in made:
        environment.close()


def wait_for(path: Path) -> None:
    end = time.monotonic() + 10.0
    while not path.exists():
        assert time.monotonic() < end, f"no {path.name}"
        time.sleep(0.005)


IDLE = """
@lambdadb.handler(engine)
def handler(event, context):
    return ask()
"""


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Environments may take long to end: the machine may be busy. test_endurance.py has the times."""
    monkeypatch.setattr("lambdadb.lab.environment.environment.SHUTDOWN_LIMIT", 30.0)


@pytest.mark.usefixtures("patient")
def test_sigterm_closes_the_session_of_a_frozen_environment(make: Any, server: Server) -> None:
    """Lambda thaws the environment to end it: its idle session ends, and the process by SIGTERM."""
    environment = make(IDLE, environment=THREAD)
    environment.invoke(None)
    server.become(1)
    assert environment.shut_down() is not None
    server.become(0)


def test_sigterm_cancels_the_running_statement(make: Any, server: Server, tmp_path: Path) -> None:
    """A long statement does not run on after its function: the server is asked to cancel it."""
    environment = make(
        """
        @lambdadb.handler(engine)
        def handler(event, context):
            with engine.connect() as connection:
                Path("began").touch()
                connection.execute(text("SELECT count(*) FROM generate_series(1, 10000000000)"))
        """,
        environment=THREAD,
    )
    errors: list[BaseException] = []

    def invoke() -> None:
        try:
            environment.invoke(None)
        except FunctionError as error:
            errors.append(error)

    thread = threading.Thread(target=invoke)
    thread.start()
    wait_for(tmp_path / "began")
    while server.become(1)[0][1] != "active":
        pass
    os.kill(environment.pid, signal.SIGTERM)
    server.become(0)
    thread.join(10.0)
    assert len(errors) == 1
    assert "SIGTERM" in str(errors[0])  # the default action, after the sessions were closed


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    "when", ["after the engine", pytest.param("before the engine", marks=pytest.mark.sweep)]
)
def test_sigterm_reaches_the_users_handler(when: str, make: Any, server: Server, tmp_path: Path) -> None:
    """A handler of the user's own is called, and finds the sessions closed; it may open a new one."""
    source = f"""
        def ended(number, frame):
            pid = ask()
            Path("ended").write_text(f"{{number}} {{pid}}")
            os._exit(0)
        if {when == "after the engine"}:
            signal.signal(signal.SIGTERM, ended)
        else:
            engine.dispose()
            signal.signal(signal.SIGTERM, ended)
            engine = lambdadb.create_engine(os.environ["DATABASE_URL"])
            ask.__defaults__ = (engine,)
        {textwrap.indent(IDLE, "        ").strip()}
    """
    environment = make(source, environment=THREAD)
    pid = environment.invoke(None)
    assert environment.shut_down() is not None
    number, other = (tmp_path / "ended").read_text().split()
    assert int(number) == signal.SIGTERM
    assert int(other) != pid
    server.become(0)


@pytest.mark.sweep
def test_an_environment_that_does_not_end_is_killed(make: Any, server: Server) -> None:
    """A handler that takes longer than Lambda's 300 ms is not waited for."""
    environment = make(
        "signal.signal(signal.SIGTERM, lambda number, frame: time.sleep(60))\n" + IDLE,
        environment=THREAD,
    )
    environment.invoke(None)
    assert environment.shut_down() is None
    server.become(0)


@pytest.mark.sweep
def test_sigterm_is_left_alone_where_no_handler_can_run(make: Any, server: Server) -> None:
    """Before Python 3.12 the runtime client waits in C code: SIGTERM keeps its default action."""
    environment = make(
        """
        @lambdadb.handler(engine)
        def handler(event, context):
            ask()
            return signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        """,
        environment={"AWS_EXECUTION_ENV": "AWS_Lambda_python3.11"},
    )
    assert environment.invoke(None) is True
    assert environment.shut_down() is not None
    server.become(0)


@pytest.mark.sweep
def test_without_an_extension_there_is_no_sigterm(make: Any, server: Server) -> None:
    """The process is killed while it is frozen; its session ends with its socket."""
    environment = make(IDLE, environment=THREAD)
    environment.invoke(None)
    assert environment.shut_down(extension=False) is None
    server.become(0)


SNAP = """
from snapshot_restore_py import register_after_restore, register_before_snapshot
restored = []

@register_before_snapshot
def before():
    Path("before").write_text(str(ask()))  # a hook of the user's that uses the database

@register_after_restore
def after():
    restored.append(ask())

ask()  # warmed up in module scope

@lambdadb.handler(engine)
def handler(event, context):
    pauses = [engine.pool.connector.random.random() for _ in range(3)]
    return [ask(), restored, pauses, os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME")]
"""


def test_a_snapshot_holds_no_session_and_its_copies_share_nothing(make: Any, server: Server) -> None:
    """Nothing is open in the snapshot; each copy has a session, and random numbers, of its own."""
    snapshot = make(SNAP, kind=Snapshot)
    server.become(0)
    copies = [snapshot.restore() for _ in range(3)]
    results = [copy.invoke(None) for copy in copies]
    assert len({pid for pid, *_ in results}) == 3
    assert all(restored == [pid] for pid, restored, *_ in results)  # kept from the hook on
    assert len({pause for *_, pauses, _ in results for pause in pauses}) == 9
    assert {stream for *_, stream in results} == {None}
    assert {pid for pid, *_ in server.become(3)} == {pid for pid, *_ in results}
    assert [copy.invoke(None)[0] for copy in copies] == [pid for pid, *_ in results]


@pytest.mark.sweep
def test_a_snapshot_holds_no_login_of_a_store(make: Any, server: Server) -> None:
    """A store drops what it has read before the snapshot; each copy reads it again."""
    snapshot = make(
        """
        import json
        from lambdadb.credentials.secrets_manager import SecretsManager
        from sqlalchemy import make_url

        class Client:
            asked = 0
            def get_secret_value(self, **keywords):
                self.asked += 1
                return {"SecretString": json.dumps({"username": "postgres", "password": password})}

        client = Client()
        store = SecretsManager("orders/app", client=client)
        given = make_url(os.environ["DATABASE_URL"])
        password = given.password
        url = f"postgresql+psycopg://{given.host}:{given.port}/{given.database}"
        engine = lambdadb.create_engine(url, credentials=store, allow_unverified_server=True)
        ask(engine)
        from snapshot_restore_py import register_after_restore
        kept = []
        register_after_restore(lambda: kept.append(store._kept))

        @lambdadb.handler(engine)
        def handler(event, context):
            ask(engine)
            return [kept, client.asked]
        """,
        kind=Snapshot,
    )
    server.become(0)
    assert snapshot.restore().invoke(None) == [[None], 2]


def test_managed_instances_have_a_session_for_each_process(make: Any, server: Server) -> None:
    """Four requests at a time, four processes, four sessions: never one that two of them share."""
    environment = make(
        """
        meeting = Path("meeting")
        meeting.mkdir(exist_ok=True)

        @lambdadb.handler(engine)
        def handler(event, context):
            with engine.connect() as connection:
                pid = connection.scalar(PID)
                (meeting / f"{event}-{os.getpid()}").touch()
                while len(list(meeting.glob(f"{event}-*"))) < 4:
                    time.sleep(0.005)
            return [os.getpid(), pid]
        """,
        kind=ManagedEnvironment,
        concurrency=4,
    )
    environment.start()
    rounds = []
    for number in range(2):
        with ThreadPoolExecutor(4) as executor:
            rounds.append(sorted(map(tuple, executor.map(environment.invoke, [number] * 4))))
    assert len({process for process, _ in rounds[0]}) == 4
    assert len({session for _, session in rounds[0]}) == 4
    assert rounds[0] == rounds[1]  # each process has kept its own
    server.become(4)
    environment.close()
    server.become(0)


@pytest.mark.sweep
def test_on_managed_instances_a_deadline_cancels_by_itself(make: Any, server: Server) -> None:
    """The timeout stops no code there; a statement ends one second before it nevertheless."""
    environment = make(
        """
        @lambdadb.handler(engine)
        def handler(event, context):
            with engine.connect() as connection:
                connection.execute(text("SELECT pg_sleep(60)"))
        """,
        kind=ManagedEnvironment,
        concurrency=1,
        timeout=5.0,
    )
    environment.start()
    with pytest.raises(FunctionError) as caught:
        environment.invoke(None)
    assert caught.value.type == "OutOfTime"
    server.become(0)


def test_a_suspended_durable_function_leaves_nothing_checked_out(make: Any, server: Server) -> None:
    """Branches run in threads, and a wait raises a BaseException through them: all is given back."""
    environment = make(
        """
        from concurrent.futures import ThreadPoolExecutor
        from lambdadb import PerEnvironment

        class SuspendExecution(BaseException):
            pass

        engine = lambdadb.create_engine(
            os.environ["DATABASE_URL"], policy=PerEnvironment(connections=2, checkout_timeout=10.0)
        )

        def branch(number):
            with engine.begin() as connection:
                connection.scalar(PID)
                if number % 2:
                    raise SuspendExecution

        def suspend(number):
            try:
                branch(number)
            except SuspendExecution:
                return "suspended"
            return "done"

        @lambdadb.handler(engine)
        def handler(event, context):
            with ThreadPoolExecutor(6) as executor:
                results = list(executor.map(suspend, range(6)))
            return [sorted(results), engine.pool.checkedout()]
        """
    )
    for _ in range(2):
        assert environment.invoke(None) == [["done"] * 3 + ["suspended"] * 3, 0]
    assert len({state for _, state, _ in server.become(2)} - {"idle"}) == 0


@pytest.mark.parametrize(
    "method",
    [
        "fork",
        pytest.param("spawn", marks=pytest.mark.sweep),
        pytest.param("forkserver", marks=pytest.mark.sweep),
    ],
)
def test_a_child_of_multiprocessing_has_a_session_of_its_own(
    method: str, make: Any, server: Server
) -> None:
    """Parent and child both work, and the child's end takes nothing of the parent's with it."""
    environment = make(
        f"""
        import multiprocessing

        def work(pipe):
            pipe.send(ask())
            pipe.close()

        @lambdadb.handler(engine)
        def handler(event, context):
            before = ask()
            context = multiprocessing.get_context("{method}")
            ours, theirs = context.Pipe()
            child = context.Process(target=work, args=(theirs,))
            child.start()
            other = ours.recv()
            child.join()
            return [before, other, ask()]
        """
    )
    before, other, after = environment.invoke(None)
    assert before == after != other
    assert [pid for pid, *_ in server.become(1)] == [before]


def test_engines_made_in_the_handler_do_not_pile_up(make: Any, server: Server) -> None:
    """Thirteen invocations that each make an engine leave one session, and one warning."""
    environment = make(
        """
        def handler(event, context):
            return ask(lambdadb.create_engine(os.environ["DATABASE_URL"]))
        """
    )
    for _ in range(13):
        environment.invoke(None)
    server.become(1)
    told = [line for line in environment.log if "makes an engine inside a handler" in line]
    assert len(told) == 1


@pytest.mark.sweep
def test_provisioned_concurrency_finds_a_session_that_has_ended(make: Any, server: Server) -> None:
    """An init long before the first invocation: what it had opened is gone, and nobody notices."""
    environment = make(
        "FIRST = ask()\n" + IDLE,
        environment={"AWS_LAMBDA_INITIALIZATION_TYPE": "provisioned-concurrency"},
    )
    environment.start()
    ((pid, *_),) = server.become(1)
    server.connection.execute("SELECT pg_terminate_backend(%s)", [pid])
    server.become(0)
    assert environment.invoke(None) != pid
    server.become(1)


@pytest.mark.sweep
def test_an_asynchronous_engine_outlives_its_event_loop(make: Any, server: Server) -> None:
    """A handler that runs a new event loop each time: one session, in every loop."""
    environment = make(
        """
        import asyncio
        import lambdadb.aio
        waits = lambdadb.aio.create_async_engine(os.environ["DATABASE_URL"])

        async def work():
            async with waits.begin() as connection:
                await connection.execute(text("SELECT pg_sleep(0.01)"))
                return await connection.scalar(PID)

        def handler(event, context):
            return asyncio.run(work())
        """
    )
    pids = {environment.invoke(None) for _ in range(3)}
    assert len(pids) == 1
    server.become(1)
