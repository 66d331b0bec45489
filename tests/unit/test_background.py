"""A blocking call in a thread, in the context of its caller."""

from __future__ import annotations

import contextlib
import contextvars
import select
import threading

import pytest

from lambdadb import background
from lambdadb.background import BackgroundCall


def finish(call):
    """Wait until the call has ended."""
    assert select.select([call.socket], [], [], 30)[0]
    call.close()


def test_the_result_and_the_error_are_the_function_s():
    """What the function returns or raises is what `result()` returns or raises."""
    calls = [BackgroundCall(lambda: 42), BackgroundCall(lambda: 1 // 0)]
    for call in calls:
        finish(call)
        assert call.ended
    assert calls[0].result() == 42
    with pytest.raises(ZeroDivisionError):
        calls[1].result()


def test_context_variables_are_the_caller_s():
    """The thread sees the caller's context variables, and cannot change them."""
    variable = contextvars.ContextVar("variable", default="none")
    variable.set("caller")

    def function():
        seen = variable.get()
        variable.set("thread")
        return seen

    call = BackgroundCall(function)
    finish(call)
    assert (call.result(), variable.get()) == ("caller", "caller")


@pytest.mark.parametrize("fails", [False, True])
def test_a_carrier_takes_in_the_caller_and_sets_in_the_thread(monkeypatch, fails):
    """A library's thread-local context is taken where the call is made, and set where it runs."""
    local = threading.local()
    local.name = "caller"
    left = []

    def carry():
        taken = local.name

        @contextlib.contextmanager
        def context():
            local.name = taken
            try:
                yield
            finally:
                left.append(local.name)

        return context()

    def function():
        if fails:
            raise ValueError(local.name)
        return local.name

    monkeypatch.setattr(background, "context_carriers", [carry])
    call = BackgroundCall(function)
    finish(call)
    if fails:
        with pytest.raises(ValueError, match="caller"):
            call.result()
    else:
        assert call.result() == "caller"
    assert left == ["caller"]
