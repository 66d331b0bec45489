"""The spans of the user's own, and which statements are recorded."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import inspect
import threading

import pytest

from lambdadb import InvalidSettings
from lambdadb.tracing import Span, Tracer, trace
from lambdadb.tracing.span import emit
from lambdadb.tracing.trace import _tracers, register, selects_statement


class Notes(Tracer):
    """Writes down what begins and ends."""

    def __init__(self, statements="none", *, on=True):
        self.statements = statements
        self.on = on
        self.seen = []
        register(self)

    def recording(self):
        return self.on

    @contextlib.contextmanager
    def block(self, name):
        self.seen.append(name)
        try:
            yield
        except BaseException as error:
            self.seen.append(type(error).__name__)
            raise
        self.seen.append(f"/{name}")


@pytest.fixture
def notes():
    return Notes()


def test_a_block_is_opened_on_every_tracer(notes):
    """`with` opens a span on each tracer that is recording, and closes it."""
    second, silent = Notes(), Notes(on=False)
    with trace("render"):
        assert notes.seen == second.seen == ["render"]
    assert notes.seen == second.seen == ["render", "/render"]
    assert silent.seen == []


def test_functions_are_decorated(notes):
    """A decorated function is traced at each call, also within itself, and keeps its name."""

    @trace("down")
    def down(number):
        """It goes down."""
        return [number, *down(number - 1)] if number else []

    assert down(2) == [2, 1]
    assert notes.seen == ["down"] * 3 + ["/down"] * 3
    assert (down.__name__, down.__doc__) == ("down", "It goes down.")


def test_coroutine_functions_are_decorated(notes):
    """Its span lasts until the coroutine returns, and it still is a coroutine function."""

    @trace("query_user")
    async def query_user():
        await asyncio.sleep(0)
        return list(notes.seen)

    assert inspect.iscoroutinefunction(query_user)
    assert asyncio.run(query_user()) == ["query_user"]
    assert notes.seen == ["query_user", "/query_user"]


def test_generator_functions_are_refused():
    """Their bodies run when nobody is inside the function any more."""

    def rows():
        yield 1

    with pytest.raises(InvalidSettings, match="rows, a generator function"):
        trace("rows")(rows)


def test_errors_pass(notes):
    """The function's error is seen by the tracer, and reaches the caller as it is."""
    error = ValueError("no")
    with pytest.raises(ValueError, match="no") as caught, trace("render"):
        raise error
    assert caught.value is error
    assert notes.seen == ["render", "ValueError"]


@pytest.mark.parametrize("method", ["recording", "block", "__enter__", "__exit__"])
def test_a_tracer_that_raises_changes_nothing(log, notes, monkeypatch, method):
    """What it raises is logged; the block runs, and other tracers go on."""

    class Broken(Tracer):
        """A tracer and its own block; one method of it fails."""

        def block(self, name):
            return self

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return True  # a tracer must not swallow the function's error either

    def fail(*arguments):
        raise RuntimeError("no memory left")

    monkeypatch.setattr(Broken, method, fail)
    broken = Broken()
    register(broken)
    with pytest.raises(ValueError, match="the function's own"), trace("render"):
        raise ValueError("the function's own")
    assert notes.seen == ["render", "ValueError"]
    assert [record.message for record in log.records] == ["Broken failed; the traced work goes on"]


def test_a_record_that_raises_changes_nothing(log):
    """What record() raises is logged."""
    emit(Tracer(), lambda: Span(name="connect", began=0.0, seconds=1.0))
    assert "Tracer failed" in log.text


def test_nothing_is_made_for_a_tracer_that_does_not_record():
    """A span costs something, and is only made if it is kept."""
    emit(Notes(on=False), lambda: pytest.fail("made"))
    emit(None, lambda: pytest.fail("made"))


def test_tracers_go_with_their_engines():
    """Being registered keeps no tracer alive."""
    gc.collect()
    before = len(_tracers)
    tracer = Notes()
    register(tracer)
    assert len(_tracers) == before + 1
    del tracer
    gc.collect()
    assert len(_tracers) == before


def test_which_statements_are_selected():
    """All, none, those beyond some seconds, or those inside a block: of this task, or around it."""
    assert selects_statement(Notes("all"), 0.0)
    assert not selects_statement(Notes("none"), 100.0)
    assert selects_statement(Notes(0.5), 0.5)
    assert not selects_statement(Notes(0.5), 0.4)
    traced = Notes("traced")
    assert not selects_statement(traced, 1.0)
    with trace("outer"):
        with trace("inner"):
            assert selects_statement(traced, 0.0)
        assert selects_statement(traced, 0.0)
    assert not selects_statement(traced, 1.0)


def test_a_block_of_one_task_selects_nothing_in_another():
    """A block in one task says nothing of the statements of another."""
    traced = Notes("traced")

    async def task(inside):
        with trace("block") if inside else contextlib.nullcontext():
            await asyncio.sleep(0)
            return selects_statement(traced, 0.0)

    async def both():
        return await asyncio.gather(task(True), task(False))

    assert asyncio.run(both()) == [True, False]


@pytest.mark.parametrize("statements", ["some", True, -1.0, float("nan"), None])
def test_an_impossible_choice_of_statements_is_refused(statements):
    """While the engine is made, not at the first statement."""
    with pytest.raises(InvalidSettings, match="use 'all', 'none', 'traced'"):
        Notes(statements)


def test_a_block_without_a_name_is_refused():
    """`@trace` instead of `@trace("...")` would never run the function."""
    with pytest.raises(InvalidSettings, match="needs a name"):
        trace(lambda: None)
    with pytest.raises(InvalidSettings, match="decorates functions, not"):
        trace("class")(Notes)


def test_one_block_may_be_entered_again():
    """Inside itself, and by several threads at once: each entry has a state of its own."""
    tracer = Notes("traced")
    block = trace("q")
    with block, block:
        assert selects_statement(tracer, 0.0)
    assert not selects_statement(tracer, 0.0)
    with block:
        thread = threading.Thread(target=block.__enter__)
        thread.start()
        thread.join()
    assert not selects_statement(tracer, 0.0)


def test_a_generator_s_own_error_is_kept():
    """A block in a generator may be left in another context than it was entered in, and out of turn."""

    def generator(name):
        with trace(name):
            yield

    first, second = generator("first"), generator("second")
    contextvars.copy_context().run(next, first)
    with pytest.raises(KeyError, match="own"):
        first.throw(KeyError("the user's own"))
    tracer = Notes()
    first = generator("first")
    next(first)
    next(second)
    first.close()
    assert tracer.seen == ["first", "second", "GeneratorExit"]
    second.close()
