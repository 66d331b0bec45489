"""The chat history: messages stored once and found by meaning, with embeddings made up here."""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import time
from collections.abc import Iterator
from operator import mul
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import sessionmaker

import lambdadb
from lambdadb.lab.aurora import Cluster
from lambdadb.lab.environment import Environment

from ..lab.aws import KEYS, Request, scripted
from .conftest import Database

FOLDER = Path(__file__).parents[2] / "examples" / "chat_history"


@pytest.fixture(scope="module")
def history() -> Iterator[Any]:
    """The example's module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module("history")


@pytest.fixture
def tables(history: Any, database: Database) -> Iterator[sessionmaker]:
    """The example's tables, and sessions of an engine."""
    database.query("CREATE EXTENSION vector")
    engine = lambdadb.create_engine(database.url)
    history.Base.metadata.create_all(engine)
    yield sessionmaker(engine)
    engine.dispose()


def embed(content: str) -> list[float]:
    """A vector in which each word has a direction of its own: texts with common words are near."""
    vector = [0.0] * 1024
    for word in content.lower().split():
        random = Random(hashlib.sha256(word.encode()).digest())
        vector = [number + random.gauss(0, 1) for number in vector]
    return vector


def stored(database: Database) -> list[tuple[Any, ...]]:
    return database.query(
        "SELECT user_id, content FROM message JOIN embedding ON message_id = id ORDER BY id"
    )


def test_a_conversation_on_a_sleeping_cluster(tables: sessionmaker, database: Database) -> None:
    """
    A user's second message is stored, and the nearest earlier ones come with it.

    A message that is delivered again is answered, and is not stored again. Another user's
    messages are not shown, and no session is left.
    """
    asked: list[dict[str, Any]] = []

    def answer(request: Request) -> None:
        asked.append(json.loads(request.body))
        request.give(200, json.dumps({"embedding": embed(asked[-1]["inputText"])}))

    contents = [
        "green tea from japan",
        "the weather in rome",
        "black tea with milk",
        "which tea is green",
    ]
    messages = [{"key": f"k{n}", "user_id": "ann", "content": c} for n, c in enumerate(contents)]
    with (
        scripted(answer) as port,
        Cluster(database.server, auto_pause=60.0, resume=0.5, paused=True) as cluster,
        Environment(
            "chat.lambda_handler",
            function_name="chat",
            path=[FOLDER],
            environment={
                **KEYS,
                "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": f"http://127.0.0.1:{port}",
                "DATABASE_URL": cluster.url(database.name),
            },
        ) as chat,
    ):
        answers = [chat.invoke(message) for message in messages]
        again = chat.invoke(messages[-1])
        other = chat.invoke({"key": "k9", "user_id": "bob", "content": "green tea"})
        end = time.monotonic() + 30
        while cluster.sessions():
            assert time.monotonic() < end
            time.sleep(0.01)
    assert answers[0] == {"earlier": []}
    nearest = ["green tea from japan", "black tea with milk", "the weather in rome"]
    assert answers[-1] == again == {"earlier": nearest}
    assert other == {"earlier": []}
    assert stored(database) == [*(("ann", content) for content in contents), ("bob", "green tea")]
    assert [(one["dimensions"], one["normalize"]) for one in asked] == [(1024, True)] * 6


def test_l2_of_unit_vectors_orders_as_cosine(history: Any) -> None:
    """|a - b|² is 2 - 2·cos for vectors of length 1."""
    random = Random(1)
    query, *others = [[random.uniform(-9, 9) for _ in range(8)] for _ in range(200)]
    unit = history.normalize(query)
    by_l2 = sorted(others, key=lambda one: math.dist(unit, history.normalize(one)))
    by_cosine = sorted(others, key=lambda one: -sum(map(mul, query, one)) / math.hypot(*one))
    assert by_l2 == by_cosine
    assert math.isclose(math.hypot(*unit), 1)


@pytest.mark.parametrize("vector", [[0.0, 0.0], [math.inf, 1.0], [math.nan, 1.0]])
def test_a_vector_without_a_direction(vector: list[float], history: Any) -> None:
    """It is refused, and not stored as something that is near to nothing."""
    with pytest.raises(ValueError, match="no direction"):
        history.normalize(vector)


def test_an_error_that_is_no_second_delivery(
    history: Any, tables: sessionmaker, database: Database
) -> None:
    """It reaches the caller, and nothing is stored."""
    database.query("ALTER TABLE message ADD CHECK (content <> '')")
    with pytest.raises(IntegrityError, match="message_content_check"):
        history.remember(tables, lambda _: embed("x"), key="k", user_id="ann", content="")
    assert database.query("SELECT FROM request") == []


@pytest.mark.sweep
def test_a_user_whose_messages_are_far_from_the_question(
    history: Any, tables: sessionmaker, database: Database
) -> None:
    """By the index hundreds of others are nearer: this user's are found all the same."""
    random = Random(2)

    def near(_: str) -> list[float]:
        return [1.0 + random.gauss(0, 0.01) for _ in range(1024)]

    for number in range(300):
        history.remember(tables, near, key=f"o{number}", user_id="others", content="near")
    for number in range(5):
        history.remember(tables, embed, key=f"a{number}", user_id="ann", content=f"far {number}")
    database.query("DROP INDEX ix_message_user_id")
    for setting in ("enable_seqscan", "enable_sort"):
        database.query(f"ALTER DATABASE {database.name} SET {setting} = off")
    tables.kw["bind"].dispose()
    found = history.remember(tables, near, key="q", user_id="ann", content="question")
    assert sorted(found) == [f"far {number}" for number in range(5)]
    explain = (
        "EXPLAIN SELECT content FROM message JOIN embedding ON id = message_id WHERE user_id = 'ann' "
        "ORDER BY vector <-> (SELECT vector FROM embedding LIMIT 1) LIMIT 5"
    )
    with tables() as session:
        plan = "\n".join(session.scalars(text(explain)))
    assert "embedding_vector" in plan
