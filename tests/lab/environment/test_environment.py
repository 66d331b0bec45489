"""Execution environments: frozen and thawed processes under AWS's runtime client."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lambdadb.lab import LabError
from lambdadb.lab.environment import Environment, FunctionError, FunctionTimeout

Make = Callable[..., Environment]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Build an environment from a function's source text."""
    made: list[Environment] = []

    def build(source: str, **options: object) -> Environment:
        (tmp_path / "function.py").write_text(textwrap.dedent(source))
        options = {"function_name": "orders", "path": [tmp_path], **options}
        made.append(Environment("function.handler", **options))  # type: ignore[arg-type]
        return made[-1]

    yield build
    for environment in made:
        environment.close()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def test_result_and_warm_process(make: Make) -> None:
    """Invocations of one environment share a process, and each returns its own result."""
    environment = make("""
        import os
        count = 0
        def handler(event, context):
            global count
            count += 1
            return {"count": count, "event": event, "pid": os.getpid()}
    """)
    first = environment.invoke({"order": 1})
    second = environment.invoke(["ü", None, 1.5])
    assert first == {"count": 1, "event": {"order": 1}, "pid": environment.pid}
    assert second == {"count": 2, "event": ["ü", None, 1.5], "pid": environment.pid}
    assert environment.init_count == 1


@pytest.mark.skipif(sys.platform != "linux", reason="the state of a process is read from /proc")
def test_frozen_between_invocations(make: Make) -> None:
    """Between invocations the process is stopped, and not one of its threads gets on."""
    environment = make("""
        import threading, time
        ticks = 0
        def tick():
            global ticks
            while True:
                ticks += 1
                time.sleep(0.005)
        threading.Thread(target=tick, daemon=True).start()
        def handler(event, context):
            before = ticks
            time.sleep(event)
            return [before, ticks]
    """)
    _, ended = environment.invoke(0.1)  # type: ignore[misc]
    assert environment.frozen
    stat = Path(f"/proc/{environment.pid}/stat")
    assert until(lambda: stat.read_text().rsplit(")", 1)[1].split()[0] == "T")
    time.sleep(0.3)  # sixty ticks, were it awake
    started, _ = environment.invoke(0)  # type: ignore[misc]
    assert started - ended < 20


def test_handler_error(make: Make) -> None:
    """A handler's exception arrives with type, text and stack; the process lives on."""
    environment = make("""
        def handler(event, context):
            if event:
                raise ValueError("no such order")
            return "fine"
    """)
    with pytest.raises(FunctionError, match="no such order") as caught:
        environment.invoke(True)
    assert (caught.value.type, caught.value.message) == ("ValueError", "no such order")
    assert any("function.py" in line for line in caught.value.stack_trace)
    assert environment.invoke(False) == "fine"
    assert environment.init_count == 1


def test_result_that_is_not_json(make: Make) -> None:
    """A result that JSON cannot carry is the function's error, as on Lambda."""
    environment = make("def handler(event, context): return object()")
    with pytest.raises(FunctionError, match="Unable to marshal response"):
        environment.invoke(None)


def test_init_error_is_tried_anew(make: Make, tmp_path: Path) -> None:
    """An error while importing is the invocation's error, and the next invocation inits anew."""
    environment = make("""
        from pathlib import Path
        if not Path("repaired").exists():
            raise RuntimeError("no settings")
        def handler(event, context): return "fine"
    """)
    with pytest.raises(FunctionError, match="no settings") as caught:
        environment.invoke(None)
    assert caught.value.type == "RuntimeError"
    with pytest.raises(LabError, match="has no process"):
        _ = environment.pid
    (tmp_path / "repaired").touch()
    assert environment.invoke(None) == "fine"
    assert environment.init_count == 2


def test_missing_module_names_it(make: Make) -> None:
    """A module that cannot be imported is named."""
    environment = make("import nowhere_to_be_found")
    with pytest.raises(FunctionError, match="nowhere_to_be_found") as caught:
        environment.invoke(None)
    assert caught.value.type == "Runtime.ImportModuleError"


