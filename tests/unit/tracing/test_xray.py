"""X-Ray's documents, as they arrive at a daemon: with its SDK in the function, and without."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import json
import logging
import select
import sys
import threading
import time

import pytest
from aws_xray_sdk import global_sdk_config
from aws_xray_sdk.core import AWSXRayRecorder
from aws_xray_sdk.core.async_context import AsyncContext
from aws_xray_sdk.core.lambda_launcher import LambdaContext
from hypothesis import given
from hypothesis import strategies as st
from psycopg.errors import UniqueViolation

from lambdadb.background import BackgroundCall
from lambdadb.deadline import Clock
from lambdadb.errors import OutOfTime
from lambdadb.lab.xray.daemon import XRayDaemon, nested, problems
from lambdadb.tracing import Span, trace
from lambdadb.tracing.sanitize import sanitize
from lambdadb.tracing.span import start_span
from lambdadb.tracing.trace import register
from lambdadb.tracing.xray import XRay
from lambdadb.tracing.xray_documents import TraceContext, make_datagram, make_document, serialize

ROOT, PARENT = "1-5759e988-bd862e3fe1be46a994272793", "53995c3f42cd8ad8"
HEADER = f"Root={ROOT};Parent={PARENT};Sampled=1;Lineage=1:a87bd80c:0"
CONNECT = {
    "db.system.name": "postgresql",
    "db.namespace": "orders",
    "server.address": "db.example.com",
    "server.port": 5432,
    "faas.name": "checkout",
    "faas.coldstart": True,
    "lambdadb.user": "app",
    "lambdadb.policy": "PerEnvironment",
    "lambdadb.attempts": 3,
    "lambdadb.fault": "RESUMING",
    "lambdadb.resumed": True,
}
STATEMENT = {
    **{
        name: CONNECT[name]
        for name in ("db.system.name", "db.namespace", "server.address", "server.port")
    },
    "db.query.text": "SELECT * FROM t WHERE id = ?",
    "db.operation.name": "SELECT",
    "lambdadb.server_version": "18.1",
    "lambdadb.driver": "psycopg 3.3.9",
    "lambdadb.user": "app",
}


def statement(name="statement", **changes):
    return Span(**{"name": name, "began": 100.0, "seconds": 0.25, "attributes": STATEMENT} | changes)


@pytest.fixture
def daemon(monkeypatch):
    with XRayDaemon() as daemon:
        monkeypatch.setenv("AWS_XRAY_DAEMON_ADDRESS", daemon.address)
        yield daemon
        assert daemon.problems == []


@pytest.fixture
def sampled(monkeypatch):
    """An invocation in Lambda that is sampled."""
    monkeypatch.setenv("LAMBDA_TASK_ROOT", "/var/task")
    monkeypatch.setenv("_X_AMZN_TRACE_ID", HEADER)


@pytest.fixture
def tracer(monkeypatch):
    """A tracer in a function that does not use the SDK."""
    for module in ("aws_xray_sdk", "aws_xray_sdk.core"):
        monkeypatch.delitem(sys.modules, module)
    tracer = XRay()
    register(tracer)
    return tracer


@pytest.fixture
def recorder(daemon, caplog):
    """The SDK's recorder, as it is in Lambda or outside."""
    caplog.set_level(logging.INFO, "aws_xray_sdk")
    recorder = AWSXRayRecorder()
    recorder.configure(daemon_address=daemon.address, sampling=False)
    yield recorder
    recorder.emitter._socket.close()


@pytest.fixture
def beside(recorder):
    """A tracer in a function that uses the SDK."""
    tracer = XRay(recorder=recorder)
    register(tracer)
    return tracer


def test_a_statement(daemon, sampled, tracer):
    """A remote subsegment of the function's segment, with the sql block and no password."""
    assert tracer.recording()
    tracer.record(statement())
    (made,) = daemon.wait(1)
    assert made | {"id": ""} == {
        "name": "orders@db.example.com",
        "id": "",
        "trace_id": ROOT,
        "parent_id": PARENT,
        "type": "subsegment",
        "namespace": "remote",
        "start_time": 100.0,
        "end_time": 100.25,
        "sql": {
            "url": "postgresql://db.example.com:5432/orders",
            "sanitized_query": "SELECT * FROM t WHERE id = ?",
            "database_type": "postgresql",
            "database_version": "18.1",
            "driver_version": "psycopg 3.3.9",
            "user": "app",
        },
        "metadata": {"lambdadb": {"operation": "SELECT"}},
    }


