"""
Every check of the project. `nox -l` lists them, `nox -s tests` is the one to run before a commit.

Offline, or to use what is installed already: `nox --no-venv -s tests`.
"""

from __future__ import annotations

import sys

import nox

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.error_on_missing_interpreters = False

PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def install(session: nox.Session, *packages: str) -> None:
    """Install into the session's environment; nothing to do where it has none of its own."""
    if session.virtualenv.venv_backend != "none":
        session.install(*packages)


def groups(*names: str) -> list[str]:
    """Development tools by the names of pyproject.toml's dependency groups."""
    return [package for name in names for package in nox.project.dependency_groups(PROJECT, name)]


PROJECT = nox.project.load_toml("pyproject.toml")


@nox.session(python=HERE)
def lint(session: nox.Session) -> None:
    """Style and obvious mistakes."""
    install(session, *groups("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(python=HERE)
def types(session: nox.Session) -> None:
    """mypy --strict on the package, the examples and the tests' typing cases."""
    install(session, ".[lab]", *groups("types", "test"))
    session.run("mypy")


@nox.session(python=HERE)
def tests(session: nox.Session) -> None:
    """Everything that needs neither Docker nor network, on the installed package."""
    install(session, ".[lab]", *groups("test"))
    session.run("pytest", *session.posargs)


@nox.session(python=PYTHONS)
@nox.parametrize("versions", ["newest", "lowest"])
def unit(session: nox.Session, versions: str) -> None:
    """The unit tests, on every Python found, with the newest and the lowest SQLAlchemy and psycopg."""
    install(session, ".[asyncio,binary]", *groups("test"))
    if versions == "lowest":
        install(session, *LOWEST)
    session.run("pytest", "tests/unit", "tests/test_layers.py", *session.posargs)


@nox.session(python=HERE)
def containers(session: nox.Session) -> None:
    """The database tests against a PostgreSQL container (LAMBDADB_POSTGRES_IMAGE), with Docker."""
    install(session, ".[lab]", *groups("test", "containers"))
    session.run("pytest", "tests/database", "--postgres", "container", *session.posargs)
