"""
A shorter cold start: importing without the garbage collector.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def gc_paused() -> Iterator[None]:
    """
    Import, inside, without collecting garbage.

    Importing allocates a lot and leaves next to nothing behind, yet starts collection after collection,
    each of which walks all that was imported before. `nox -s cold_start` shows what that saves.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if not gc.get_freeze_count():
                # All that is new would be walked now, at once. This makes it old instead, unseen: what
                # is frozen and unfrozen is in the oldest generation (Python, "gc").
                gc.freeze()
                gc.unfreeze()
            gc.enable()