def test_a_resume(daemon, sampled, tracer):
    """A connect with its parts in one document, and annotations to search by."""
    attempt = Span(name="attempt", began=101.0, seconds=1.0, attributes={"lambdadb.fault": "SILENT"})
    told = {"lambdadb.fault": "RESUMING", "lambdadb.attempts": 3}
    # A rounding error of the clocks: it ends after its parent.
    resume = Span(name="resume", began=100.5, seconds=15.5000001, attributes=told, children=(attempt,))
    tracer.record(
        Span(name="connect", began=100.0, seconds=16.0, attributes=CONNECT, children=(resume,))
    )
    (tree,) = nested(daemon.wait(1))
    assert tree.names == ("orders@db.example.com", ("resume", ("attempt",)))
    assert tree.document["annotations"] == {
        "lambdadb": "connect",
        "function": "checkout",
        "cold_start": True,
        "policy": "PerEnvironment",
        "attempts": 3,
        "fault": "RESUMING",
        "resumed": True,
    }
    assert tree.children[0].document["annotations"] == {"fault": "RESUMING", "attempts": 3}
    assert tree.children[0].children[0].document["metadata"] == {"lambdadb": {"fault": "SILENT"}}


def test_an_error(daemon, sampled, tracer):
    """A fault with its type, and lambdadb's own message; the server's may quote what is in a row."""
    theirs = UniqueViolation("Key (email)=(ann@example.com) already exists")
    failed = {**STATEMENT, "db.response.status_code": "23505"}
    tracer.record(statement(error=theirs, attributes=failed))
    tracer.record(statement(error=OutOfTime("Time was over.", sent=True)))
    first, second = daemon.wait(2)
    assert first["fault"] is second["fault"] is True
    assert first["cause"]["exceptions"][0] | {"id": ""} == {"id": "", "type": "UniqueViolation"}
    assert first["annotations"] == {"status_code": "23505"}
    exception = second["cause"]["exceptions"][0]
    assert (exception["type"], exception["message"]) == ("OutOfTime", "Time was over.")


@pytest.mark.parametrize(
    ("header", "enabled"),
    [
        (None, "true"),  # INIT, or not in Lambda
        ("", "true"),
        (HEADER.replace("Sampled=1", "Sampled=0"), "true"),
        (f"Root={ROOT};Sampled=1", "true"),  # no segment to be in
        (f"Root={ROOT}", "true"),
        (HEADER, "false"),
    ],
)
def test_where_nothing_is_recorded(daemon, tracer, monkeypatch, log, header, enabled):
    """During INIT, where the invocation is not sampled, or X-Ray is off: not a word, no document."""
    if header is not None:
        monkeypatch.setenv("_X_AMZN_TRACE_ID", header)
    monkeypatch.setenv("AWS_XRAY_SDK_ENABLED", enabled)
    assert not tracer.recording()
    with trace("block"):
        tracer.record(statement())
    assert daemon.settle() == []
    assert log.records == []


def mark(tracer, name):
    """Something that takes no time, now."""
    tracer.record(Span(name=name, began=time.time(), seconds=0.0))


def test_blocks_nest(daemon, sampled, tracer):
    """What happens in a block is inside it, and a function's error is a fault without its text."""

    @trace("outer")
    def function():
        mark(tracer, "first")
        with trace("inner"):
            mark(tracer, "second")
        mark(tracer, "third")
        raise ValueError("canary")

    with pytest.raises(ValueError, match="canary"):
        function()
    (tree,) = nested(daemon.wait(5))
    assert tree.names == ("outer", ("first",), ("inner", ("second",)), ("third",))
    assert tree.document["cause"]["exceptions"][0]["type"] == "ValueError"
    assert "canary" not in json.dumps(daemon.documents)


