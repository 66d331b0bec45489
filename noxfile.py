"""
Every check of the project. `nox` runs what a change must pass; `nox -l` lists the rest.

A session installs what it needs into an environment of its own. `nox --no-venv` takes what is
installed already. Arguments after `--` go to the session's command.
"""

from __future__ import annotations

import ctypes.util
import os
import shutil
import ssl
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["lint", "types", "tests"]

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)
# The newest Python that is here.
NEWEST = next((one for one in reversed(PYTHONS) if shutil.which(f"python{one}")), PYTHONS[-1])
# The lowest versions that pyproject.toml admits, where that differs from the newest.
LOWEST = [
    requirement.split(",")[0].replace(">=", "==").replace("psycopg", "psycopg[binary]")
    for requirement in PROJECT["project"]["dependencies"]
    if requirement.startswith(("sqlalchemy", "psycopg", "tenacity"))
]
STORE = ssl.get_default_verify_paths()
if STORE.cafile or STORE.capath:
    # pip trusts the authorities of the system, a company's among them. uv does so only if told.
    os.environ.setdefault("UV_SYSTEM_CERTS", "true")


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


@nox.session
def lint(session: nox.Session) -> None:
    """Style and obvious mistakes: ruff."""
    if session.virtualenv.venv_backend != "none":
        session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """mypy on everything and pyright on a user's project, both in strict mode."""
    install(session, ".[lab]", "test", "types")
    session.run("mypy")
    # basedpyright is pyright with its runtime in the wheel: it downloads nothing when it starts. Without
    # a Python it would look for one in .venv.
    python = session.run("python", "-c", "import sys; print(sys.executable)", silent=True)
    session.run("basedpyright", "--pythonpath", str(python).strip())


