"""
Minutes of traffic on one database, while everything that ends connections happens at random.

Environments are processes that run units of work one after the other; half keep their session, half
connect for each unit. Every few seconds one of these happens, drawn at random:

  pause       traffic stops until the cluster has paused, and goes on with its resume
  failover    the server crashes and starts again: all sessions end, and so do commits without an answer
  rotation    the password is changed; environments learn the new one from their store of logins
  kill        an environment is killed in the middle of whatever it does, and another one starts

At the end each unit is looked for:

  lost        it is claimed to be committed, and it is not there
  doubled     it is there more than once
  denied      it is claimed not to be committed, and it is there
  left        sessions that the server still has after the last environment ended

A unit that was killed, or ended as CommitInDoubt, claims nothing: it may be there, once.

    nox -s soak                                   # ten minutes
    nox -s soak -- --seconds 180 --seed 7
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import logging
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from random import Random, SystemRandom
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeRemainingColumn

from lambdadb.lab.aurora import Cluster, State
from lambdadb.lab.postgres import Postgres

ENVIRONMENTS = 6
TIMEOUT = 20.0  # seconds of an invocation
RESUME = 3.0
AUTO_PAUSE = 1.0
IDLE = 1.0  # seconds after which the server ends a session that is not used
EVERY = (2.0, 8.0)  # seconds between two events
TAG = "soak"
BETWEEN = 0.01  # seconds between two units of an environment
PATIENCE = 60.0  # seconds for what must come at last


class StoredLogin:
    """A store of logins: the password is in a file, which a rotation replaces."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: str | None = None

    def logins(self, parameters: Mapping[str, object]) -> Iterator[dict[str, str]]:
        """The password of the last time first, and the file's after it."""
        del parameters
        if self._known is not None:
            yield {"password": self._known}
        self._known = self._path.read_text()
        yield {"password": self._known}


class Context:
    """Lambda's context: the time that is left."""

    def __init__(self) -> None:
        self._end = time.monotonic() + TIMEOUT

    def get_remaining_time_in_millis(self) -> float:
        return max(self._end - time.monotonic(), 0.0) * 1000.0


def live(url: str, login: Path, keeps: bool, number: int, traffic: Any, pipe: Connection) -> None:
    """One environment: it claims for each unit what became of it."""
    os.environ.update(AWS_LAMBDA_FUNCTION_NAME=TAG)

    from sqlalchemy import text

    import lambdadb

    logging.getLogger("lambdadb").setLevel(logging.CRITICAL)  # it tells of each fault
    kind = lambdadb.PerEnvironment if keeps else lambdadb.PerInvocation
    engine = lambdadb.create_engine(
        url, policy=kind(idle_session_timeout=IDLE), credentials=StoredLogin(login)
    )
    insert = text("INSERT INTO units (unit) VALUES (:unit)")
    for count in itertools.count():
        traffic.wait()
        unit = f"{number}-{count}"
        pipe.send((unit, "begun"))
        try:
            with lambdadb.invocation(engine, Context()):
                lambdadb.run_transaction(
                    engine, lambda one, unit=unit: one.execute(insert, {"unit": unit})
                )
            claim = "committed"
        except lambdadb.CommitInDoubt:
            claim = "in doubt"
        except Exception as error:
            claim = f"not committed: {type(error).__name__}"
        pipe.send((unit, claim))
        time.sleep(BETWEEN)