async def in_tasks(tracer, mark=mark):
    """Two tasks, each with a block of its own, that take turns inside a block around them."""

    async def task(name, turns):
        with trace(name):
            for _ in range(turns):
                await asyncio.sleep(0)
            mark(tracer, f"in {name}")

    with trace("outer"):
        await asyncio.gather(task("slow", 9), task("quick", 2))


TASKS = ("outer", ("slow", ("in slow",)), ("quick", ("in quick",)))


def test_parallel_tasks_do_not_mix(daemon, sampled, tracer):
    """What a task records is in its own block, whatever other tasks do meanwhile."""
    asyncio.run(in_tasks(tracer))
    assert [tree.names for tree in nested(daemon.wait(5))] == [TASKS]


def test_a_thread_nests_where_its_context_comes_from(daemon, sampled, tracer):
    """A thread with a copy of the context is in its block; one without is in the function's segment."""

    async def handler():
        with trace("outer"):
            await asyncio.to_thread(mark, tracer, "copied")
            await asyncio.get_running_loop().run_in_executor(None, mark, tracer, "bare")

    asyncio.run(handler())
    assert {tree.names for tree in nested(daemon.wait(3))} == {("outer", ("copied",)), ("bare",)}


LATER = HEADER.replace("1-5759e988", "1-5759e989")


@pytest.mark.parametrize(
    ("header", "place"),
    [
        (HEADER, (ROOT, PARENT)),  # the block has ended, the invocation has not
        (LATER, (ROOT.replace("e988", "e989"), PARENT)),
        (LATER.replace("Sampled=1", "Sampled=0"), None),
    ],
)
@pytest.mark.parametrize("own", [False, True], ids=["", "own block"])
def test_a_task_that_outlives_its_block(daemon, sampled, tracer, monkeypatch, header, place, own):
    """Nothing is put into what has ended, nor into an earlier trace."""

    async def late(begun, go):
        with trace("late") if own else contextlib.nullcontext():
            begun.set()
            await go.wait()
            mark(tracer, "mark")

    async def handlers():
        begun, go = asyncio.Event(), asyncio.Event()
        with trace("first"):
            task = asyncio.create_task(late(begun, go))
            await begun.wait()
        monkeypatch.setenv("_X_AMZN_TRACE_ID", header)
        go.set()
        await task

    asyncio.run(handlers())
    documents = {one["name"]: one for one in daemon.settle()}
    places = {name: (one["trace_id"], one["parent_id"]) for name, one in documents.items()}
    if own and header is HEADER:
        place = (ROOT, documents["late"]["id"])
    assert places.get("mark") == place


def test_no_daemon(sampled, tracer, monkeypatch, log):
    """Nobody listens: nothing happens."""
    monkeypatch.setenv("AWS_XRAY_DAEMON_ADDRESS", "tcp:127.0.0.1:1 udp:127.0.0.1:1")
    for _ in range(3):
        tracer.record(statement())
    assert log.records == []


def test_the_address_of_udp(daemon, sampled, tracer, monkeypatch):
    """The variable may name two daemons, in either order."""
    for addresses in (f"tcp:127.0.0.1:1 udp:{daemon.address}", f"udp:{daemon.address} tcp:127.0.0.1:1"):
        monkeypatch.setenv("AWS_XRAY_DAEMON_ADDRESS", addresses)
        tracer.record(statement())
    assert len(daemon.wait(2)) == 2


def test_with_the_sdk(daemon, sampled, beside, recorder):
    """The SDK's subsegments and ours are one tree, whichever is inside."""
    with recorder.in_subsegment("## handler"):
        mark(beside, "first")
        with trace("outer"):
            mark(beside, "second")
            with recorder.in_subsegment("## method"):
                mark(beside, "third")
                with trace("inner"):
                    mark(beside, "fourth")
        mark(beside, "fifth")
    inner = ("## method", ("third",), ("inner", ("fourth",)))
    whole = ("## handler", ("first",), ("outer", ("second",), inner), ("fifth",))
    assert [tree.names for tree in nested(daemon.wait(9))] == [whole]


