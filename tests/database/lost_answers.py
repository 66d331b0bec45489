"""Answers to a COMMIT, or to BEGIN, that are lost, with the server's session ended or still open."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import psycopg

from lambdadb.drivers.psycopg.unit_of_work import NoticesCommit, UnitOfWork


class LostAnswers:
    """
    Loses the answers to the next COMMITs of units of work.

    Args:
        done: Whether the server is asked to commit at all.
        times: How many of them.
        then: Called after each, before the client hears of the loss.
    """

    def __init__(
        self, monkeypatch: Any, *, done: bool, times: int = 1, then: Callable[[], object] = lambda: None
    ) -> None:
        self._left = times
        self._held: list[int] = []
        original = UnitOfWork.commit

        def commit(unit: UnitOfWork, connection: Any) -> Any:
            if not self._left:
                yield from original(unit, connection)
                return
            self._left -= 1
            if done:
                yield from original(unit, connection)
            connection.commit_state = "sent"
            self._strand(connection.pgconn)
            then()
            raise psycopg.OperationalError("the answer was lost")

        monkeypatch.setattr(UnitOfWork, "commit", commit)

    @classmethod
    def of_begin(cls, monkeypatch: Any, *, times: int = 1) -> LostAnswers:
        """Lose the answers to the next first statements that are sent with BEGIN."""
        lost = cls(monkeypatch, done=False, times=0)
        original = UnitOfWork.learn
        left = [None] * times

        def learn(unit: UnitOfWork, connection: Any, answer: Any) -> None:
            if not left:
                original(unit, connection, answer)
                return
            left.pop()
            lost._strand(connection.pgconn)
            raise psycopg.OperationalError("the answer was lost")

        monkeypatch.setattr(UnitOfWork, "learn", learn)
        return lost

    @classmethod
    def of_statement(cls, monkeypatch: Any) -> LostAnswers:
        """Lose the answer to the next statement of a unit of work's cursor, which is carried out."""
        lost = cls(monkeypatch, done=False, times=0)
        original = NoticesCommit._check_results
        left = [None]

        def check_results(cursor: Any, results: Any) -> None:
            if left:
                left.pop()
                lost._strand(cursor.connection.pgconn)
                raise psycopg.OperationalError("the answer was lost")
            original(cursor, results)

        monkeypatch.setattr(NoticesCommit, "_check_results", check_results)
        return lost

    def _strand(self, pgconn: Any) -> None:
        """Close the client's end without a word: the server's session stays as it is."""
        self._held.append(os.dup(pgconn.socket))
        ours, theirs = socket.socketpair()
        with ours, theirs:
            os.dup2(ours.fileno(), pgconn.socket)
            pgconn.finish()

    def close(self) -> None:
        """End what was held open."""
        while self._held:
            os.close(self._held.pop())
