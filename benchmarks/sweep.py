"""
Units of work of run_transaction, damaged at places drawn at random, and what became of their rows.

Each trial draws a client (policy, synchronous or not, engine or ORM, with a key or without), what its
unit of work does (rows, savepoints, the driver's cursors; COMMIT and ROLLBACK midway, which are
refused), the settings of its sessions (by SET, by the server, by the URL), and the fault: the connection
is closed, reset, stalled or half dead, at a message boundary or after any byte, or the server crashes in
that moment.

  lost      a row is claimed to be committed, and it is not there
  doubled   a row is there more than once
  denied    a row is claimed not to be committed, and it is there
  torn      half of a unit is there, and the client was not told so
  hung      no answer within the invocation's time
  doubt     CommitInDoubt: after a crash or a silence only; on MySQL also when the answer to COMMIT is
            lost and there is no idempotency key
  needless  the server could be asked, and the client was told something else than what is expected

    nox -s sweep                                  # 20,000 trials
    nox -s sweep -- --trials 500 --seed 7 --json sweep.json
    nox -s sweep -- --engine mysql                # on a real MariaDB (Debian: mariadb-server)
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import logging
import multiprocessing
import os
import sys
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from lambdadb.lab.faultproxy.fault_servers import SERVERS, EngineName
from lambdadb.lab.faultproxy.fault_sweep import Trial, open_testbed, random_sweep

PROCESSES = min(2, os.cpu_count() or 1)


def work(engine: EngineName, seed: str, trials: int, queue: Any) -> None:
    """Run trials in a process of its own, and hand each one over."""
    for name in ("lambdadb", "psycopg", "pymysql", "sqlalchemy.pool", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # they tell of each fault
    try:
        with open_testbed(engine) as testbed:
            for trial in itertools.islice(random_sweep(testbed, Random(seed)), trials):
                queue.put(trial)
    except BaseException as error:
        queue.put(f"{type(error).__name__}: {error}")
        raise
    queue.put(None)


def run(engine: EngineName, trials: int, seed: int, console: Console) -> list[Trial]:
    """All trials, on as many servers as there are processes."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    shares = [trials // PROCESSES + (number < trials % PROCESSES) for number in range(PROCESSES)]
    processes = [
        context.Process(target=work, args=(engine, f"{seed}.{number}", share, queue))
        for number, share in enumerate(shares)
    ]
    done: list[Trial] = []
    columns = [*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn()]
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        for process in processes:
            process.start()
        task = progress.add_task("trials", total=trials)
        running = len(processes)
        while running:
            result = queue.get()
            if isinstance(result, Trial):
                done.append(result)
                progress.advance(task)
                if result.is_wrong or result.is_needless:
                    console.print(result)
            elif result is None:
                running -= 1
            else:
                sys.exit(f"A sweep failed: {result}")
    for process in processes:
        process.join()
    return done


def count(trials: list[Trial]) -> list[int]:
    """The columns of the table."""
    return [
        len(trials),
        *(sum(getattr(t, name) for t in trials) for name in ("lost", "doubled", "denied", "torn")),
        sum(t.claim == "hung" for t in trials),
        sum(t.claim == "in doubt" for t in trials),
        sum(t.is_needless for t in trials),
    ]


def table(trials: list[Trial]) -> Table:
    """Counts by fault, by unit of work and by client."""
    shown = Table(title=f"{len(trials)} trials")
    shown.add_column("drawn")
    for title in ("trials", "lost", "doubled", "denied", "torn", "hung", "doubt", "needless"):
        shown.add_column(title, justify="right")
    groups = [
        lambda t: "crash" if t.crashed else t.point.action.value,
        lambda t: t.shape,
        lambda t: t.client,
        lambda t: f"settings by {t.settings.split(':')[0]}" if t.settings else "no settings",
    ]
    for group in groups:
        for name in sorted(Counter(map(group, trials))):
            mine = [trial for trial in trials if group(trial) == name]
            shown.add_row(name, *map(str, count(mine)))
        shown.add_section()
    shown.add_row("all", *map(str, count(trials)))
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--engine", choices=sorted(SERVERS), default="postgresql")
    parser.add_argument("--trials", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write every trial to this file")
    chosen = parser.parse_args()
    trials = run(chosen.engine, chosen.trials, chosen.seed, Console(stderr=True))
    if chosen.json:
        rows = [{**dataclasses.asdict(trial), "point": str(trial.point)} for trial in trials]
        chosen.json.write_text(json.dumps(rows, indent=1))
    console = Console()
    Console(width=max(console.width, 120)).print(table(trials))
    if any(trial.is_wrong or trial.is_needless for trial in trials):
        sys.exit(1)


if __name__ == "__main__":
    main()