def test_an_error_with_the_sdk(daemon, sampled, beside, recorder):
    """A block's fault keeps no message, though the SDK would."""
    with pytest.raises(ValueError, match="canary"), trace("outer"):
        raise ValueError("canary")
    (made,) = daemon.wait(1)
    assert made["fault"] is True
    assert made["cause"]["exceptions"][0]["type"] == "ValueError"
    assert "canary" not in json.dumps(made)


def test_parallel_tasks_with_the_sdk(daemon, sampled, beside, recorder):
    """The SDK keeps one stack for all tasks of a thread: ours do not rely on it."""
    with recorder.in_subsegment("## handler"):
        asyncio.run(in_tasks(beside))
        mark(beside, "after")
    assert [tree.names for tree in nested(daemon.wait(7))] == [("## handler", TASKS, ("after",))]


def test_a_thread_with_the_sdk(daemon, sampled, beside, recorder):
    """The SDK knows nothing of a thread's context, but blocks do."""

    @trace("inner")
    def work():
        mark(beside, "first")
        with recorder.in_subsegment("## method"):
            mark(beside, "second")

    with trace("outer"):
        thread = threading.Thread(target=contextvars.copy_context().run, args=(work,))
        thread.start()
        thread.join()
    (tree,) = nested(daemon.wait(5))
    assert tree.names == ("outer", ("inner", ("first",), ("## method", ("second",))))


def test_a_block_that_ends_out_of_turn(log, daemon, sampled, beside, recorder):
    """A generator closed late ends its own block, and not the SDK's subsegment around the closing."""

    def rows():
        with trace("rows"):
            yield 1

    generator = rows()
    next(generator)
    with recorder.in_subsegment("## later"):
        generator.close()
        mark(beside, "inside")
    mark(beside, "after")
    with recorder.in_subsegment("## next"):
        pass
    names = {one["name"]: one["parent_id"] for one in daemon.wait(4)}
    assert (names["rows"], names["after"], names["## next"]) == (PARENT, PARENT, PARENT)
    assert log.messages == []
    # The SDK nested its own in the block, which it then outlived.
    assert daemon.problems == ["## later is not within rows"]
    daemon.problems.clear()


def test_the_sdk_switched_off(daemon, sampled, beside, monkeypatch):
    """As Powertools does it where tracing is disabled."""
    global_sdk_config.set_sdk_enabled(False)
    try:
        assert not beside.recording()
        beside.record(statement())
    finally:
        global_sdk_config.set_sdk_enabled(True)
    assert daemon.settle() == []


def test_inside_a_subsegment_that_is_not_sampled(daemon, sampled, beside, recorder):
    """Who leaves something out of the trace, leaves out what is inside."""
    recorder.begin_subsegment_without_sampling("quiet")
    assert not beside.recording()
    beside.record(statement())
    recorder.end_subsegment()
    assert beside.recording()
    assert daemon.settle() == []


def test_outside_lambda(log, daemon, beside, recorder):
    """In a sampled segment of the SDK; otherwise nowhere, and without a word."""
    assert not beside.recording()
    with trace("nowhere"):
        beside.record(statement())
    assert log.records == []
    with recorder.in_segment("request"):
        assert beside.recording()
        with trace("outer"):
            mark(beside, "first")
    with recorder.in_segment("quiet", sampling=0):
        assert not beside.recording()
    segment = next(one for one in daemon.wait(2) if one["name"] == "request")
    assert [tree.names for tree in nested(daemon.documents)] == [("request", ("outer", ("first",)))]
    assert segment["trace_id"] == daemon.documents[0]["trace_id"]


def test_outside_lambda_on_an_event_loop(daemon, beside, recorder):
    """With the SDK's context for tasks."""

    async def request():
        recorder.configure(context=AsyncContext())
        with recorder.in_segment("request"):
            await in_tasks(beside)

    asyncio.run(request())
    assert [tree.names for tree in nested(daemon.wait(6))] == [("request", TASKS)]


