"""The Lambda layer, built by uv from wheels made of what is installed: no package index is asked."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result
from package import pack_code
from sqlalchemy import make_url

from lambdadb import layer
from lambdadb.cli.group import lambdadb as group
from lambdadb.lab.aurora import Cluster
from lambdadb.lab.environment import Environment
from lambdadb.lab.postgres import Postgres
from lambdadb.layer import Layer, LayerError, Target

# uv, a Python that compiles everything: minutes on a busy machine.
pytestmark = [pytest.mark.timeout(600), pytest.mark.sweep]
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
OTHER = next(version for version in reversed(layer.PYTHONS) if version != HERE)
PACKAGES = (
    "psycopg",
    "psycopg-binary",
    "sqlalchemy",
    "pgvector",
    "tenacity",
    "typing-extensions",
    "greenlet",
)
Invoke = Callable[..., Result]

IMPORT_ALL = """
import importlib, json, pkgutil, sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, sys.argv[1])
outcome = {}
def look(name):
    left_out = (
        *("lambdadb.lab", "lambdadb.cli", "lambdadb.testing", "lambdadb.layer", "lambdadb.__main__"),
        "greenlet.tests",
    )
    if name.startswith(left_out):
        return
    try:
        module = importlib.import_module(name)
    except BaseException as error:
        outcome[name] = type(error).__name__
        return
    outcome[name] = "imported"
    for found in pkgutil.iter_modules(getattr(module, "__path__", ())):
        look(f"{name}.{found.name}")
for name in ("sqlalchemy", "psycopg", "psycopg_binary", "pgvector", "tenacity", "lambdadb"):
    look(name)
print(json.dumps(outcome))
"""


def write_wheel(folder: Path, name: str, version: str, tags: str, files: Mapping[str, bytes]) -> None:
    notes = f"{name}-{version}.dist-info"
    files = {
        f"{notes}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        **files,
        f"{notes}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\n",
    }
    listed = "".join(f"{file},,\n" for file in [*files, f"{notes}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-{version}-{tags}.whl", "w") as wheel:
        for file, content in {**files, f"{notes}/RECORD": listed.encode()}.items():
            wheel.writestr(file, content)


def wheel_of(package: str, folder: Path) -> None:
    """The wheel that an installed package came from, with a tag for any machine."""
    installed = importlib.metadata.distribution(package)
    files = {
        str(file): file.locate().read_bytes()  # type: ignore[union-attr]
        for file in installed.files or []
        if file.parts[0] != ".." and file.suffix != ".pyc" and file.name not in ("RECORD", "WHEEL")
    }
    notes = next(file.split(".dist-info")[0] for file in files if ".dist-info/" in file)
    write_wheel(folder, *notes.rsplit("-", 1), "py3-none-any", files)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    Wheels of what a layer holds, and two packages more.

    `native` has a wheel for each of three platforms; `odd` has all that is to be left out, and a
    module that does not compile.
    """
    folder = tmp_path_factory.mktemp("index")
    for package in PACKAGES:
        wheel_of(package, folder)
    for platform in ("manylinux_2_28_aarch64", "manylinux_2_28_x86_64", "manylinux2014_x86_64"):
        write_wheel(folder, "native", "1", f"py3-none-{platform}", {"native.txt": platform.encode()})
    unwanted = ("odd/tests/test.py", "odd/x.pyx", "odd/x.c", "odd/x.h", "odd/x.pyi")
    odd = {**dict.fromkeys(unwanted, b""), "odd/__init__.py": b"", "odd/later.py": b"a syntax of later"}
    write_wheel(folder, "odd", "1", "py3-none-any", {**odd, "odd-1.data/scripts/odd": b"#!python\n"})
    return folder