@nox.session(python=[PYTHONS[0], NEWEST])
def typing(session: nox.Session) -> None:
    """tests/typing beside an installed lambdadb, strict, on the oldest and the newest Python."""
    install(session, ".[all]", "types")
    project = Path(session.create_tmp()).resolve()
    shutil.copytree("tests/typing", project, dirs_exist_ok=True)
    # Away from the clone, so that no setting and no source of it is found.
    (project / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict", "include": ["*.py"]}')
    python = session.run("python", "-c", "import sys; print(sys.executable)", silent=True)
    with session.chdir(project):
        session.run("mypy", "--strict", "--config-file=", ".")
        session.run("basedpyright", "--pythonpath", str(python).strip())


@nox.session
def tests(session: nox.Session) -> None:
    """Every test that needs neither Docker nor network; most of them wait, so four at a time."""
    install(session, ".[lab]", "test")
    session.run("pytest", "-n", "4", "--dist", "worksteal", *session.posargs)


@nox.session
def unit(session: nox.Session) -> None:
    """Unit tests alone, in seconds: no server, no socket, virtual time."""
    install(session, ".[asyncio,binary]", "test")
    session.run("pytest", "tests/unit", "tests/test_layers.py", *session.posargs)


@nox.session
def testing(session: nox.Session) -> None:
    """A stranger's project: lambdadb and its pytest plugin alone, a first test, timed; then the rest."""
    install(session, ".[testing]")
    project = Path(session.create_tmp()).resolve()
    root = Path.cwd()
    for file in (root / "examples/orders.py", *(root / "examples/testing").glob("*.*")):
        shutil.copy(file, project)
    with session.chdir(project):
        began = time.monotonic()
        session.run("pytest", "test_orders.py")
        seconds = time.monotonic() - began
        session.log(f"The first test after the installation took {seconds:.1f} s.")
        if seconds > 10:
            session.warn("It should take less than 10 s on a quiet machine.")
        if session.virtualenv.venv_backend != "none":
            session.install("pytest-xdist")
        session.run("pytest", "-n", "2", *session.posargs)
        for file in (root / "examples/testing/metadata").glob("*.py"):
            shutil.copy(file, project)
        session.run("pytest", "test_orders.py")


@nox.session(venv_backend="none")
def dev(session: nox.Session) -> None:
    """Set up this environment for work on lambdadb: its tests, its tools, a check of each commit."""
    groups = nox.project.dependency_groups(PROJECT, "test", "lint", "types")
    session.run(
        sys.executable, "-m", "uv", "pip", "install", "--python", sys.executable, "-e", ".[lab]", *groups
    )
    session.run(sys.executable, "-m", "pre_commit", "install")


@nox.session(python=PYTHONS)
def pythons(session: nox.Session) -> None:
    """Unit tests on this Python, with the newest and the lowest SQLAlchemy and psycopg."""
    install(session, ".[asyncio,binary,mysql]", "test")
    session.run("pytest", "tests/unit", "tests/test_layers.py", *session.posargs)
    # The lowest psycopg has no wheel for Python 3.14.
    if session.virtualenv.venv_backend != "none" and session.python != "3.14":
        session.install(*LOWEST)
        session.run("pytest", "tests/unit", "tests/test_layers.py", *session.posargs)


@nox.session(python=[python for python in PYTHONS if python not in ("3.10", "3.11")])
def lifecycle(session: nox.Session) -> None:
    """SIGTERM, snapshots and forks on this Python; AWS's runtime client lets handlers run since 3.12."""
    install(session, ".[lab]", "test")
    session.run(
        "pytest",
        "-m",
        "",
        "tests/lab/test_lifecycle.py",
        "tests/lab/test_endurance.py",
        *session.posargs,
    )


@nox.session
def coverage(session: nox.Session) -> None:
    """Lines and branches of the core that the tests reach, in subprocesses too: at least 95 %."""
    install(session, ".[lab]", "test", "coverage")
    session.run("coverage", "erase")
    parts = ["unit", "contract", "database", "faults", "lab", "operate"]
    parts += ["test_cold_start.py", "test_docs.py"]
    paths = session.posargs or [f"tests/{part}" for part in parts]
    session.run("coverage", "run", "-m", "pytest", "-n", "4", "--dist", "worksteal", *paths)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session
def infra(session: nox.Session) -> None:
    """Terraform's own checks, its plan held to rules, and apply and destroy against moto's server."""
    if shutil.which("terraform") is None:
        session.skip("terraform is not on PATH")
    install(session, ".[lab]", "test")
    session.run("terraform", "fmt", "-check", "-diff", "-recursive", "infra", external=True)
    # Arguments for `terraform init`, such as the folder of the provider, are in TF_CLI_ARGS_init.
    session.run("pytest", "-m", "infra", "-rs", "tests/infra", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """The pages and an API reference from the docstrings, in build/docs; a warning is an error."""
    install(session, ".[asyncio,binary,otel]", "docs")
    command = ["sphinx-build", "--fail-on-warning", "--keep-going", "--nitpicky", "-c", "docs"]
    session.run(*command, "-d", "build/doctrees", ".", "build/docs", *session.posargs)


@nox.session
def links(session: nox.Session) -> None:
    """Links of the pages to other sites: needs the internet. `nox -s docs` checks all others."""
    install(session, ".[asyncio,binary,otel]", "docs")
    command = ["sphinx-build", "-b", "linkcheck", "-c", "docs", "-d", "build/doctrees"]
    session.run(*command, ".", "build/links", *session.posargs)


@nox.session
@nox.parametrize("versions", ["newest", "lowest"])
def dialect(session: nox.Session, versions: str) -> None:
    """SQLAlchemy's own suite for dialects, on its engines and on ours; a server's URL after --."""
    install(session, ".[lab]", "test")
    if versions == "lowest":
        if session.virtualenv.venv_backend == "none":
            session.skip("needs an environment of its own")
        session.install(*LOWEST)
    session.run("python", "dialect_suite/comparison.py", *session.posargs)


@nox.session
def mysql_dialect(session: nox.Session) -> None:
    """SQLAlchemy's suite for dialects on MariaDB, on its engine and on ours (Debian: mariadb-server)."""
    install(session, ".[lab]", "test")
    session.run("python", "dialect_suite/mysql_comparison.py", *session.posargs)


@nox.session
def data_api_dialect(session: nox.Session) -> None:
    """SQLAlchemy's suite for dialects over the Data API, beside a peer and psycopg; `-- --write`."""
    install(session, ".[lab]", "test")
    if session.virtualenv.venv_backend != "none":
        session.install("sqlalchemy-aurora-data-api")
    session.run("python", "dialect_suite/data_api_comparison.py", *session.posargs)


@nox.session
@nox.parametrize("versions", ["lowest", "newest", "pre-release", "pure Python"])
def matrix(session: nox.Session, versions: str) -> None:
    """Database tests on other SQLAlchemy and psycopg, and on psycopg without its C extension."""
    if session.virtualenv.venv_backend == "none":
        session.skip("needs an environment of its own")
    install(session, ".[lab]", "test")
    if versions == "lowest":
        session.install(*LOWEST)
    elif versions == "pre-release":
        session.install("--upgrade", "--pre", "sqlalchemy", "psycopg[binary]")
    elif versions == "pure Python" and not ctypes.util.find_library("pq"):
        session.error("psycopg's pure Python form loads the system's libpq (Debian: libpq5)")
    implementation = {"PSYCOPG_IMPL": "python"} if versions == "pure Python" else {}
    session.run("pytest", "-n", "2", "tests/database", *session.posargs, env=implementation)


@nox.session
def differences(session: nox.Session) -> None:
    """All 6,600 cases in which a connection does what one of SQLAlchemy and psycopg does."""
    install(session, ".[lab]", "test")
    every = {"LAMBDADB_DIFFERENCES": "all"}
    session.run("pytest", "-n", "2", "tests/database/test_differences.py", *session.posargs, env=every)


@nox.session
def mysql(session: nox.Session) -> None:
    """Every test on a real MariaDB, the long ones too; needs it installed (Debian: mariadb-server)."""
    install(session, ".[lab]", "test")
    # Tests are skipped without MariaDB. This fails instead, with the command that installs it.
    session.run("python", "-c", "from lambdadb.lab.mariadb import find_server; print(find_server())")
    every = ["-m", "sweep or not sweep", "-rs", "-n", "2", *session.posargs]
    session.run("pytest", "tests/contract", "-k", "mysql or asyncmy", *every)
    session.run("pytest", "tests/mysql", "tests/unit/drivers/pymysql", *every)
    session.run("pytest", "tests/operate/test_mysql.py", "tests/testing/test_mariadb.py", *every)
    lab = (
        "faults/test_mysql_sweep.py",
        "lab/aurora/test_mysql_cluster.py",
        "lab/test_mysql_round_trips.py",
    )
    session.run("pytest", *(f"tests/{path}" for path in lab), *every)
    session.run("pytest", "tests/lab/test_rotation.py", "-k", "mysql", *every)
    session.run("pytest", "tests/cli", "tests/test_docs.py", "-k", "mysql", *every)


@nox.session
@nox.parametrize("versions", ["theirs", "newest"])
def frameworks(session: nox.Session, versions: str) -> None:
    """FastAPI, Flask, Powertools and others, on the SQLAlchemy that all admit and on the newest."""
    if versions == "newest" and session.virtualenv.venv_backend == "none":
        session.skip("needs an environment of its own")
    install(session, ".[lab]", "test", "types", "frameworks")
    if versions == "newest":
        session.install("--no-deps", "--upgrade", "sqlalchemy")
    else:
        examples = sorted(map(str, Path("examples/frameworks").glob("*.py")))
        session.run("mypy", "--ignore-missing-imports", "--implicit-reexport", *examples)
    session.run("pytest", "-m", "frameworks", "-rs", "tests/frameworks", *session.posargs)


@nox.session
def containers(session: nox.Session) -> None:
    """Database tests against a PostgreSQL container of the image in LAMBDADB_POSTGRES_IMAGE."""
    install(session, ".[lab]", "test", "containers")
    session.run(
        "pytest", "-n", "2", "tests/database", "--lambdadb-postgres", "container", *session.posargs
    )


@nox.session
def image(session: nox.Session) -> None:
    """The cluster's container image, built and tried; needs Docker. Arguments go to docker build."""
    install(session, ".[binary]", "test")
    name = "lambdadb-cluster"
    build = ["docker", "build", "--file", "docker/Dockerfile", "--tag", name, *session.posargs, "."]
    session.run(*build, external=True)
    variables = {"LAMBDADB_CLUSTER_IMAGE": name}
    session.run("pytest", "-m", "image", "tests/testing/test_image.py", env=variables)


@nox.session
def bench(session: nox.Session) -> None:
    """The hot/cold experiment: `lambdadb bench`; arguments after -- are its own."""
    install(session, ".[lab]")
    session.run("lambdadb", "bench", *session.posargs)


@nox.session
def cloud(session: nox.Session) -> None:
    """The report of `lambdadb bench --on lambda` without AWS, in build/cloud: about four minutes."""
    benchmark(session, "test")


@nox.session
def resume(session: nox.Session) -> None:
    """Seconds lost after a resume, in each shape of failure, beside two common retry loops."""
    benchmark(session)


@nox.session
def fleet(session: nox.Session) -> None:
    """Back-off of fleets up to 10,000 environments, simulated, beside peers: about five minutes."""
    benchmark(session)


@nox.session
def schedules(session: nox.Session) -> None:
    """A million random fleets in virtual time: nobody lost, doubled or left waiting; about an hour."""
    benchmark(session)


@nox.session
def faults(session: nox.Session) -> None:
    """Rows lost, doubled, denied and in doubt when a connection is cut at every place, beside peers."""
    benchmark(session)


@nox.session
def data_api(session: nox.Session) -> None:
    """Rows lost and doubled over the Data API, beside sqlalchemy-aurora-data-api."""
    benchmark(session, "test", besides=["sqlalchemy-aurora-data-api"])


@nox.session
def data_api_cold_start(session: nox.Session) -> None:
    """The cold start over the Data API with lambdadb's HTTP client, httpx and boto3, and a peer."""
    benchmark(session, "test", besides=["sqlalchemy-aurora-data-api", "httpx"])


@nox.session
def sweep(session: nox.Session) -> None:
    """20,000 units of work damaged at random, none lost and none doubled; and the tests' full sweeps."""
    benchmark(session, "test")
    session.run("pytest", "-n", "4", "-m", "sweep", "--ignore", "tests/proxy")  # nox -s proxy has those


@nox.session
def soak(session: nox.Session) -> None:
    """Ten minutes of traffic, pauses, failovers, rotations and killed environments, at random."""
    benchmark(session)


@nox.session
def proxy(session: nox.Session) -> None:
    """Sweeps on both sides of pgbouncer; the database tests behind it and the emulated RDS Proxy."""
    if not any(shutil.which("pgbouncer", path=path) for path in (None, "/usr/sbin")):
        session.error("pgbouncer is not installed (Debian: apt-get install pgbouncer)")
    install(session, ".[lab]", "test")
    session.run("pytest", "-n", "2", "-m", "", "tests/proxy", *session.posargs)
    # The tests that see a difference are listed in tests/database/proxy_differences.py.
    for kind in ("pgbouncer", "rds-proxy"):
        session.run("pytest", "-n", "2", "tests/database", "--proxy", kind)


@nox.session
def newer_pgbouncer(session: nox.Session) -> None:
    """tests/proxy, less the sweeps, with a newer Debian's pgbouncer, unpacked beside the host's."""
    if missing := [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]:
        session.skip(f"{' and '.join(missing)} is missing: the packages are Debian's")
    release, *arguments = session.posargs or ["trixie"]
    install(session, ".[lab]", "test")
    with tempfile.TemporaryDirectory(prefix="pgbouncer-") as folder:
        Path(folder).chmod(0o755)  # the lab runs pgbouncer as another user if it is root
        session.run("python", "tools/debian_pgbouncer.py", release, folder)
        path = os.pathsep.join([f"{folder}/bin", os.environ["PATH"]])
        session.run("pytest", "-n", "2", "tests/proxy", *arguments, env={"PATH": path})


@nox.session
def proxy_clients(session: nox.Session) -> None:
    """200 clients over 5 sessions of the server: mixed transactions, errors and pins, beside peers."""
    install(session, ".[lab]")
    session.run("python", "benchmarks/proxy.py", *session.posargs)


@nox.session
def checkout(session: nox.Session) -> None:
    """Microseconds of a checkout and its return, beside SQLAlchemy's StaticPool."""
    benchmark(session)


@nox.session
def roots(session: nox.Session) -> None:
    """Milliseconds of a connect over TLS, with the roots of one region and with other files."""
    benchmark(session, "test")


@nox.session
def logins(session: nox.Session) -> None:
    """Round trips and processor time of a login, by kind of login and of TLS; needs Docker."""
    benchmark(session, "test", "containers")


@nox.session
def vectors(session: nox.Session) -> None:
    """1,000 rows of vector(1536) written and read, in text and in binary."""
    benchmark(session)


@nox.session
def cold_start(session: nox.Session) -> None:
    """What each adapter adds to a cold start, and what a login costs there, beside boto3's ways."""
    benchmark(session, "test")


@nox.session
def traces(session: nox.Session) -> None:
    """Microseconds that tracing adds to a warm invocation, beside X-Ray's own SDK."""
    benchmark(session, "test")


@nox.session
def noise(session: nox.Session) -> None:
    """Subsegments per invocation, beside X-Ray's own instrumentations, and pictures of traces."""
    benchmark(session, "test", besides=["sqlalchemy<2.1", "psycopg-pool"])  # theirs need both


@nox.session
def round_trips(session: nox.Session) -> None:
    """Round trips of every callable, counted on the wire; `-- --write` renews the page."""
    benchmark(session)


@nox.session
def mysql_round_trips(session: nox.Session) -> None:
    """The same on MySQL, beside SQLAlchemy's engine; needs MariaDB (Debian: mariadb-server)."""
    benchmark(session)


@nox.session
def mysql_async(session: nox.Session) -> None:
    """PyMySQL on an event loop beside asyncmy; needs MariaDB (Debian: mariadb-server)."""
    benchmark(session, besides=["asyncmy"])


@nox.session
def compare(session: nox.Session) -> None:
    """lambdadb beside what a function would use instead, in one run."""
    benchmark(session, besides=["psycopg_pool", "aws-advanced-python-wrapper"])


@nox.session
def advise(session: nox.Session) -> None:
    """`lambdadb advise` beside the benchmark and 200 real processes; `-- --write` renews its page."""
    benchmark(session)


@nox.session
def layer(session: nox.Session) -> None:
    """The cold start from the zip of `lambdadb layer`, beside a plain one; and a layer for arm64."""
    benchmark(session, besides=["pip"])
    output = f"{session.create_tmp()}/arm64.zip"
    session.run("lambdadb", "layer", "--arch", "arm64", "--asyncio", "--output", output)


@nox.session
def package(session: nox.Session) -> None:
    """The experiment's function.zip and its layers, in build/experiment; `-- --python 3.13` for 3.13."""
    install(session, ".[layer]")
    session.run("python", "tools/package.py", *session.posargs)