def test_a_thread_outside_lambda(log, daemon, beside, recorder):
    """A thread that knows no segment is silent, as the SDK itself would complain."""
    with recorder.in_segment("request"):
        thread = threading.Thread(target=mark, args=(beside, "lost"))
        thread.start()
        thread.join()
    assert [one["name"] for one in daemon.wait(1)] == ["request"]
    assert log.records == []


@pytest.fixture
def sdk(recorder, monkeypatch):
    """The SDK's global recorder, which boto3's subsegments use, reports to the daemon."""
    monkeypatch.setattr("aws_xray_sdk.core.xray_recorder", recorder)
    return recorder


@pytest.fixture(params=["Lambda", "elsewhere"])
def request_segment(request, sdk):
    """Inside a sampled request, in Lambda and elsewhere; gives the names around a subsegment."""
    if request.param == "Lambda":
        request.getfixturevalue("sampled")
        # The recorder finds out when it is made.
        sdk.configure(context=LambdaContext(), streaming_threshold=0)
        yield ()
        return
    sdk.begin_segment("request")
    yield ("request",)


def read_secret(sdk):
    """What a store of logins does, as boto3 under the SDK's patch records it."""
    with sdk.in_subsegment("secretsmanager"), sdk.in_subsegment("attempt"):
        return {"password": "known"}


def run_in_background(function):
    """As a connect runs a store's `logins`."""
    return Clock().result(function, 30.0)


SECRET = ("secretsmanager", ("attempt",))


def received(daemon, sdk, around):
    """The tree of names that has arrived, without the segment around it."""
    if around:
        sdk.end_segment()
    (tree,) = nested(daemon.settle())
    if not around:
        return tree.names
    assert tree.names[0] == "request"
    (inner,) = tree.names[1:]
    return inner


def test_a_background_call_is_in_the_caller_s_subsegment(log, daemon, sdk, request_segment):
    """Without a tracer too: the SDK's subsegment of a login's thread is where the handler's are."""
    with sdk.in_subsegment("## handler"):
        assert run_in_background(lambda: read_secret(sdk)) == {"password": "known"}
    assert received(daemon, sdk, request_segment) == ("## handler", SECRET)
    assert [record for record in log.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("inside", [False, True], ids=["", "in a block"])
@pytest.mark.parametrize("fails", [False, True], ids=["", "fails"])
def test_a_login_holds_what_its_store_does(log, daemon, sdk, request_segment, inside, fails):
    """boto3's subsegment is in `login`, which is in `connect`, although both are sent later."""
    tracer = XRay()
    register(tracer)

    def logins():
        read_secret(sdk)
        with trace("decrypt"):
            mark(tracer, "mark")
        if fails:
            raise OSError("no network")

    with sdk.in_subsegment("## handler"), trace("query") if inside else contextlib.nullcontext():
        connect_began = time.time()
        with start_span(tracer, "connect", connect_began) as connect:
            login_began = time.time()
            with contextlib.suppress(OSError), start_span(tracer, "login", login_began) as login:
                run_in_background(logins)
            login_ended = time.time()
            part = Span(name="login", began=login_began, seconds=login_ended - login_began, handle=login)
            span = Span(
                name="connect",
                began=connect_began,
                seconds=time.time() - connect_began,
                children=(part,),
                handle=connect,
            )
            tracer.record(span)
        mark(tracer, "after")
    parts = (("connect", ("login", SECRET, ("decrypt", ("mark",)))), ("after",))
    expected = ("## handler", ("query", *parts)) if inside else ("## handler", *parts)
    assert received(daemon, sdk, request_segment) == expected
    assert [record for record in log.records if record.levelno >= logging.WARNING] == []


def test_a_background_call_that_outlives_its_connect(log, daemon, sdk, request_segment):
    """A login that the connect has given up ends late: what it sends is in its place, without a word."""
    tracer = XRay()
    go = threading.Event()

    def logins():
        assert go.wait(30)
        return read_secret(sdk)

    with start_span(tracer, "login", time.time()) as login:
        call = BackgroundCall(logins)
    go.set()
    assert select.select([call.socket], [], [], 30)[0]
    call.close()
    (tree,) = nested(daemon.settle())
    assert (tree.names, tree.document["parent_id"]) == (SECRET, login.id)
    assert [record for record in log.records if record.levelno >= logging.WARNING] == []
    sdk.clear_trace_entities()


def test_a_background_call_where_nothing_is_sampled(log, daemon, sdk, monkeypatch):
    """Neither the tracer nor the SDK sends anything for the thread."""
    monkeypatch.setenv("LAMBDA_TASK_ROOT", "/var/task")
    monkeypatch.setenv("_X_AMZN_TRACE_ID", HEADER.replace("Sampled=1", "Sampled=0"))
    sdk.configure(context=LambdaContext(), streaming_threshold=0)
    with sdk.in_subsegment("## handler"), start_span(XRay(), "login", 1.0) as login:
        run_in_background(lambda: read_secret(sdk))
    assert login is None
    assert daemon.settle() == []


def test_a_background_call_of_a_task(log, daemon, sdk):
    """AsyncContext keeps subsegments by task: a thread of another task must not change them."""

    async def request():
        sdk.configure(context=AsyncContext())
        with sdk.in_segment("request"):
            await asyncio.to_thread(run_in_background, lambda: None)
            with sdk.in_subsegment("later"):
                pass

    asyncio.run(request())
    assert [tree.names for tree in nested(daemon.wait(1))] == [("request", ("later",))]


def test_a_context_of_the_sdk_that_cannot_be_read(log, sdk, monkeypatch):
    """A carrier never fails a connect: what the SDK raises is logged."""

    class Broken:
        def __getattr__(self, name):
            raise RuntimeError("not this version")

    monkeypatch.setattr("aws_xray_sdk.core.xray_recorder", Broken())
    assert run_in_background(lambda: 42) == 42
    assert log.text.count("The X-Ray SDK's context cannot be read") == 1


# The last of each pair takes most bytes in JSON; half a surrogate pair is no UTF-8.
texts = st.text(max_size=400) | st.sampled_from("a\U0010ffff\x01\ud800").map(lambda one: one * 5000)
NAMES = (*STATEMENT, "lambdadb.own", "lambdadb.ü b", "faas.name", "db.response.status_code")
attributes = st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, texts))


