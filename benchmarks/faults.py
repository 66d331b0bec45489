"""
What becomes of a row when the connection of the transaction that inserts it is damaged.

Each client inserts one row per trial through a proxy that ends the conversation, at places drawn from
all message boundaries and all bytes of COMMIT and of its answer, in both directions; with a FIN,
with a RST, and with a crash of the server in the same moment. Then the server is asked how often the row
is there.

  lost     the client was told that the row is committed, and it is not there
  doubled  the row is there more than once
  denied   the client was told that it failed, and it is there: whoever tries again doubles it
  hung     no answer within the invocation's time
  doubt    the client was told that it cannot be known

The peers are plain SQLAlchemy in the forms that are common on Lambda, with the whole transaction once
more after an OperationalError, three times. All do the same work; a trial is never repeated.

    nox -s faults                     # some minutes; --places 0 for all places, an hour
    nox -s faults -- --json faults.json
    nox -s faults -- --engine mysql   # on a real MariaDB (Debian: mariadb-server); five to ten minutes,
                                      # since each of 400 crashes takes it a second
    nox -s faults -- --write          # renews the table in docs/transactions.md or docs/mysql.md
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
from collections import defaultdict
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from lambdadb.lab.faultproxy.fault_point import Action
from lambdadb.lab.faultproxy.fault_servers import SERVERS, EngineName
from lambdadb.lab.faultproxy.fault_sweep import Client, Trial, open_testbed, ours, peers, sweep

DOCS = Path(__file__).parents[1] / "docs"
PAGES: dict[EngineName, Path] = {"postgresql": DOCS / "transactions.md", "mysql": DOCS / "mysql.md"}
BEGIN, END = "<!-- begin: nox -s faults -- --write -->", "<!-- end -->"
# The rows of the page, by clients' names without the words for the event loop and the key.
LABELS = {
    "StaticPool, retry": "`StaticPool`, the transaction retried after an error",
    "QueuePool, pre-ping, retry": "`QueuePool` with pre-ping, the same",
    "lambdadb PerEnvironment": "`run_transaction`, `PerEnvironment()`",
    "lambdadb PerInvocation": "`run_transaction`, `PerInvocation()`",
}
HEADINGS = ("client", "places", "lost", "doubled", "denied", "hung", "in doubt")
MODES = [(Action.CLOSE, False), (Action.RESET, False), (Action.CLOSE, True)]


def run(engine: EngineName, console: Console, places: int | None) -> list[Trial]:
    """Every client in every mode, interleaved mode by mode on one server."""
    clients: list[Client] = [*peers(), *ours(), *ours(key=True)]
    trials = []
    with open_testbed(engine) as testbed, Progress(console=console) as progress:
        task = progress.add_task("sweeps", total=len(MODES) * len(clients))
        for action, crash in MODES:
            for client in clients:
                progress.update(task, description=f"{client.name}, {mode(action, crash)}")
                trials += list(sweep(testbed, client, action, crash=crash, sample=places))
                progress.advance(task)
    return trials


def mode(action: Action, crash: bool) -> str:
    """In one word."""
    return "crash" if crash else action.value


def table(trials: list[Trial]) -> Table:
    """Counts for each client."""
    shown = Table(title=f"{len(trials)} cuts")
    shown.add_column("client")
    for title in ("trials", "lost", "doubled", "denied", "hung", "doubt", "of these after a crash"):
        shown.add_column(title, justify="right")
    by_client = defaultdict(list)
    for trial in trials:
        by_client[trial.client].append(trial)
    for client, mine in by_client.items():
        after_crash = sum(trial.crashed and trial.claim == "in doubt" for trial in mine)
        counts = [*count(mine), after_crash]
        shown.add_row(client, *map(str, counts))
    return shown


def label(client: str) -> str:
    """The row of the page that a client belongs to."""
    if " key" in client:
        return "with a key, all four"
    return "the same two on an event loop" if " async" in client else LABELS[client]


def markdown(trials: list[Trial]) -> str:
    """The table of the page."""
    rows: dict[str, list[Trial]] = defaultdict(list)
    for trial in trials:
        rows[label(trial.client)].append(trial)
    lines = [HEADINGS, ("---",) * len(HEADINGS)]
    lines += [(name, *map(str, count(mine))) for name, mine in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def count(trials: list[Trial]) -> list[int]:
    """The columns of the tables."""
    return [
        len(trials),
        *(sum(getattr(trial, name) for trial in trials) for name in ("lost", "doubled", "denied")),
        *(sum(trial.claim == claim for trial in trials) for claim in ("hung", "in doubt")),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--engine", choices=sorted(SERVERS), default="postgresql")
    parser.add_argument("--places", type=int, default=40, help="for each client and kind of damage")
    parser.add_argument("--json", type=Path, help="write every trial to this file")
    parser.add_argument("--write", action="store_true", help="renew the table in the engine's page")
    chosen = parser.parse_args()
    logging.getLogger("lambdadb").setLevel(logging.ERROR)  # it warns of each lost answer
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    trials = run(chosen.engine, Console(stderr=True), chosen.places or None)
    if chosen.json:
        rows = [{**dataclasses.asdict(trial), "point": str(trial.point)} for trial in trials]
        chosen.json.write_text(json.dumps(rows, indent=1))
    if chosen.write:
        page = PAGES[chosen.engine]
        before, _, rest = page.read_text().partition(BEGIN)
        page.write_text(f"{before}{BEGIN}\n{markdown(trials)}\n{END}{rest.partition(END)[2]}")
    console = Console()
    Console(width=max(console.width, 120)).print(table(trials))


if __name__ == "__main__":
    main()
