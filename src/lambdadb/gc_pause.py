"""
Imports without the garbage collector, for a shorter cold start.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def gc_paused() -> Iterator[None]:
    """
    Pause the garbage collector while the block imports modules.

    Imports create many objects and little garbage. Each of the collections that they trigger walks all
    objects that were imported before. `nox -s cold_start` measures what the pause saves.

    At the end the new objects are moved to the oldest generation, by `gc.freeze()` and `gc.unfreeze()`
    (Python, "gc"); otherwise the next collection would walk all of them. What the program has frozen
    itself stays frozen, and a collector that was off stays off.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if not gc.get_freeze_count():
                gc.freeze()
                gc.unfreeze()
            gc.enable()