@given(
    st.lists(attributes, min_size=1, max_size=40),
    texts,
    st.floats(0, 2e9),
    st.floats(0, 900),
    st.booleans(),
)
def test_any_span_is_a_document_that_xray_takes(all_attributes, name, began, seconds, failed):
    """By the published rules, and below 64 kB, whatever it is told of."""
    first, *rest = [
        Span(
            name=name or "connect",
            began=began,
            seconds=seconds,
            attributes={**given, "db.query.text": sanitize(given.get("db.query.text", ""))},
            error=OutOfTime(name * 100, sent=True) if failed else None,
        )
        for given in all_attributes
    ]
    span = dataclasses.replace(first, children=tuple(rest))
    sent = make_datagram(serialize(make_document(span, TraceContext(ROOT, PARENT))))
    assert len(sent) <= 64_000
    assert problems(json.loads(sent.partition(b"\n")[2])) == []


@pytest.mark.parametrize(
    "broken",
    [
        {"name": "a?b"},
        {"name": "x" * 201},
        {"id": "53995C3F42CD8AD8"},
        {"end_time": 99.0},
        {"namespace": "sql"},
        {"password": "x"},
        {"annotations": {"a.b": 1}},
        {"annotations": {"a": None}},
        {"metadata": {"a": 1}},
        {"sql": {"password": "x"}},
        {"sql": {"user": None}},
        {"cause": {"exceptions": [{"type": "ValueError"}]}},
        {"fault": 1},
        {"subsegments": [{"name": "a", "id": "0" * 16, "start_time": 99.0, "end_time": 100.0}]},
    ],
)
def test_the_listener_finds_what_is_wrong(broken):
    """What checks the documents of all these tests knows the rules."""
    right = make_document(statement(), TraceContext(ROOT, PARENT))
    assert problems(right) == []
    assert len(problems({**right, **broken})) == 1
