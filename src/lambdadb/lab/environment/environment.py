"""Execution environments of Lambda: AWS's own runtime client in real processes, frozen and thawed.

What a policy does to a connection depends on the freeze between invocations, so it is real here.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from lambdadb.extras import install_command
from lambdadb.lab import LabError
from lambdadb.lab.environment.runtime_api import RuntimeAnswer, RuntimeEvent
from lambdadb.lab.environment.runtime_process import RuntimeProcess
from lambdadb.lab.environment.signals import signal_all, wait_until_asleep
from lambdadb.lab.process import Directory

# Seconds that Lambda gives the first init; an init that overruns is repeated within the invocation.
INIT_LIMIT = 10.0

# Seconds for the init of provisioned concurrency, SnapStart and Managed Instances, unless the function's
# timeout is longer (Lambda Developer Guide).
LONG_INIT_LIMIT = 130.0

# Seconds between SIGTERM and SIGKILL when an environment with an external extension ends (Lambda
# Developer Guide; observed by aws-samples/graceful-shutdown-with-aws-lambda).
SHUTDOWN_LIMIT = 0.3

# All that a function gets of the variables around it: Lambda passes nothing of a developer's shell,
# and a PGPASSWORD or PGHOST from there would change what is measured.
INHERITED = ("PATH", "LANG", "LD_LIBRARY_PATH", "TMPDIR")


class FunctionError(LabError):
    """
    The function failed: its handler or its init raised, or its process exited.

    Args:
        type: The name of the exception's class, or Lambda's own, such as `Runtime.ExitError`.
        message: The exception's text.
        stack_trace: The lines that the runtime client reported.
    """

    def __init__(self, type: str, message: str, stack_trace: Sequence[str] = ()) -> None:
        super().__init__(f"{type}: {message}")
        self.type = type
        self.message = message
        self.stack_trace = tuple(stack_trace)


class FunctionTimeout(FunctionError):
    """The invocation took longer than the function's timeout; its process was killed."""


