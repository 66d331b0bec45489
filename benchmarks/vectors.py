"""
1,000 rows of `vector(1536)` written and read: pgvector's SQLAlchemy type as it is, in text, and on an
engine of lambdadb, in binary. Both on one embedded server, in turns; the values read are compared.

    nox -s vectors -- --rounds 7
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import struct
import time

import sqlalchemy
from pgvector.sqlalchemy import VECTOR
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sqlalchemy import Column, Engine, Integer, MetaData, insert, select, text

import lambdadb
from lambdadb.lab.postgres import Postgres

ROWS, DIMENSIONS = 1000, 1536
metadata = MetaData()
documents = sqlalchemy.Table(
    "document", metadata, Column("id", Integer, primary_key=True), Column("e", VECTOR(DIMENSIONS))
)


def timed(engine: Engine, rows: list[dict[str, list[float]]]) -> dict[str, float]:
    """Seconds to write and to read all rows; stops if what is read is not what was written."""
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE document"))
    with engine.connect() as connection:
        started = time.perf_counter()
        connection.execute(insert(documents), rows)
        connection.commit()
        written = time.perf_counter()
        found = connection.execute(select(documents.c.e).order_by(documents.c.id)).all()
        read = time.perf_counter()
    single = struct.Struct(f"{DIMENSIONS}f")
    for row, (vector,) in zip(rows, found, strict=True):
        if single.pack(*row["e"]) != single.pack(*vector):
            raise SystemExit("a vector that was read is not the one that was written")
    return {"write": written - started, "read": read - written}


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
        own.dispose()
        ours.dispose()
    figures = {}
    for what in ("write", "read"):
        ratios = sorted(text_form[what] / binary[what] for text_form, binary in pairs)
        figures[what] = {
            "text_seconds": statistics.median(text_form[what] for text_form, _ in pairs),
            "binary_seconds": statistics.median(binary[what] for _, binary in pairs),
            "times_as_fast": statistics.median(ratios),
            "lowest": ratios[0],
            "highest": ratios[-1],
        }
    if arguments.json:
        print(json.dumps({"rows": ROWS, "dimensions": DIMENSIONS, **figures}))
        return
    table = Table(title=f"{ROWS:,} rows of vector({DIMENSIONS}), {arguments.rounds} rounds in turns")
    for heading in ("", "text (pgvector)", "binary (lambdadb)", "times as fast", "lowest to highest"):
        table.add_column(heading, justify="right" if heading else "left")
    for what, figure in figures.items():
        seconds = (f"{figure[form] * 1000:.0f} ms" for form in ("text_seconds", "binary_seconds"))
        spread = f"{figure['lowest']:.1f} to {figure['highest']:.1f}"
        table.add_row(what, *seconds, f"{figure['times_as_fast']:.1f}", spread)
    Console().print(table)


if __name__ == "__main__":
    main()
