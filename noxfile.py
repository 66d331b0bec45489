"""
Every check of the project. `nox` runs what a change must pass; `nox -l` lists the rest.

Into an environment of its own each, or with `nox --no-venv` into what is installed already.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["lint", "types", "unit", "tests"]

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
# The lowest versions that pyproject.toml admits, where that differs from the newest.
LOWEST = [
    requirement.replace(">=", "==")
    for requirement in PROJECT["project"]["dependencies"]
    if requirement.startswith(("sqlalchemy", "psycopg", "tenacity"))
]


def install(session: nox.Session, package: str, *groups: str) -> None:
    """The package and development tools by the names of pyproject.toml's dependency groups."""
    if session.virtualenv.venv_backend != "none":
        session.install(package, *nox.project.dependency_groups(PROJECT, *groups))


def benchmark(session: nox.Session, *groups: str, besides: Sequence[str] = ()) -> None:
    """Run the session's file in benchmarks/, with the lab, these groups, and packages besides."""
    install(session, ".[lab]", *groups)
    if besides and session.virtualenv.venv_backend != "none":
        session.install(*besides)
    session.run("python", f"benchmarks/{session.name}.py", *session.posargs)


@nox.session(python=HERE)
def lint(session: nox.Session) -> None:
    """Style and obvious mistakes."""
    if session.virtualenv.venv_backend != "none":
        session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(python=HERE)
def types(session: nox.Session) -> None:
    """mypy --strict."""
    install(session, ".[lab]", "test", "types")
    session.run("mypy")


@nox.session(python=PYTHONS)
@nox.parametrize("versions", ["newest", "lowest"])
def unit(session: nox.Session, versions: str) -> None:
    """Unit tests on every Python found, with the newest and the lowest SQLAlchemy and psycopg."""
    install(session, ".[asyncio,binary]", "test")
    if versions == "lowest" and session.virtualenv.venv_backend != "none":
        if session.python == "3.14":
            session.skip("the lowest psycopg has no wheel for it")
        session.install(*[r.replace("psycopg", "psycopg[binary]") for r in LOWEST])
    session.run("pytest", "tests/unit", "tests/test_layers.py", *session.posargs)


@nox.session(python=HERE)
def tests(session: nox.Session) -> None:
    """Everything that needs neither Docker nor network; most of it waits, so four at a time."""
    install(session, ".[lab]", "test")
    session.run("pytest", "-n", "4", "--dist", "worksteal", *session.posargs)


@nox.session(python=HERE)
@nox.parametrize("versions", ["newest", "lowest"])
def dialect(session: nox.Session, versions: str) -> None:
    """SQLAlchemy's own suite for dialects, on its engines and on ours; a server's URL after --."""
    install(session, ".[lab]", "test")
    if versions == "lowest":
        if session.virtualenv.venv_backend == "none":
            session.skip("needs an environment of its own")
        session.install(*[r.replace("psycopg", "psycopg[binary]") for r in LOWEST])
    session.run("python", "dialect_suite/comparison.py", *session.posargs)


@nox.session(python=HERE)
def containers(session: nox.Session) -> None:
    """Database tests against a PostgreSQL container of the image in LAMBDADB_POSTGRES_IMAGE."""
    install(session, ".[lab]", "test", "containers")
    session.run("pytest", "-n", "2", "tests/database", "--postgres", "container", *session.posargs)


@nox.session(python=HERE)
def bench(session: nox.Session) -> None:
    """The hot/cold experiment: `lambdadb bench`; arguments after -- are its own."""
    install(session, ".[lab]")
    session.run("lambdadb", "bench", *session.posargs)


@nox.session(python=HERE)
def resume(session: nox.Session) -> None:
    """Seconds lost after a resume, in each shape of failure, beside two common retry loops."""
    benchmark(session)


@nox.session(python=HERE)
def faults(session: nox.Session) -> None:
    """Rows lost, doubled, denied and in doubt when a connection is cut at every place, beside peers."""
    benchmark(session)


@nox.session(python=HERE)
def sweep(session: nox.Session) -> None:
    """20,000 units of work damaged at random, none lost and none doubled; and the tests' full sweeps."""
    benchmark(session, "test")
    session.run("pytest", "-m", "sweep", "tests/faults", "tests/database")


@nox.session(python=HERE)
def checkout(session: nox.Session) -> None:
    """Microseconds of a checkout and its return, beside SQLAlchemy's StaticPool."""
    benchmark(session)


@nox.session(python=HERE)
def roots(session: nox.Session) -> None:
    """Milliseconds of a connect over TLS, with the roots of one region and with other files."""
    benchmark(session, "test")


@nox.session(python=HERE)
def logins(session: nox.Session) -> None:
    """Round trips and processor time of a login, by kind of login and of TLS; needs Docker."""
    benchmark(session, "test", "containers")


@nox.session(python=HERE)
def vectors(session: nox.Session) -> None:
    """1,000 rows of vector(1536) written and read, in text and in binary."""
    benchmark(session)


@nox.session(python=HERE)
def cold_start(session: nox.Session) -> None:
    """What each adapter adds to a cold start, and what a login costs there, beside boto3's ways."""
    benchmark(session, "test")


@nox.session(python=HERE)
def traces(session: nox.Session) -> None:
    """Microseconds that tracing adds to a warm invocation, beside X-Ray's own SDK."""
    benchmark(session, "test")


@nox.session(python=HERE)
def noise(session: nox.Session) -> None:
    """Subsegments per invocation, beside X-Ray's own instrumentations, and pictures of traces."""
    benchmark(session, "test", besides=["sqlalchemy<2.1", "psycopg-pool"])  # theirs need both


@nox.session(python=HERE)
def round_trips(session: nox.Session) -> None:
    """Round trips of every callable, counted on the wire; `-- --write` renews the page."""
    benchmark(session)


@nox.session(python=HERE)
def compare(session: nox.Session) -> None:
    """lambdadb beside what a function would use instead, in one run."""
    benchmark(session, besides=["psycopg_pool", "aws-advanced-python-wrapper"])


@nox.session(python=HERE)
def layer(session: nox.Session) -> None:
    """The cold start from the zip of `lambdadb layer`, beside a plain one; and a layer for arm64."""
    benchmark(session, besides=["pip"])
    output = f"{session.create_tmp()}/arm64.zip"
    session.run("lambdadb", "layer", "--arch", "arm64", "--asyncio", "--output", output)
