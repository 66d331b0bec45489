"""
The pool: as many connections as the policy allows, usually one, each used by one checkout at a time.
"""

from __future__ import annotations

import functools
import logging
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry, Pool, PoolProxiedConnection

from lambdadb import pool_registry
from lambdadb.checkout import Checkout, Waiters, find_user_code
from lambdadb.deadline import Deadline
from lambdadb.errors import ConnectionInUse, InvocationEnded
from lambdadb.slot import Slot

if TYPE_CHECKING:
    from lambdadb.connect.connector import Connector

logger = logging.getLogger("lambdadb")

PING = 2.0  # seconds after which a ping is given up; a new connect takes milliseconds


class _SlotTaken(InvocationEnded):
    """`release()` has taken the slot of a connection that was being opened."""


class GuardedPool(Pool):
    """
    A `StaticPool` that cannot mix two transactions.

    `StaticPool` gives its one connection to every caller. So two sessions share a transaction, and the
    rollback of one undoes the other's work without an error. Threads that connect at the same time open
    one connection each. In this pool one checkout at a time has a connection. A checkout beyond
    `policy.connections` raises `ConnectionInUse`, at once or after `policy.checkout_timeout`.

    **Costs:** no round trip for a checkout, which polls the socket. One round trip after
    `policy.ping_after` seconds unused, and with `PerEnvironment(reset="session")` one per invocation.
    """

    # SQLAlchemy's private names: the pool's logger, which `echo_pool` uses; `_do_get` and
    # `_do_return_conn`, which every pool overrides.
    _sqla_logger_namespace = "sqlalchemy.pool.GuardedPool"

    def __init__(
        self,
        creator: Callable[..., Any],
        connector: Connector,
        url: URL | None = None,
        predecessor: GuardedPool | None = None,
        **keywords: Any,
    ) -> None:
        super().__init__(creator, **keywords)
        self.connector = connector
        self.driver = connector.driver
        self.policy = connector.settings.policy
        self.invocations = connector.invocations
        self.clock = connector.clock
        self.url = url
        self.made_inside: weakref.WeakSet[GuardedPool] = weakref.WeakSet()
        """Pools of engines that were made while an invocation of this one ran."""
        self._disposed = False
        self._disposed_pools: list[GuardedPool] = []  # earlier ones of this engine, still in use
        self._local = threading.local()
        self._waiters = Waiters(self.clock)
        self.forget()
        if predecessor is None:
            self.made_at = find_user_code()
            pool_registry.add_new(self, in_lambda=self._in_lambda)
        else:
            self.made_at = predecessor.made_at
            pool_registry.add(self)

    def forget(self) -> None:
        """Drop all slots without closing anything: a forked child must not use its parent's sessions."""
        self._slots = [Slot(self) for _ in range(self.policy.connections)]

    @property
    def _in_lambda(self) -> bool:
        return "AWS_LAMBDA_FUNCTION_NAME" in self.connector.environment

    def _current_slots(self) -> list[Slot]:
        """Return as many slots as the policy has connections, successors in place of retired ones."""
        for number, slot in enumerate(self._slots):
            while slot.is_retired:
                self._slots[number] = slot = slot.successor()
        return self._slots

    # Checking out

    def connect(self) -> PoolProxiedConnection:
        """
        Check a connection out.

        Raises:
            ConnectionInUse: All connections are in use.
            ConnectFailed, OutOfTime: While connecting.
        """
        checkout = Checkout(
            invocation=self.invocations.number, asynchronous=bool(self._dialect.is_async)
        )
        try:
            # SQLAlchemy calls `_do_get` without arguments, in this thread, before any await.
            self._local.slot = self._take(checkout)
            return super().connect()
        except BaseException:
            # Free the slot after any exception, also one from a signal handler at any line.
            for slot in self._current_slots():
                if slot.taken_by is checkout:
                    self.give_up(slot)
            raise

    def give_up(self, slot: Slot) -> None:
        """Close the connection of a slot that an error has left in use."""
        if slot.retire():
            self._waiters.wake_next()
            slot.close()

    def _take(self, checkout: Checkout) -> Slot:
        slot = self._take_free(checkout)
        if slot is None:
            for lost in self._current_slots():
                other = lost.taken_by
                same = other is not None and other.actor == checkout.actor
                if same and lost.is_lost(_CONNECT) and lost.retire():
                    lost.close()
            slot = self._take_free(checkout)
        return slot or self._wait(checkout)

    def _take_free(self, checkout: Checkout) -> Slot | None:
        open_first = sorted(self._current_slots(), key=lambda slot: slot.dbapi_connection is None)
        return next((slot for slot in open_first if slot.take(checkout)), None)

    def _wait(self, checkout: Checkout) -> Slot:
        """Wait for a slot as long as the policy and the invocation allow."""
        began, timeout = self.clock.now(), self.policy.checkout_timeout
        others = [slot.taken_by for slot in self._current_slots()]
        if not timeout or all(o is not None and o.actor == checkout.actor for o in others):
            raise self._describe_in_use(0.0)  # no other thread or task could give one back
        end = Deadline(began + timeout)
        if (invocation := self.invocations.deadline) is not None:
            end = end.earlier(Deadline(invocation.at - self.connector.settings.retry.reserve))

        def take() -> Slot | None:
            if checkout.invocation and checkout.invocation != self.invocations.number:
                raise _SlotTaken("The invocation ended while it waited for a connection.")
            return self._take_free(checkout)

        slot = self._waiters.wait(take, end)
        if slot is None:
            raise self._describe_in_use(self.clock.now() - began)
        return slot

    def _do_get(self) -> ConnectionPoolEntry:
        slot: Slot = self._local.slot
        checkout = slot.taken_by
        idle_from, slot.idle_from = slot.idle_from, None
        if slot.dbapi_connection is not None and not self._is_usable(slot, idle_from, checkout):
            if idle_from is not None:
                self.connector.replace_idle(self.clock.idle_since(idle_from))
            slot.close()
        if slot.dbapi_connection is None:
            slot.get_connection()  # connects
        if slot.is_retired:
            slot.close()
            raise _SlotTaken("The invocation ended while it was connecting.")
        return slot

    def _is_usable(
        self, slot: Slot, idle_from: tuple[float, float] | None, checkout: Checkout | None
    ) -> bool:
        """Whether another checkout can use an open connection. Asks the server if necessary."""
        connection: Any = slot.driver_connection
        liveness = self.driver.liveness(connection)
        if idle_from is None or liveness == "closed":
            return False
        idle = self.clock.idle_since(idle_from)
        ends_after = self.driver.idle_session_timeout(connection)
        if ends_after is not None and idle > ends_after:
            return False  # the server has ended it, and the message about it was lost
        if self.policy.resets and checkout is not None and slot.invocation != checkout.invocation:
            return self._ask(slot, lambda: self.driver.reset_session(connection))
        if liveness == "readable" or (idle >= self.policy.ping_after and not self._has_proxy(slot)):
            dialect: Any = self._dialect
            # _do_ping_w_event calls `handle_error` listeners if a ping fails. It may be missing.
            ping = getattr(dialect, "_do_ping_w_event", dialect.do_ping)
            return self._ask(slot, lambda: ping(slot.dbapi_connection))
        return True

    def _has_proxy(self, slot: Slot) -> bool:
        # A ping to a proxy says nothing about the server, and keeps the proxy from ending idle
        # connections and from shrinking its pool (RDS User Guide, RDS Proxy connection considerations).
        return self.driver.has_proxy(slot.driver_connection)

    def _ask(self, slot: Slot, question: Callable[[], bool]) -> bool:
        connection, dialect = slot.driver_connection, self._dialect
        self.driver.set_wait_limit(connection, self.clock.now() + PING)
        try:
            return question()
        except (dialect.loaded_dbapi.Error, SQLAlchemyError):  # type: ignore[union-attr]
            return False
        finally:
            self.driver.set_wait_limit(connection, None)

    # Returning a connection

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        assert isinstance(record, Slot)
        slot = record
        try:
            checkout = slot.taken_by
            if slot.is_retired or not self._may_stay(slot):
                slot.close()
            else:
                slot.invocation = checkout.invocation if checkout is not None else 0
                slot.idle_from = self.clock.moment()
        finally:
            if not slot.is_retired:
                slot.free()
            self._waiters.wake_next()

    def _may_stay(self, slot: Slot) -> bool:
        """Whether the next checkout can use a connection that is returned."""
        connection: Any = slot.driver_connection
        if connection is None or self._disposed or pool_registry.is_closing():
            return False
        if not (self.policy.keeps or self.invocations.active):
            return False
        return self.driver.is_reusable(connection)

    # The end of an invocation

    def release(self, invocation: int) -> None:
        """
        End an invocation: close what the policy does not keep, and what was not returned.

        Otherwise an open session would stay open, in its transaction, while the environment is frozen.

        Args:
            invocation: Its number. Checkouts of a later invocation stay. Outside of Lambda those made
                before any invocation stay too, such as a test's own session.
        """
        for pool in (self, *self._disposed_pools):
            pool._end_checked_out(invocation)
        self._disposed_pools = [pool for pool in self._disposed_pools if pool.checkedout()]
        if not self.policy.keeps:
            self._close_idle()
        for pool in list(self.made_inside):
            pool.close_all()
        self.made_inside.clear()

    def _end_checked_out(self, invocation: int) -> None:
        for slot in self._current_slots():
            checkout = slot.taken_by
            if checkout is None or not self._ends_with(checkout, invocation) or not slot.retire():
                continue
            if slot.taken_by is None:  # returned at this moment
                slot.close()
                continue
            logger.warning(
                "The invocation ended while a connection was still in use by %s. Its transaction was "
                "rolled back and the connection closed. Close the session, and wait for threads and "
                "tasks that use one, before the handler returns.",
                checkout,
            )
            self._end(slot)
            self._waiters.wake_next()

    def _ends_with(self, checkout: Checkout, invocation: int) -> bool:
        return checkout.invocation <= invocation if checkout.invocation else self._in_lambda

    def _end(self, slot: Slot) -> None:
        connection: Any = slot.driver_connection
        if slot.fairy_ref is None and not self._dialect.is_async:
            slot.close()  # it is not in use: a listener failed while it was returned
        elif connection is not None:
            self.driver.abort(connection)

    def _close_idle(self) -> None:
        for slot in self._current_slots():
            self._retire_free(slot, slot.close)

    def close_all(self) -> None:
        """End every session of an engine that is not used any more, from any thread or event loop."""
        self._disposed = True
        self.end_sessions()

    def end_sessions(self) -> None:
        """End every session, also those in use. The pool can open new ones."""
        for slot in self._current_slots():
            self._retire_free(slot, functools.partial(self._end, slot))
        for slot in self._current_slots():
            if slot.retire():
                self._end(slot)

    def _retire_free(self, slot: Slot, end: Callable[[], None]) -> None:
        """Take a free slot out of the pool, and end its session."""
        closing = Checkout(invocation=self.invocations.number, asynchronous=False)
        try:
            if slot.take(closing) and slot.retire():
                end()
        except BaseException:
            if slot.taken_by is closing:  # interrupted
                end()
            raise

    # Errors, and SQLAlchemy's public methods of a pool

    def _describe_in_use(self, waited: float) -> ConnectionInUse:
        allowed, policy = self.policy.connections, type(self.policy).__name__
        users = [str(slot.taken_by) for slot in self._current_slots() if slot.taken_by is not None]
        opened = "the connection" if allowed == 1 else f"all {allowed} connections"
        after = f" after {waited:.1f} s" if waited else ""
        return ConnectionInUse(
            f"This engine's policy allows {allowed} open session{'s'[: allowed != 1]}, and {opened} "
            f"is still in use{after} by {', '.join(users) or 'another thread'}. "
            "A second session on the same connection would share its transaction. Use the session that "
            f"is open, or close it first. If {allowed + 1} or more have to be open at once, say how "
            f"many: {policy}(connections={allowed + 1}). If threads or tasks can wait for each other: "
            f"{policy}(checkout_timeout=seconds)."
        )

    def size(self) -> int:
        """Return how many connections the policy allows."""
        return self.policy.connections

    def checkedout(self) -> int:
        """Return how many connections are in use."""
        return sum(slot.taken_by is not None for slot in self._current_slots())

    def checkedin(self) -> int:
        """Return how many connections are open and not in use."""
        slots = self._current_slots()
        return sum(slot.taken_by is None and slot.dbapi_connection is not None for slot in slots)

    def overflow(self) -> int:
        """Return how many connections are open beyond `size()`: always 0."""
        return 0

    def status(self) -> str:
        """Return a text that says how many connections are in use and how many slots are free."""
        held = self.checkedout()
        return (
            f"{type(self).__name__} {type(self.policy).__name__}: {held} in use, "
            f"{self.size() - held} free, of which {self.checkedin()} open"
        )

    def dispose(self) -> None:
        """Close the connections that are not in use. Those in use are closed when they are returned."""
        self._disposed = True
        self._close_idle()

    def recreate(self) -> GuardedPool:
        """Return a new pool with the same settings, for `Engine.dispose()`."""
        fresh = type(self)(
            self._creator,
            connector=self.connector,
            url=self.url,
            predecessor=self,
            recycle=self._recycle,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            reset_on_return=self._reset_on_return,
            pre_ping=self._pre_ping,
            dialect=self._dialect,
            _dispatch=self.dispatch,
        )
        fresh._disposed_pools = [pool for pool in (self, *self._disposed_pools) if pool.checkedout()]
        fresh.made_inside = self.made_inside
        return fresh


_CONNECT = GuardedPool.connect.__code__