class Environment:
    """
    One Lambda execution environment: AWS's runtime client in a real process, frozen between
    invocations.

    The process starts with the first invocation, is stopped with SIGSTOP when the runtime asks for
    the next event (this is when Lambda freezes) and continued with SIGCONT before one is handed
    out. A timeout or an exit ends it, and the next invocation starts a new one. It never outlives
    the process that made it.

    Args:
        handler: `module.function`, as in the function's configuration.
        function_name: Becomes `AWS_LAMBDA_FUNCTION_NAME`.
        timeout: Seconds that an invocation may take.
        memory: Megabytes that the function is told it has. They are not enforced.
        environment: The function's own variables; they win over the lab's.
        path: Folders to import from; the first one is the task root and the working directory.
        on_log: Called with each log record of the function, and each line that it printed, at the end
            of its invocation.

    Raises:
        LabError: AWS's runtime client is not installed.
    """

    def __init__(
        self,
        handler: str,
        *,
        function_name: str,
        timeout: float = 60.0,
        memory: int = 512,
        environment: Mapping[str, str] | None = None,
        path: Sequence[Path] = (),
        on_log: Callable[[str], None] | None = None,
    ) -> None:
        if importlib.util.find_spec("awslambdaric") is None:
            raise LabError(
                "AWS's runtime client (awslambdaric) is not installed, so no function can run: "
                f"{install_command('testing')}"
            )
        self.handler = handler
        self.function_name = function_name
        self.timeout = timeout
        self.on_log = on_log
        self.log: list[str] = []
        self.init_count = 0
        self.frozen = False
        self.closed = False
        self.folder = Directory("lambdadb-environment-")
        self.root = path[0].resolve() if path else self.folder.path
        self.variables = self.all_variables(memory, path, environment or {})
        self.busy = threading.Lock()
        self.runtime: RuntimeProcess | None = None

    def start(self) -> None:
        """
        Run the init before the first invocation, as for provisioned concurrency, and freeze.

        Raises:
            FunctionError: The init raised, or the process exited.
            FunctionTimeout: It took longer than the timeout.
        """
        if not self.initialise(time.monotonic() + max(self.timeout, LONG_INIT_LIMIT)):
            raise self.timed_out("init")

    def shut_down(self, *, extension: bool = True) -> float | None:
        """
        End the environment as Lambda does: SIGTERM, 300 ms, SIGKILL; an invocation may be running.

        Args:
            extension: Whether an extension is registered. Without one there is no SIGTERM.

        Returns:
            Seconds after which the process had ended by itself; None if it had to be killed.
        """
        runtime, self.closed = self.runtime, True
        took = None
        if runtime is not None and extension:
            was_frozen = self.frozen
            self.thaw(runtime)
            if was_frozen:
                wait_until_asleep(runtime.process.pid)
            began = time.monotonic()
            runtime.process.send_signal(signal.SIGTERM)
            try:
                runtime.process.wait(SHUTDOWN_LIMIT)
                took = time.monotonic() - began
            except TimeoutError:
                pass
        self.end()
        return took

    @property
    def pid(self) -> int:
        """
        The function's process.

        Raises:
            LabError: There is none: before the first invocation, or after an exit or a timeout.
        """
        if self.runtime is None:
            raise LabError(f"{self.function_name} has no process now: invoke it first")
        return self.runtime.process.pid

    def invoke(self, event: object, *, trace_id: str | None = None) -> object:
        """
        Run the handler with the event and return its result; the process is frozen afterwards.

        Args:
            event: What the handler gets; anything that JSON can carry.
            trace_id: X-Ray's header, `Root=...;Parent=...;Sampled=0`; by default one of its own for
                each invocation, sampled.

        Raises:
            LabError: The event is not JSON, another invocation runs here, or this is closed.
            FunctionError: The handler or the init raised, or the process exited.
            FunctionTimeout: The timeout was over.
        """
        body = encoded(event)
        if not self.busy.acquire(blocking=False):
            raise LabError(
                f"{self.function_name}: an invocation runs in this environment, and Lambda runs "
                "one at a time; use one Environment per concurrent invocation"
            )
        try:
            return self.run(body, trace_id or new_trace_id())
        except LabError:
            raise
        except BaseException:
            # Interrupted: the process is somewhere in its handler and cannot take another event.
            self.end()
            raise
        finally:
            if self.runtime is not None:
                self.collect(self.runtime.output.new_entries())
            self.busy.release()

    def run(self, body: bytes, trace_id: str) -> object:
        # Lambda repeats an init (after an overrun, an exit or a timeout) within the invocation.
        deadline = time.monotonic() + self.timeout
        if self.runtime is None and self.init_count == 0:
            finished = self.initialise(time.monotonic() + INIT_LIMIT)
            deadline = time.monotonic() + self.timeout
            if not finished:
                self.end()
        request_id = str(uuid.uuid4())
        if self.runtime is None and not self.initialise(deadline):
            raise self.timed_out(request_id)
        left = deadline - time.monotonic()
        headers = context_headers(request_id, trace_id, self.variables, time.time() + left)
        return self.result(RuntimeEvent(request_id, body, headers), deadline)

    def initialise(self, deadline: float) -> bool:
        """Start a process up to its first question for an event; False: out of time."""
        runtime = self.start_process()
        if not runtime.wait(lambda: runtime.api.asking, deadline):
            return False
        if not runtime.api.asking:
            raise self.exited(runtime, request_id=None)
        self.freeze(runtime)
        return True

    def start_process(self) -> RuntimeProcess:
        self.refuse_closed()
        self.init_count += 1
        output = self.folder.path / f"log-{self.init_count}"
        runtime = self.runtime = RuntimeProcess(self.handler, self.variables, self.root, output)
        if self.closed:  # by another thread, while the process started
            self.end()
            self.refuse_closed()
        return runtime

    def refuse_closed(self) -> None:
        if self.closed:
            raise LabError(f"{self.function_name}: this environment is closed; make a new one")

    def result(self, event: RuntimeEvent, deadline: float) -> object:
        runtime = self.runtime
        assert runtime is not None
        self.thaw(runtime)
        runtime.api.hand_out(event)
        if not runtime.wait(lambda: runtime.api.asking and runtime.api.answer is not None, deadline):
            raise self.timed_out(event.request_id)
        answer = runtime.api.answer
        if not runtime.api.asking:
            error = self.exited(runtime, event.request_id)
            if answer is None or answer.failed:
                raise error
        else:
            self.freeze(runtime)
        assert answer is not None
        return result_of(answer)

    def freeze(self, runtime: RuntimeProcess) -> None:
        signal_all(runtime, signal.SIGSTOP)
        self.frozen = True

    def thaw(self, runtime: RuntimeProcess) -> None:
        if not runtime.process.running:
            # Killed while frozen, from outside: Lambda would start a new one, and so does the next.
            raise self.exited(runtime, request_id=None)
        signal_all(runtime, signal.SIGCONT)
        self.frozen = False

    def exited(self, runtime: RuntimeProcess, request_id: str | None) -> FunctionError:
        """The error of a process that is gone: what it posted, else Lambda's words for its exit."""
        code = runtime.process.wait(timeout=5.0)
        answer = runtime.api.answer
        self.end()
        if answer is not None and answer.failed:
            return function_error(answer)
        how = f"exit status {code}" if code >= 0 else f"signal: {signal.Signals(-code).name}"
        about = f"RequestId: {request_id} Error: " if request_id else ""
        return FunctionError("Runtime.ExitError", f"{about}Runtime exited with error: {how}")

    def timed_out(self, request_id: str) -> FunctionTimeout:
        self.end()
        return FunctionTimeout(
            "Sandbox.Timedout",
            f"RequestId: {request_id} Error: Task timed out after {self.timeout:.2f} seconds",
        )

    def end(self) -> None:
        """End the process and keep the last entries of its log."""
        runtime, self.runtime = self.runtime, None
        self.frozen = False
        if runtime is not None:
            runtime.end()
            self.collect(runtime.output.new_entries(ended=True))

    def collect(self, entries: Sequence[str]) -> None:
        for entry in entries:
            self.log.append(entry)
            if self.on_log is not None:
                self.on_log(entry)

    def close(self) -> None:
        """End the process and remove its folder. Safe to repeat, and while an invocation runs."""
        self.closed = True
        try:
            self.end()
        finally:
            self.folder.close()

    def __enter__(self) -> Environment:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def all_variables(self, memory: int, path: Sequence[Path], own: Mapping[str, str]) -> dict[str, str]:
        """The variables that Lambda defines, and the function's own."""
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        day = time.strftime("%Y/%m/%d", time.gmtime())
        return {
            **inherited,
            "TZ": ":UTC",
            "PYTHONPATH": os.pathsep.join(str(folder.resolve()) for folder in path),
            "AWS_EXECUTION_ENV": "AWS_Lambda_python{}.{}".format(*sys.version_info[:2]),
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(memory),
            "AWS_LAMBDA_FUNCTION_NAME": self.function_name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{self.function_name}",
            "AWS_LAMBDA_LOG_STREAM_NAME": f"{day}/[$LATEST]{secrets.token_hex(16)}",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "LAMBDA_TASK_ROOT": str(self.root),
            **own,
        }