@pytest.fixture(scope="module")
def uv(index: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """uv's settings for those wheels and nothing else."""
    cache = str(tmp_path_factory.mktemp("cache"))
    return {"UV_FIND_LINKS": str(index), "UV_NO_INDEX": "1", "UV_OFFLINE": "1", "UV_CACHE_DIR": cache}


@pytest.fixture(scope="module")
def built(uv: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Layer:
    """A layer for this Python, with `odd`."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in uv.items():
            patch.setenv(name, value)
        return layer.build(
            Target(python=HERE, architecture="x86_64"),
            tmp_path_factory.mktemp("built") / "layer.zip",
            requirements=["odd"],
            interpreter=Path(sys.executable),
            tell=lambda line: None,
        )


@pytest.fixture(scope="module")
def tree(built: Layer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layer as a function sees it: unzipped, read-only, all files of another date."""
    folder = tmp_path_factory.mktemp("opt")
    with zipfile.ZipFile(built.file) as archive:
        archive.extractall(folder)
    for path in folder.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
        path.chmod(0o555 if path.is_dir() else 0o444)
    return folder / "python"


def invoke(uv: Mapping[str, str], folder: Path, *arguments: str) -> Result:
    """Run `lambdadb layer`, which is to write into a folder."""
    output = ["--output", str(folder / "layer.zip")]
    return CliRunner(env=uv).invoke(group, ["layer", *output, *arguments])


@dataclass
class Run:
    """A run of the command, and where it wrote."""

    result: Result
    folder: Path


@pytest.fixture(scope="module")
def again(uv: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The command that builds the same layer as `built`."""
    folder = tmp_path_factory.mktemp("again")
    return Run(invoke(uv, folder, "--requirement", "odd"), folder)


@pytest.fixture(scope="module")
def other(uv: Mapping[str, str], built: Layer, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A layer for a Python that need not be there, above limits that are lower than Lambda's."""
    folder = tmp_path_factory.mktemp("other")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer, "ZIPPED_LIMIT", built.zipped // 2)
        patch.setattr(layer, "UNZIPPED_LIMIT", built.unzipped // 2)
        options = ("--asyncio", "--no-bytecode", "--json", "--python", OTHER)
        return Run(invoke(uv, folder, *options), folder)


@pytest.fixture
def lambdadb(uv: Mapping[str, str], tmp_path: Path) -> Invoke:
    """Run `lambdadb layer`, to write into an empty folder."""
    return lambda *arguments: invoke(uv, tmp_path, *arguments)


def python(
    program: str, *arguments: object, options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a program in a Python that has no package but those in the tree that it is told."""
    command = [sys.executable, "-I", "-S", *options, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=500)


def test_all_that_the_packages_offer_can_be_imported(tree: Path, index: Path, tmp_path: Path) -> None:
    """Each public module that can be imported from the whole wheels can be from the layer."""
    for wheel in index.glob("*-py3-none-any.whl"):
        if not wheel.name.startswith("greenlet"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(tmp_path)
    (tmp_path / "lambdadb").symlink_to(Path(layer.__file__).parent)
    whole = json.loads(python(IMPORT_ALL, tmp_path, options=("-B",)).stdout)
    ours = json.loads(python(IMPORT_ALL, tree, options=("-B",)).stdout)
    imported = {name for name, outcome in whole.items() if outcome == "imported"}
    assert {"sqlalchemy.orm", "sqlalchemy.testing", "lambdadb.connect", "pgvector.psycopg"} <= imported
    assert imported - {name for name, outcome in ours.items() if outcome == "imported"} == set()


def test_bytecode_is_used_whatever_the_dates(tree: Path) -> None:
    """Nothing is compiled from source, and nothing is written."""
    before = sorted(tree.rglob("*"))
    program = "import sys; sys.path.insert(0, sys.argv[1]); import sqlalchemy.orm, psycopg, lambdadb"
    said = python(program, tree, options=("-v",)).stderr
    assert f"matches {tree}/lambdadb/engine.py" in said
    assert f"code object from {tree}" not in said
    assert sorted(tree.rglob("*")) == before


def test_a_function_from_its_zip_and_this_layer(tree: Path, tmp_path: Path) -> None:
    """The experiment's own zip, with the layer's packages before the installed ones, makes its table."""
    pack_code(tmp_path / "function.zip")
    with zipfile.ZipFile(tmp_path / "function.zip") as archive:
        archive.extractall(tmp_path / "task")
    (tmp_path / "task" / "place.py").write_text(
        "import lambdadb, schema, psycopg_binary\n"
        "def lambda_handler(event, context):\n"
        "    schema.lambda_handler(event, context)\n"
        "    return [lambdadb.__file__, psycopg_binary.__file__]\n"
    )
    with Postgres() as server, Cluster(server, auto_pause=60.0, resume=1.0, paused=True) as cluster:
        url = make_url(cluster.url())
        variables = {
            "AURORA_HOST": str(url.host),
            "AURORA_PORT": str(url.port),
            "AURORA_USER": str(url.username),
            "PGPASSWORD": str(url.password or ""),
            "PGSSLMODE": "disable",
        }
        places = [tmp_path / "task", tree]
        with Environment(
            "place.lambda_handler", function_name="schema", path=places, environment=variables
        ) as environment:
            files = environment.invoke({})
    assert files == [str(tree / name / "__init__.py") for name in ("lambdadb", "psycopg_binary")]


@pytest.mark.parametrize(("store", "told"), [("/ca.pem", {"UV_SYSTEM_CERTS": "true"}), (None, {})])
def test_authorities_of_the_system(
    store: str | None, told: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """uv trusts them as pip does, where there are some, unless its user has said otherwise."""
    monkeypatch.setattr(
        layer.ssl, "get_default_verify_paths", lambda: SimpleNamespace(cafile=store, capath=None)
    )
    assert layer.trust_system({"A": "b"}) == {"A": "b", **told}
    assert layer.trust_system({"UV_SYSTEM_CERTS": "false"}) == {"UV_SYSTEM_CERTS": "false"}


def test_same_packages_same_bytes(built: Layer, again: Run) -> None:
    """The time and the folder leave no trace in the file."""
    assert again.result.exit_code == 0, again.result.output
    assert (again.folder / "layer.zip").read_bytes() == built.file.read_bytes()


def test_the_table(again: Run) -> None:
    """Packages with versions, both limits, and the command that publishes it; progress on stderr."""
    shown = again.result.stdout
    version = re.escape(importlib.metadata.version("psycopg-binary"))
    assert re.search(rf"psycopg-binary +│ {version}", shown)
    assert "250.0 MB" in shown
    assert "50.0 MB" in shown
    assert "Modules without bytecode: 1" in shown
    assert f"--zip-file fileb://{again.folder}/layer.zip" in shown
    assert "installing for Python" in again.result.stderr
    assert "installing" not in shown


def test_what_no_function_imports_is_left_out(tree: Path) -> None:
    """No lab, tests, C sources, stubs, scripts and notes of the installer; what is listed is there."""
    files = {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()}
    odd = {file for file in files if file.startswith("odd")}
    cached = f"odd/__pycache__/__init__.{sys.implementation.cache_tag}.pyc"
    notes = {f"odd-1.dist-info/{name}" for name in ("METADATA", "RECORD", "WHEEL")}
    assert odd == {"odd/__init__.py", "odd/later.py", cached, *notes}
    unwanted = ("bin/", "include/", "lambdadb/lab/", "lambdadb/cli/", "lambdadb/layer", ".")
    assert not [file for file in files if file.startswith(unwanted)]
    assert "lambdadb/roots/eu-west-1.pem" in files
    packages = list(importlib.metadata.distributions(path=[str(tree)]))
    assert all(str(file) in files for package in packages for file in package.files or [])
    versions = {package.name: package.version for package in packages if package.name != "odd"}
    assert versions == {name: importlib.metadata.version(name) for name in versions}
    assert {"sqlalchemy-lambdadb", "SQLAlchemy"} <= versions.keys()


def test_licences_are_in_it(tree: Path) -> None:
    """lambdadb's own licence comes with it, as its terms want, and psycopg's."""
    (own,) = tree.glob("sqlalchemy_lambdadb-*.dist-info/licenses/LICENSE")
    assert own.read_text() == (Path(__file__).parents[2] / "LICENSE").read_text()
    assert list(tree.glob("psycopg-*.dist-info/**/LICENSE*"))


def test_the_version_in_a_layer(tree: Path) -> None:
    """`lambdadb.__version__` and importlib.metadata work in a function."""
    program = "import sys; sys.path.insert(0, sys.argv[1])\nimport lambdadb; print(lambdadb.__version__)"
    assert python(program, tree).stdout.strip() == importlib.metadata.version("sqlalchemy-lambdadb")


def test_sizes_add_up(built: Layer, tree: Path) -> None:
    """What is reported is what there is."""
    total = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file())
    assert built.unzipped == total == sum(package.size for package in built.packages)
    assert built.zipped == built.file.stat().st_size
    assert {"sqlalchemy-lambdadb", "odd", "psycopg-binary"} <= {
        package.name for package in built.packages
    }


def test_a_module_that_does_not_compile_stays_as_it_is(built: Layer) -> None:
    """It is named, and stops nothing."""
    assert built.uncompiled == ["odd/later.py"]


@pytest.mark.parametrize(
    ("version", "architecture", "wheel"),
    [
        ("3.11", "x86_64", "manylinux2014_x86_64"),
        ("3.12", "x86_64", "manylinux_2_28_x86_64"),
        ("3.14", "arm64", "manylinux_2_28_aarch64"),
    ],
)
def test_wheels_are_the_runtimes(
    version: str,
    architecture: str,
    wheel: str,
    uv: Mapping[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Amazon Linux 2 up to Python 3.11, Amazon Linux 2023 from 3.12 on, of either architecture."""
    for name, value in uv.items():
        monkeypatch.setenv(name, value)
    layer.install(["native"], Target(python=version, architecture=architecture), tmp_path)
    assert (tmp_path / "native.txt").read_text() == wheel


def test_a_runtime_without_wheels(lambdadb: Invoke, tmp_path: Path) -> None:
    """uv's own words, exit code 2, and no file."""
    done = lambdadb("--python", "3.11", "--arch", "arm64", "--no-bytecode", "--requirement", "native")
    assert done.exit_code == 2
    assert "native" in done.output
    assert "manylinux_2_17" in done.output
    assert list(tmp_path.iterdir()) == []


def test_greenlet_and_no_bytecode_on_demand(other: Run) -> None:
    """With --asyncio and --no-bytecode; --json has all the facts."""
    facts = json.loads(other.result.stdout)
    assert "greenlet" in {package["name"] for package in facts["packages"]}
    assert "lambdadb/engine.py" in facts["uncompiled"]
    assert f"--compatible-runtimes python{OTHER}" in facts["publish"]
    with zipfile.ZipFile(other.folder / "layer.zip") as archive:
        assert not [name for name in archive.namelist() if name.endswith(".pyc")]


def test_limits_of_lambda(other: Run, built: Layer) -> None:
    """Above one the layer is written, the way out is said, and the exit code is 1."""
    assert built.problems == []
    assert other.result.exit_code == 1
    assert "S3Bucket" in other.result.stderr
    assert "container image" in other.result.stderr
    assert len(json.loads(other.result.stdout)["problems"]) == 2


def test_extras_are_asked_for_by_name() -> None:
    """The layer requires what lambdadb does, with those extras and no others."""
    own = list(layer.own_requirements(["binary"]))
    assert "psycopg[binary]" in own
    assert any(requirement.startswith("tenacity") for requirement in own)
    assert not [requirement for requirement in own if requirement.startswith(("sqlalchemy[", "rich"))]


def test_no_python_of_that_version(
    lambdadb: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never a layer without bytecode by accident: three remedies are named, and nothing is written."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("PYENV_ROOT", "/nowhere")
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", "/nowhere")
    done = lambdadb("--python", OTHER)
    assert done.exit_code == 2
    for remedy in (f"uv python install {OTHER}", "--interpreter PATH", "--no-bytecode"):
        assert remedy in done.output
    assert list(tmp_path.iterdir()) == []


def test_an_interpreter_of_another_version(lambdadb: Invoke) -> None:
    """Its bytecode would be ignored in the runtime, so it is refused."""
    done = lambdadb("--python", OTHER, "--interpreter", sys.executable)
    assert done.exit_code == 2
    assert f"is not Python {OTHER}" in done.output


def test_nothing_compiles(tmp_path: Path) -> None:
    """An interpreter that fails is an error, not a layer without bytecode."""
    (tmp_path / "bad.py").write_text("a syntax of later")
    target = Target(python=HERE, architecture="x86_64")
    with pytest.raises(LayerError, match="compiled no module"):
        layer.compile_all(tmp_path, target, Path(sys.executable))


def test_uv_is_missing(lambdadb: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said how to install it."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(layer.sysconfig, "get_path", lambda name: "/nowhere")
    done = lambdadb("--no-bytecode")
    assert done.exit_code == 2
    assert "pip install uv" in done.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--output", "missing/layer.zip"], "no folder missing"),
        (["--output", "/proc/layer.zip"], "cannot be written to"),
        (["--output", "missing/layer.zip", "--python", OTHER], "no folder missing"),
        (["--no-bytecode", "--interpreter", sys.executable], "leave out one"),
        (["--python", "2.7"], "2.7"),
    ],
)
def test_options_that_cannot_work(arguments: list[str], said: str, lambdadb: Invoke) -> None:
    """Refused before anything is installed."""
    done = lambdadb(*arguments)
    assert done.exit_code == 2
    assert said in done.output