def test_timeout_kills_and_inits_anew(make: Make) -> None:
    """An invocation over its timeout ends in Lambda's words and its process with it."""
    environment = make(
        """
        import os, time
        def handler(event, context):
            print("pid", os.getpid())
            time.sleep(event)
            return os.getpid()
        """,
        timeout=1.0,
    )
    pid = environment.invoke(0)
    with pytest.raises(FunctionTimeout, match=r"Task timed out after 1\.00 seconds"):
        environment.invoke(60)
    assert until(lambda: not alive(int(str(pid))))
    assert environment.log == [f"pid {pid}", f"pid {pid}"]
    assert environment.invoke(0) != pid
    assert environment.init_count == 2


def test_exit_of_the_function(make: Make) -> None:
    """A function that exits fails with Lambda's words for it, and the next invocation inits."""
    environment = make("""
        import os
        def handler(event, context):
            if event is not None:
                print("leaving", end="", flush=True)
                os._exit(event)
            return "fine"
    """)
    with pytest.raises(FunctionError, match="Runtime exited with error: exit status 3") as caught:
        environment.invoke(3)
    assert caught.value.type == "Runtime.ExitError"
    assert environment.log == ["leaving"]
    assert environment.invoke(None) == "fine"
    os.kill(environment.pid, signal.SIGKILL)
    with pytest.raises(FunctionError, match="signal: SIGKILL"):
        environment.invoke(None)
    assert environment.invoke(None) == "fine"


def test_deadline_and_trace_reach_the_context(make: Make) -> None:
    """The context carries the time that is left, the names, and a trace of its own each time."""
    environment = make(
        """
        import os
        def handler(event, context):
            return {
                "left": context.get_remaining_time_in_millis(),
                "name": context.function_name,
                "arn": context.invoked_function_arn,
                "trace": os.environ["_X_AMZN_TRACE_ID"],
                "id": context.aws_request_id,
            }
        """,
        timeout=20.0,
    )
    first, second = environment.invoke(None), environment.invoke(None)
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert 10_000 < first["left"] <= 20_000
    assert first["name"] == "orders"
    assert first["arn"].endswith(":function:orders")
    assert first["trace"].startswith("Root=1-")
    assert first["trace"] != second["trace"]
    assert first["id"] != second["id"]