def encoded(event: object) -> bytes:
    try:
        return json.dumps(event, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise LabError(
            f"the event is not JSON ({error}), so Lambda could not carry it; nothing was started. "
            "Pass dicts, lists, strings, finite numbers, booleans and None only"
        ) from error


def result_of(answer: RuntimeAnswer) -> object:
    """What the handler returned; raises what it raised."""
    if answer.failed:
        raise function_error(answer)
    return json.loads(answer.body)


def function_error(answer: RuntimeAnswer) -> FunctionError:
    report = json.loads(answer.body)
    return FunctionError(
        report.get("errorType", ""), report.get("errorMessage", ""), report.get("stackTrace", ())
    )


def new_trace_id() -> str:
    """The header of a trace that begins now and is sampled."""
    root = f"1-{int(time.time()):08x}-{secrets.token_hex(12)}"
    return f"Root={root};Parent={secrets.token_hex(8)};Sampled=1"


def context_headers(
    request_id: str, trace_id: str, variables: Mapping[str, str], deadline: float
) -> dict[str, str]:
    """What the runtime client builds the handler's context from; `deadline` is in epoch seconds."""
    name, region = variables["AWS_LAMBDA_FUNCTION_NAME"], variables["AWS_REGION"]
    return {
        "Lambda-Runtime-Aws-Request-Id": request_id,
        "Lambda-Runtime-Deadline-Ms": str(int(deadline * 1000)),
        "Lambda-Runtime-Invoked-Function-Arn": (f"arn:aws:lambda:{region}:123456789012:function:{name}"),
        "Lambda-Runtime-Trace-Id": trace_id,
    }
