"""
How many subsegments one handler makes: the X-Ray SDK's instrumentations of SQLAlchemy, and XRay's.

Each row is a function of its own under AWS's runtime client. A listener on the daemon's port counts the
subsegments. The SDK's session and query classes do not run on SQLAlchemy 2.1, so this runs on 2.0.
There the SDK's XRaySessionMaker raises; SQLAlchemy's own sessionmaker takes the two classes instead.

    nox -s noise
    nox -s noise -- --images docs/images
"""

from __future__ import annotations

import argparse
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import ForeignKey, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

import lambdadb
from lambdadb.tracing import StatementFilter, trace
from lambdadb.tracing.xray import XRay

ROWS = {
    "query": "the SDK's XRaySession, XRayQuery",
    "core": 'the SDK\'s patch(["sqlalchemy_core"])',
    "psycopg": 'the SDK\'s patch(["psycopg"])',
    "none": "lambdadb: XRay()",
    "traced": 'lambdadb: XRay("traced")',
    "all": 'lambdadb: XRay("all")',
}
WARM = 15  # warm invocations, the shortest of which is shown
# A literal in a statement. It should not be in a trace.
CANARY = "canary"


class Base(DeclarativeBase):
    """The tables."""


class Customer(Base):
    """Who orders."""

    __tablename__ = "customer"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Order(Base):
    """What was ordered."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customer.id"))
    item: Mapped[str]


OURS: dict[str, StatementFilter] = {"none": "none", "traced": "traced", "all": "all"}


def query_customer(session: Session, name: str) -> Customer:
    """The part of the handler that somebody wants to see."""
    known = text(f"name <> '{CANARY}'")
    return (
        session.query(Customer).filter(Customer.name == name).filter(known).order_by(Customer.id).one()
    )


def make_handler(row: str) -> Any:
    """The handler with the instrumentation of a row."""
    url = os.environ["DATABASE_URL"]
    if row in OURS:
        engine = lambdadb.create_engine(url, tracer=XRay(OURS[row]))
        sessions = sessionmaker(engine)
        query = trace("query_customer")(query_customer)
    else:
        from aws_xray_sdk.core import patch, xray_recorder

        query = xray_recorder.capture("query_customer")(query_customer)
        classes = {}
        if row == "query":
            from aws_xray_sdk.ext.sqlalchemy.query import XRayQuery, XRaySession

            classes = {"class_": XRaySession, "query_cls": XRayQuery}
        else:
            patch(["sqlalchemy_core" if row == "core" else "psycopg"])
        sessions = sessionmaker(sqlalchemy.create_engine(url), **classes)

    def handler(event: dict[str, str], *_: object) -> int:
        with sessions() as session:
            customer = query(session, event["name"])
            session.add(Order(customer_id=customer.id, item=event["item"]))
            session.flush()
            of_customer = session.query(Order).filter(Order.customer_id == customer.id)
            newest = of_customer.order_by(Order.id.desc()).limit(5).all()
            session.commit()
            return len(newest)

    return handler


if "ROW" in os.environ:
    lambda_handler = make_handler(os.environ["ROW"])


def make_environment(row: str, url: str, daemon: Any) -> Any:
    from lambdadb.lab.environment import Environment

    return Environment(
        "noise.lambda_handler",
        function_name="orders",
        path=[Path(__file__).parent],
        environment={"ROW": row, "DATABASE_URL": url, "AWS_XRAY_DAEMON_ADDRESS": daemon.address},
    )


def record_traces(row: str, url: str, invocations: int) -> list[Any]:
    """The documents of each invocation of the function of a row."""
    from lambdadb.lab.xray.daemon import XRayDaemon

    event = {"name": "ann", "item": "tea"}
    received = []
    with XRayDaemon() as daemon, make_environment(row, url, daemon) as function:
        for _ in range(invocations):
            function.invoke(event)
            received.append(daemon.settle())
            daemon.documents.clear()
    return received


def duration(documents: list[dict[str, Any]]) -> float:
    """Seconds from the first subsegment's beginning to the last one's end."""
    begin = min(float(document["start_time"]) for document in documents)
    return max(float(document["end_time"]) for document in documents) - begin


def main() -> None:
    from lambdadb.lab.aurora import Cluster
    from lambdadb.lab.postgres import Postgres
    from lambdadb.lab.xray.daemon import flat, nested
    from lambdadb.lab.xray.waterfall import draw

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="folder for noise.png and resume.png")
    images: Path | None = parser.parse_args().images
    if images is not None and not (images.is_dir() and os.access(images, os.W_OK)):
        parser.error(f"--images: {images} is no folder that can be written to. Make it first.")
    with ExitStack() as stack:
        server = stack.enter_context(Postgres())
        engine = sqlalchemy.create_engine(server.url())
        Base.metadata.create_all(engine)
        with Session(engine) as session:
            session.add(Customer(name="ann"))
            session.commit()
        engine.dispose()
        print(f"SQLAlchemy {sqlalchemy.__version__}; subsegments of the first and of a warm invocation:")
        warm = {}
        for row, name in ROWS.items():
            first, *later = (list(flat(seen)) for seen in record_traces(row, server.url(), 1 + WARM))
            # The shortest: other work on the machine only makes one longer.
            warm[row] = min(later, key=duration)
            texts = [str(one.get("sql", {}).get("sanitized_query", "")) for one in warm[row]]
            print(
                f"{name:38} first {len(first):3}, warm {len(warm[row]):3}; "
                f"statements with their text {sum(map(bool, texts))}, "
                f"literal shown: {'yes' if CANARY in ' '.join(texts) else 'no'}"
            )
        if images is None:
            return
        cluster = stack.enter_context(Cluster(server, auto_pause=300.0, paused=True))
        (resumed,) = record_traces("all", cluster.url(), 1)
        shown = [
            (f"{ROWS[row]}: {len(warm[row])} subsegments", nested(warm[row])) for row in ("query", "all")
        ]
        (images / "noise.png").write_bytes(draw(shown))
        (images / "resume.png").write_bytes(
            draw([("the first invocation after a pause", nested(resumed))])
        )


if __name__ == "__main__":
    main()
