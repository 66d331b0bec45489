"""Pictures of traces: one scale, and the attempt that logged in told from the others."""

from __future__ import annotations

from typing import Any

import pytest
from matplotlib.figure import Figure

from lambdadb.lab.xray import waterfall
from lambdadb.lab.xray.daemon import Node


def node(name: str, start: float, end: float, *children: Node, fault: str = "", **more: Any) -> Node:
    document = {"name": name, "start_time": start, "end_time": end, "annotations": {}, **more}
    if fault:
        document["annotations"] = {"fault": fault}
    return Node(document, list(children))


def connect(*children: Node, **more: Any) -> Node:
    return node("db@host", 0.0, 15.0, *children, annotations={"lambdadb": "connect"}, **more)


HELD = node("attempt", 0.0, 15.0)
LATE = node("attempt", 11.0, 15.001)
FAILED = node("attempt", 5.0, 11.0, fault="resuming")


@pytest.mark.parametrize("resumed", [[HELD, FAILED, LATE], [LATE, FAILED, HELD]])
def test_the_winner_of_a_connect(resumed: list[Node]) -> None:
    """It is the first without a fault to end; the attempt that it ended, and those before, are not."""
    inner = node("resume", 0.6, 15.0, *resumed)
    assert list(waterfall.winning_attempts([connect(inner)])) == [HELD]
    assert list(waterfall.winning_attempts([connect(inner, fault=True)])) == []


def test_winner_and_losers_look_different() -> None:
    """Another colour, and words that say it."""
    winners = {id(HELD)}
    colours = [waterfall.colour(one, winners) for one in (HELD, LATE, FAILED)]
    assert colours[0] not in colours[1:]
    words = [waterfall.label(0, one, winners) for one in (HELD, LATE, FAILED)]
    assert words == ["attempt (logged in)", "attempt (no longer needed)", "attempt (resuming)"]


def test_all_panels_have_one_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that is ten times as short looks ten times as short."""
    shown: list[Figure] = []
    save = Figure.savefig

    def keep(self: Figure, *arguments: Any, **options: Any) -> None:
        shown.append(self)
        save(self, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    waterfall.draw([("long", [node("a", 5.0, 5.1)]), ("short", [node("b", 1.0, 1.01)])])
    limits = [axes.get_xlim() for axes in shown[0].axes]
    assert limits[0] == limits[1]
