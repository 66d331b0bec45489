"""A chat's messages in one table, their embeddings in another: stored once, and found by meaning."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from pgvector.sqlalchemy import Vector
from psycopg.errors import UniqueViolation
from sqlalchemy import ForeignKey, Index, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, sessionmaker

from lambdadb import run_transaction

DIMENSIONS = 1024
Embed = Callable[[str], Sequence[float]]


class Base(DeclarativeBase):
    pass


class Request(Base):
    """A row for each message that was stored: its key, and nothing else."""

    __tablename__ = "request"
    key: Mapped[str] = mapped_column(primary_key=True)


class Message(Base):
    """What a user or the assistant said. A user has many."""

    __tablename__ = "message"
    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(ForeignKey(Request.key), unique=True)
    user_id: Mapped[str] = mapped_column(index=True)
    role: Mapped[str]
    content: Mapped[str]
    embedding: Mapped[Embedding] = relationship()


class Embedding(Base):
    """A message's unit vector."""

    __tablename__ = "embedding"
    message_id: Mapped[int] = mapped_column(ForeignKey(Message.id, ondelete="CASCADE"), primary_key=True)
    vector: Mapped[list[float]] = mapped_column(Vector(DIMENSIONS))
    __table_args__ = (
        Index(
            "embedding_vector",
            "vector",
            postgresql_using="hnsw",
            postgresql_ops={"vector": "vector_l2_ops"},
        ),
    )


def normalize(vector: Sequence[float]) -> list[float]:
    """
    Return the vector with length 1, so that L2 distance orders as cosine distance does.

    Raises:
        ValueError: It has no direction.
    """
    length = math.hypot(*vector)
    if not (length > 0 and math.isfinite(length)):
        raise ValueError("A vector of zeros, or with infinite numbers, has no direction.")
    return [number / length for number in vector]


def remember(
    sessions: sessionmaker[Session],
    embed: Embed,
    *,
    key: str,
    user_id: str,
    content: str,
    role: str = "user",
    limit: int = 5,
) -> list[str]:
    """
    Store a message once, and return the user's other messages that are nearest to it.

    Args:
        key: Identifies the message among those of all users. A second one with it is not stored.
    """
    # Before the transaction: it takes long, and the transaction may run again.
    vector = normalize(embed(content))

    def find_and_append(session: Session) -> list[str]:
        found = find(session)
        message = Message(key=key, user_id=user_id, role=role, content=content)
        message.embedding = Embedding(vector=vector)
        session.add(message)
        return found

    def find(session: Session) -> list[str]:
        # The index gives the nearest of all users. It goes on until enough are this user's, for at most
        # hnsw.max_scan_tuples rows (pgvector 0.8).
        session.execute(text("SET LOCAL hnsw.iterative_scan = strict_order"))
        nearest = (
            select(Message.content)
            .join(Embedding)
            .where(Message.user_id == user_id, Message.key != key)
            .order_by(Embedding.vector.l2_distance(vector))
            .limit(limit)
        )
        return list(session.scalars(nearest))

    try:
        return run_transaction(sessions, find_and_append, idempotency_key=(Request.__table__.c.key, key))
    except IntegrityError as error:
        if not is_stored(error):
            raise
    return run_transaction(sessions, find)


def is_stored(error: IntegrityError) -> bool:
    """Whether the message was stored before, by an earlier delivery of it."""
    return isinstance(error.orig, UniqueViolation) and error.orig.diag.table_name == "request"
