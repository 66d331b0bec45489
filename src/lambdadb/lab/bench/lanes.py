"""Work in threads whose records come out one by one, until a signal ends it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from lambdadb.lab.bench.records import Record

if TYPE_CHECKING:
    from typing_extensions import Self


class Lanes:
    """
    Threads that put records: iterate over `records()`, each comes as soon as it is there.

    Leaving the context ends everything that was started.

    Args:
        works: What each thread does; it stops early where `stop` is set.
        patience: Seconds that a thread gets to end after it was told to.
    """

    def __init__(self, works: Sequence[Callable[[], None]], *, patience: float = 15.0) -> None:
        # A SimpleQueue may be put to from a signal handler while the same thread waits on it.
        self.queue: queue.SimpleQueue[Record | Literal["ended", "interrupted"]] = queue.SimpleQueue()
        self.interrupted = False
        self.stop = threading.Event()
        self.patience = patience
        self.threads = [
            threading.Thread(target=self.drive, args=(work,), name=f"bench-{number}", daemon=True)
            for number, work in enumerate(works)
        ]

    def records(self) -> Iterator[Record]:
        """Start the threads, and give each record as it comes."""
        for thread in self.threads:
            thread.start()
        running = len(self.threads)
        while running and not self.interrupted:
            try:
                # Not one wait without end: where the system hands a signal to another thread, Python
                # runs its handler only when this one wakes up.
                record = self.queue.get(timeout=0.2)
            except queue.Empty:
                continue
            if record == "ended":
                running -= 1
            elif record == "interrupted":
                self.interrupted = True
                self.close()
            else:
                yield record
        while not self.queue.empty():
            record = self.queue.get()
            if not isinstance(record, str):
                yield record

    def drive(self, work: Callable[[], None]) -> None:
        """Do one thread's work, and say when it has ended."""
        try:
            work()
        finally:
            self.queue.put("ended")

    def interrupt(self) -> None:
        """Let `records()` end early, with what is there by then; for a signal handler."""
        self.queue.put("interrupted")

    def close(self) -> None:
        """End all threads now."""
        self.stop.set()
        for thread in self.threads:
            if thread.ident is not None:
                # One that still waits for a cluster to wake ends with the process.
                thread.join(timeout=self.patience)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