def test_variables_as_on_lambda(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The function sees Lambda's variables and its own, and none of the developer's shell."""
    monkeypatch.setenv("PGPASSWORD", "of-the-developer")
    environment = make(
        """
        import os
        def handler(event, context): return dict(os.environ)
        """,
        memory=1024,
        environment={"DATABASE_URL": "postgresql://x", "AWS_REGION": "ap-northeast-1"},
    )
    seen = environment.invoke(None)
    assert isinstance(seen, dict)
    assert seen["AWS_LAMBDA_FUNCTION_NAME"] == "orders"
    assert seen["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == "1024"
    assert seen["AWS_LAMBDA_LOG_GROUP_NAME"] == "/aws/lambda/orders"
    assert seen["AWS_LAMBDA_INITIALIZATION_TYPE"] == "on-demand"
    assert seen["LAMBDA_TASK_ROOT"]
    assert seen["DATABASE_URL"] == "postgresql://x"
    assert seen["AWS_REGION"] == "ap-northeast-1"
    assert "PGPASSWORD" not in seen


def test_log_lines(make: Make) -> None:
    """Printed and logged lines are collected in order and handed on; an error is one entry."""
    heard: list[str] = []
    environment = make(
        """
        import logging
        def handler(event, context):
            print("printed ü")
            logging.warning("logged")
            if event: raise KeyError("lost")
        """,
        on_log=heard.append,
    )
    environment.invoke(None)
    assert environment.log[0] == "printed ü"
    assert environment.log[1].startswith("[WARNING]")
    assert environment.log[1].endswith("logged")
    with pytest.raises(FunctionError):
        environment.invoke(True)
    assert environment.log[-1].startswith("[ERROR] KeyError: 'lost'\nTraceback")
    assert heard == environment.log


def test_event_that_is_not_json(make: Make) -> None:
    """An event that JSON cannot carry is refused before anything starts."""
    environment = make("def handler(event, context): return event")
    for event in (object(), {1, 2}, float("nan")):
        with pytest.raises(LabError, match="not JSON"):
            environment.invoke(event)
    assert environment.init_count == 0


def test_one_invocation_at_a_time(make: Make) -> None:
    """A second invocation at the same time is refused: Lambda would use another environment."""
    environment = make("""
        import time
        from pathlib import Path
        def handler(event, context):
            Path("began").touch()
            while event and not Path("go").exists(): time.sleep(0.01)
            return "done"
    """)
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(environment.invoke(True)))
    thread.start()
    assert until((environment.root / "began").exists)
    with pytest.raises(LabError, match="one at a time"):
        environment.invoke(False)
    (environment.root / "go").touch()
    thread.join(10)
    assert results == ["done"]


def test_closed_during_an_invocation(make: Make) -> None:
    """Closing ends the process at once, also in mid-invocation, and leaves no folder."""
    environment = make("""
        import time
        from pathlib import Path
        def handler(event, context):
            Path("began").touch()
            time.sleep(50)
    """)
    errors: list[LabError] = []

    def invoke() -> None:
        try:
            environment.invoke(None)
        except LabError as error:
            errors.append(error)

    thread = threading.Thread(target=invoke)
    thread.start()
    assert until((environment.root / "began").exists)
    pid = environment.pid
    environment.close()
    thread.join(10)
    assert not thread.is_alive()
    assert until(lambda: not alive(pid))
    assert len(errors) == 1
    assert not environment.folder.path.exists()
    with pytest.raises(LabError, match="closed"):
        environment.invoke(None)
    assert not [t for t in threading.enumerate() if t.name.startswith("runtime-api")]


def test_never_outlives_its_maker(tmp_path: Path) -> None:
    """A frozen function's process ends when the process that made it is killed."""
    (tmp_path / "function.py").write_text("def handler(event, context): return event")
    maker = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent("""
                import sys, time
                from pathlib import Path
                from lambdadb.lab.environment import Environment
                environment = Environment(
                    "function.handler", function_name="orders", path=[Path(sys.argv[1])]
                )
                environment.invoke(1)
                print(environment.pid, flush=True)
                time.sleep(50)
            """),
            str(tmp_path),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert maker.stdout is not None
    pid = int(maker.stdout.readline())
    assert alive(pid)
    maker.kill()
    maker.wait(10)
    maker.stdout.close()
    assert until(lambda: not alive(pid))


def test_log_records_stay_apart(make: Make) -> None:
    """A record is one entry, with a line break at its end or inside; lines keep their order."""
    heard: list[str] = []
    environment = make(
        """
        import logging
        for handler in logging.getLogger().handlers:
            handler.setFormatter(logging.Formatter("%(message)s"))
        def handler(event, context):
            logging.warning("first")
            print("printed")
            logging.warning("of two\\nlines")
            print("not ended", end="")
            logging.warning("last")
        """,
        on_log=heard.append,
    )
    environment.invoke(None)
    assert heard == ["first", "printed", "of two\nlines", "not ended", "last"]


def request(address: str, path: str, data: bytes | None = None) -> int:
    """The status that the Runtime API answers somebody else with."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", data, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_nobody_else_answers_for_the_function(make: Make) -> None:
    """The Runtime API is below a secret path: who does not know it is refused."""
    environment = make("""
        import os
        def handler(event, context):
            return os.environ["AWS_LAMBDA_RUNTIME_API"]
    """)
    address = str(environment.invoke(None))
    port, _, secret = address.partition("/")
    assert len(secret) >= 32
    for below in ("", "/", f"/{'x' * len(secret)}", f"/{secret[:-1]}"):
        prefix = f"{below}/2018-06-01/runtime"
        assert request(port, f"{prefix}/invocation/next") == 404
        assert request(port, f"{prefix}/init/error", b"{}") == 404
        assert request(port, f"{prefix}/invocation/any/response", b'"forged"') == 404
    assert environment.invoke(None) == address


def test_each_process_has_another_path(make: Make) -> None:
    """What one process knew is of no use with the next one."""
    environment = make("""
        import os
        def handler(event, context):
            if event == "end":
                os._exit(0)
            return os.environ["AWS_LAMBDA_RUNTIME_API"].partition("/")[2]
    """)
    first = environment.invoke(None)
    with pytest.raises(FunctionError):
        environment.invoke("end")
    assert environment.invoke(None) != first
