"""
1,000 rows of `vector(1536)` written: by pgvector's SQLAlchemy type as it is, in text, and on an engine
of lambdadb, in binary. Both on one embedded server, in turns; what the server holds is compared.

Then the share of nearest neighbours that an ivfflat index finds, made before the rows and after them.

    nox -s vectors -- --rounds 7
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time

import sqlalchemy
from pgvector.sqlalchemy import VECTOR
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sqlalchemy import Column, Connection, Engine, Integer, MetaData, func, insert, select, text

import lambdadb
from lambdadb.lab.postgres import Postgres

ROWS, DIMENSIONS = 1000, 1536
metadata = MetaData()
documents = sqlalchemy.Table(
    "document", metadata, Column("id", Integer, primary_key=True), Column("e", VECTOR(DIMENSIONS))
)

# For the index: rows around so many centers, as documents about so many subjects are.
POINTS, CENTERS, NEAREST, QUERIES = 20_000, 100, 10, 200
points = sqlalchemy.Table(
    "point", metadata, Column("id", Integer, primary_key=True), Column("e", VECTOR(16))
)
INDEX = text("CREATE INDEX point_e ON point USING ivfflat (e vector_l2_ops) WITH (lists = 100)")


def timed(engine: Engine, rows: list[dict[str, list[float]]]) -> tuple[float, str]:
    """Seconds to write all rows, and a checksum of what the server then holds."""
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE document"))
    with engine.connect() as connection:
        started = time.perf_counter()
        connection.execute(insert(documents), rows)
        connection.commit()
        seconds = time.perf_counter() - started
        held = "SELECT md5(string_agg(e::text, ' ' ORDER BY e)) FROM document"
        return seconds, str(connection.scalar(text(held)))


def recall(connection: Connection, *, index_first: bool) -> float:
    """The share of the nearest neighbours that the index finds."""
    rng = random.Random(1)
    centers = [[rng.gauss(0, 1) for _ in range(16)] for _ in range(CENTERS)]
    near = [[x + rng.gauss(0, 0.5) for x in rng.choice(centers)] for _ in range(POINTS + QUERIES)]
    connection.execute(text("DROP INDEX IF EXISTS point_e"))
    connection.execute(text("TRUNCATE point"))
    if index_first:
        connection.execute(INDEX)
    connection.execute(insert(points), [{"e": one} for one in near[:POINTS]])
    if not index_first:
        connection.execute(INDEX)
    connection.execute(text("ANALYZE point"))
    found = []
    for index_is_used in (False, True):
        connection.execute(text(f"SET LOCAL enable_seqscan = {'off' if index_is_used else 'on'}"))
        connection.execute(text(f"SET LOCAL enable_indexscan = {'on' if index_is_used else 'off'}"))
        by_distance = [points.c.e.l2_distance(one) for one in near[POINTS:]]
        queries = [select(points.c.id).order_by(far).limit(NEAREST) for far in by_distance]
        found.append([set(connection.scalars(query)) for query in queries])
    hits = sum(len(exact & by_index) for exact, by_index in zip(*found, strict=True))
    return hits / (QUERIES * NEAREST)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="how often each is measured, in turns")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    arguments = parser.parse_args()
    rows = [{"e": [random.gauss(0, 1) for _ in range(DIMENSIONS)]} for _ in range(ROWS)]
    with Postgres() as server:
        own, ours = sqlalchemy.create_engine(server.url()), lambdadb.create_engine(server.url())
        with own.begin() as connection:
            connection.execute(text("CREATE EXTENSION vector"))
        metadata.create_all(own)
        rounds = track(range(arguments.rounds), "measuring", console=Console(stderr=True))
        pairs = [(timed(own, rows), timed(ours, rows)) for _ in rounds]
        with ours.connect() as connection:
            assert connection.scalar(select(func.count()).select_from(documents)) == ROWS
            recalls = {
                "before the rows": recall(connection, index_first=True),
                "after the rows": recall(connection, index_first=False),
            }
        own.dispose()
        ours.dispose()
    if any(text_form[1] != binary[1] for text_form, binary in pairs):
        raise SystemExit("what was written in binary is not what was written in text")
    ratios = sorted(text_form[0] / binary[0] for text_form, binary in pairs)
    figure = {
        "text_seconds": statistics.median(text_form[0] for text_form, _ in pairs),
        "binary_seconds": statistics.median(binary[0] for _, binary in pairs),
        "times_as_fast": statistics.median(ratios),
        "lowest": ratios[0],
        "highest": ratios[-1],
    }
    if arguments.json:
        found = {"rows": ROWS, "dimensions": DIMENSIONS, "write": figure, "recall": recalls}
        print(json.dumps(found))
        return
    table = Table(title=f"{ROWS:,} rows of vector({DIMENSIONS}), {arguments.rounds} rounds in turns")
    for heading in ("", "text (pgvector)", "binary (lambdadb)", "times as fast", "lowest to highest"):
        table.add_column(heading, justify="right" if heading else "left")
    seconds = (f"{figure[form] * 1000:.0f} ms" for form in ("text_seconds", "binary_seconds"))
    spread = f"{figure['lowest']:.1f} to {figure['highest']:.1f}"
    table.add_row("write", *seconds, f"{figure['times_as_fast']:.1f}", spread)
    Console().print(table)
    table = Table(title=f"{NEAREST} nearest of {POINTS:,} rows by ivfflat, lists = 100, probes = 1")
    for heading in ("index made", "share found"):
        table.add_column(heading, justify="right")
    for when, share in recalls.items():
        table.add_row(when, f"{share:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