@dataclass
class Soak:
    """The fleet, the cluster, and what was claimed."""

    cluster: Cluster
    folder: Path
    random: Random
    claims: dict[str, str] = field(default_factory=dict)
    events: Counter[str] = field(default_factory=Counter)
    fleet: dict[Connection, Any] = field(default_factory=dict)
    _started: int = 0

    def __post_init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._traffic = self._context.Event()
        self._traffic.set()
        self._login = self.folder / "password"

    def set_up(self) -> None:
        """Make the table and the role, and start the environments."""
        with self.admin() as admin:
            admin.execute("CREATE TABLE units (unit text NOT NULL)")  # without a key: doubles are seen
            admin.execute("CREATE ROLE app LOGIN")
            admin.execute("GRANT INSERT ON units TO app")
        self.rotation()
        self.events.clear()
        for _ in range(ENVIRONMENTS):
            self.start_environment()

    def admin(self) -> psycopg.Connection[Any]:
        """Connect as the administrator, past the cluster; waits for the server."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return psycopg.connect(
                    self.cluster.server.url().replace("+psycopg", ""), autocommit=True
                )
            except psycopg.OperationalError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def start_environment(self) -> None:
        """Start one more environment."""
        ours, theirs = self._context.Pipe(duplex=False)
        url = f"postgresql+psycopg://app@127.0.0.1:{self.cluster.port}/postgres"
        number, self._started = self._started, self._started + 1
        process = self._context.Process(
            target=live, args=(url, self._login, number % 2 == 0, number, self._traffic, theirs)
        )
        process.start()
        theirs.close()
        self.fleet[ours] = process

    def listen(self, seconds: float) -> None:
        """Take the claims of all environments for this time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for pipe in wait(list(self.fleet), left):
                self.take_one(pipe)

    def take_one(self, pipe: Any) -> None:
        """Take one claim. An environment that ended by itself is a defect of this benchmark."""
        unit, claim = pipe.recv()
        self.claims[unit] = claim

    def pause(self) -> None:
        """Stop the traffic until the cluster has paused."""
        self._traffic.clear()
        end = time.monotonic() + PATIENCE
        while self.cluster.state is not State.PAUSED:
            self.listen(0.1)
            if time.monotonic() > end:
                raise SystemExit(f"The cluster does not pause: {self.cluster.events[-3:]}")
        self._traffic.set()

    def failover(self) -> None:
        """Crash the server under traffic, and start it again."""
        if self.cluster.state is State.AVAILABLE:
            self.cluster.server.crash()
            self.listen(self.random.uniform(0.0, 2.0))
            self.cluster.server.start()

    def rotation(self) -> None:
        """Change the password, then the store: between the two every login is refused."""
        if self.cluster.state is not State.AVAILABLE:
            return
        password = f"{self.random.getrandbits(64):x}"
        with self.admin() as admin:
            admin.execute(f"ALTER ROLE app PASSWORD '{password}'")
        new = self._login.with_suffix(".new")
        new.write_text(password)
        new.replace(self._login)

    def kill(self) -> None:
        """Kill an environment, and start another one."""
        pipe = self.random.choice(list(self.fleet))
        process = self.fleet.pop(pipe)
        process.kill()
        process.join()
        with contextlib.suppress(EOFError, OSError):
            while pipe.poll():
                self.take_one(pipe)
        pipe.close()
        self.start_environment()

    def end(self) -> None:
        """End all environments."""
        for pipe in list(self.fleet):
            process = self.fleet.pop(pipe)
            process.kill()
            process.join()
            with contextlib.suppress(EOFError, OSError):
                while pipe.poll():
                    self.take_one(pipe)
            pipe.close()

    def verdict(self) -> dict[str, int]:
        """Compare what was claimed with what is there."""
        self.cluster.server.start()
        with self.admin() as admin:
            end = time.monotonic() + PATIENCE
            query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
            while True:
                (left,) = admin.execute(query, [TAG]).fetchone() or (0,)
                if not left or time.monotonic() > end:
                    break
                time.sleep(0.1)
            there = Counter(unit for (unit,) in admin.execute("SELECT unit FROM units"))
        units = self.claims.items()
        return {
            "units": len(self.claims),
            "committed": sum(claim == "committed" for _, claim in units),
            "not committed": sum(claim.startswith("not") for _, claim in units),
            "in doubt": sum(claim == "in doubt" for _, claim in units),
            "killed": sum(claim == "begun" for _, claim in units),
            "lost": sum(claim == "committed" and not there[unit] for unit, claim in units),
            "doubled": sum(count > 1 for count in there.values()),
            "denied": sum(claim.startswith("not") and there[unit] > 0 for unit, claim in units),
            "left": left,
        }


def run(seconds: float, seed: int, console: Console) -> tuple[Soak, dict[str, int]]:
    """Play events on a fleet for this time; the soak, and what is there in the end."""
    random = Random(seed)
    columns = (
        *Progress.get_default_columns()[:3],
        TimeRemainingColumn(),
        TextColumn("{task.fields[seen]}"),
    )
    with (
        TemporaryDirectory() as folder,
        Postgres() as postgres,
        Cluster(postgres, resume=RESUME, auto_pause=AUTO_PAUSE) as cluster,
        Progress(*columns, console=console) as progress,
    ):
        soak = Soak(cluster, Path(folder), random)
        soak.set_up()
        task = progress.add_task("soak", total=seconds, seen="")
        began = time.monotonic()
        try:
            while (passed := time.monotonic() - began) < seconds:
                soak.listen(random.uniform(*EVERY))
                event = random.choice(["pause", "failover", "rotation", "kill"])
                getattr(soak, event)()
                soak.events[event] += 1
                seen = f"{len(soak.claims):,} units; " + ", ".join(
                    f"{count} {name}" for name, count in sorted(soak.events.items())
                )
                progress.update(task, completed=passed, seen=seen)
            soak.listen(RESUME + 2.0)
            progress.update(task, completed=seconds)
        finally:
            soak.end()
        return soak, soak.verdict()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0, help="how long the traffic lasts")
    parser.add_argument("--seed", type=int, help="draws the events; their moments depend on the machine")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    options = parser.parse_args()
    seed = SystemRandom().getrandbits(32) if options.seed is None else options.seed
    console = Console(stderr=True)
    console.print(f"seed {seed}")
    soak, found = run(options.seconds, seed, console)
    refused = Counter(claim for claim in soak.claims.values() if claim.startswith("not"))
    if options.json:
        print(json.dumps({"seed": seed, **found, "events": soak.events, "errors": refused}))
    else:
        print(", ".join(f"{count} {name}" for name, count in sorted(soak.events.items())))
        print(", ".join(f"{count:,} {name}" for name, count in found.items()))
        for claim, count in refused.most_common():
            print(f"{count:,} {claim}")
    if any(found[name] for name in ("lost", "doubled", "denied", "left")):
        sys.exit(1)


if __name__ == "__main__":
    main()
