"""
The Lambda layer: all that a function on Aurora imports, in one zip with bytecode that stays valid.

A layer is mounted read-only. Where its bytecode is missing, or looks older than its source, Python
compiles every module anew at each cold start and cannot keep the result.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import ssl
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import source_from_cache
from pathlib import Path, PurePosixPath

import lambdadb
from lambdadb.extras import install_command

DISTRIBUTION = "sqlalchemy-lambdadb"
LICENCE = "licenses/LICENSE"
# Parts of lambdadb that are for a developer's machine.
DEVELOPERS = ("lab", "cli", "testing", "layer.py", "__main__.py")
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
# Lambda's names of the architectures, and those of wheels.
ARCHITECTURES = {"x86_64": "x86_64", "arm64": "aarch64"}
# Lambda Developer Guide, "Lambda quotas". The API counts in MiB: it refuses a request of more than
# 69,905,067 bytes, which is 50 MiB in base64, and 262,144,000 bytes unzipped.
ZIPPED_LIMIT, UNZIPPED_LIMIT = 50 * 2**20, 250 * 2**20
# Where Lambda unzips a layer; its `python` is on every function's path.
MOUNT = "/opt/"
STEP_TIMEOUT = 600.0  # seconds; the slowest is a download

# What no function imports: scripts and headers beside the packages, tests, sources of C extensions
# and stubs; and what an installer notes about the machine that it ran on.
SCRIPTS = ("bin", "include", ".lock")
SOURCES = {".c", ".cpp", ".h", ".hpp", ".pxd", ".pyi", ".pyx"}
NOTES = {"INSTALLER", "REQUESTED", "direct_url.json", "uv_build.json", "uv_cache.json"}


class LayerError(Exception):
    """The layer could not be built; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """The runtime that a layer is for: a Python version such as `3.13`, and Lambda's architecture."""

    python: str
    architecture: str

    @property
    def platform(self) -> str:
        """
        The wheels that run there, in uv's words.

        Runtimes since Python 3.12 are Amazon Linux 2023 with glibc 2.34, those before it are Amazon
        Linux 2 with glibc 2.26 (Lambda Developer Guide, "Lambda runtimes"); uv knows no tag between
        2.17 and 2.28.
        """
        glibc = "2_34" if PYTHONS.index(self.python) >= PYTHONS.index("3.12") else "2_17"
        return f"{ARCHITECTURES[self.architecture]}-manylinux_{glibc}"

    @property
    def tag(self) -> str:
        """What CPython of this version has in the names of its bytecode files."""
        return f"cpython-{self.python.replace('.', '')}"


@dataclass(frozen=True, kw_only=True)
class Package:
    """One of a layer's packages; `size` in bytes, unzipped, with its bytecode."""

    name: str
    version: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer that was built; sizes in bytes."""

    file: Path
    target: Target
    packages: list[Package]
    zipped: int
    unzipped: int
    uncompiled: list[str]
    """Modules that this Python cannot compile, nor import; all of them when no bytecode was wanted."""

    @property
    def problems(self) -> list[str]:
        """The limits of Lambda that it exceeds, each with what to do."""
        found = []
        if self.zipped > ZIPPED_LIMIT:
            found.append(
                f"{mebibytes(self.zipped)} zipped is above the {mebibytes(ZIPPED_LIMIT)} that Lambda "
                "takes in a direct upload. Copy the file to an S3 bucket and publish it with "
                "--content S3Bucket=...,S3Key=... instead of --zip-file."
            )
        if self.unzipped > UNZIPPED_LIMIT:
            found.append(
                f"{mebibytes(self.unzipped)} unzipped is above the {mebibytes(UNZIPPED_LIMIT)} that "
                "Lambda allows a function and all its layers together. Leave out requirements, or "
                "deploy the function as a container image."
            )
        return found


def mebibytes(size: int) -> str:
    return f"{size / 2**20:.1f} MB"


def build(
    target: Target,
    output: Path,
    *,
    requirements: Sequence[str] = (),
    asyncio: bool = False,
    interpreter: Path | None,
    tell: Callable[[str], None],
) -> Layer:
    """
    Write the layer for `target` to `output`; the same packages give the same bytes.

    Args:
        requirements: More to install, or narrower versions, such as `sqlalchemy==2.1.9`.
        asyncio: With greenlet, which an asynchronous engine needs.
        interpreter: Makes the bytecode, see `find_interpreter`; `None` leaves it out.
        tell: Called with a line about each step.

    Raises:
        LayerError: uv is missing, a requirement cannot be met, or nothing compiles.

    **Costs:** uv asks the package index that it is configured with for what is not in its cache.
    """
    extras = ("binary", "pgvector", *(["asyncio"] if asyncio else []))
    wanted = [*own_requirements(extras), *requirements]
    with tempfile.TemporaryDirectory(prefix="lambdadb-layer-") as folder:
        tree, part = Path(folder) / "python", Path(folder) / "layer.zip"
        tell(f"installing for Python {target.python} on {target.architecture}: {', '.join(wanted)}")
        install(wanted, target, tree)
        copy_own(tree)
        prune(tree)
        if interpreter is not None:
            tell(f"compiling with {interpreter}")
            compile_all(tree, target, interpreter)
        tell(f"writing {output}")
        unzipped = pack([tree], part)
        layer = Layer(
            file=output,
            target=target,
            packages=packages(tree),
            zipped=part.stat().st_size,
            unzipped=unzipped,
            uncompiled=[str(path.relative_to(tree)) for path in uncompiled(tree, target)],
        )
        shutil.move(part, output)
    return layer


def own_requirements(extras: Sequence[str]) -> Iterator[str]:
    """What this lambdadb requires, with the extras."""
    for line in importlib.metadata.requires(DISTRIBUTION) or []:
        requirement, _, marker = line.partition(";")
        extra = re.search(r"extra == ['\"](\w+)", marker)
        if extra is None:
            yield line
        elif extra[1] in extras:
            yield requirement.strip()


def find_uv() -> str:
    """The path of uv: beside this Python, or on PATH."""
    places = [sysconfig.get_path("scripts"), *os.get_exec_path()]
    uv = shutil.which("uv", path=os.pathsep.join(places))
    if uv is None:
        raise LayerError(
            f"uv is not installed. It finds the wheels of another platform: {install_command('layer')}, "
            "or pip install uv. It has its own settings for a private package index (UV_DEFAULT_INDEX)."
        )
    return uv


def run(
    command: Sequence[str], environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A step that another program does, with what it says."""
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=STEP_TIMEOUT, check=False
    )


def trust_system(environment: Mapping[str, str]) -> dict[str, str]:
    """
    Return uv's variables, so that it trusts the system's authorities, a company's among them.

    pip does so by itself. uv does so only if told, and where the system has none it would trust nobody.
    """
    store = ssl.get_default_verify_paths()
    told = {"UV_SYSTEM_CERTS": "true"} if store.cafile or store.capath else {}
    return {**told, **environment}


def install(requirements: Sequence[str], target: Target, tree: Path) -> None:
    """Install wheels for `target` into `tree`; nothing of them is run."""
    command = [find_uv(), "pip", "install", "--quiet", "--target", str(tree)]
    command += ["--python", sys.executable, "--python-version", target.python]
    command += ["--python-platform", target.platform, "--only-binary", ":all:"]
    # Never the cache's own files: those of the tree are changed.
    command += ["--no-compile-bytecode", "--link-mode", "copy", "--", *requirements]
    done = run(command, trust_system(os.environ))
    if done.returncode:
        raise LayerError(
            f"uv cannot install {', '.join(requirements)} as wheels for Python {target.python} on "
            f"{target.platform}. It says:\n{done.stderr.strip()}"
        )


def copy_own(tree: Path) -> None:
    """
    Copy the lambdadb that runs here, without what no function imports, and with its licence.

    It is pure Python, the same everywhere.
    """
    source = Path(lambdadb.__file__).parent
    shutil.copytree(source, tree / "lambdadb", ignore=shutil.ignore_patterns(*DEVELOPERS, "__pycache__"))
    distribution = importlib.metadata.distribution(DISTRIBUTION)
    notes = tree / f"{DISTRIBUTION.replace('-', '_')}-{distribution.version}.dist-info"
    for name in ("METADATA", LICENCE):
        text = distribution.read_text(name)
        if text is None:
            raise LayerError(
                f"This installation of {DISTRIBUTION} lacks its {name}, which belongs into the layer. "
                "Install it again."
            )
        (notes / name).parent.mkdir(parents=True, exist_ok=True)
        (notes / name).write_text(text, encoding="utf-8")
    record = notes / "RECORD"
    record.touch()
    files = sorted(path for place in (tree / "lambdadb", notes) for path in place.rglob("*"))
    lines = [f"{path.relative_to(tree).as_posix()},,\n" for path in files if path.is_file()]
    record.write_text("".join(lines), encoding="utf-8")


def prune(tree: Path) -> None:
    """Remove what no function imports, also from the lists of what is installed."""
    useless = [tree / name for name in SCRIPTS]
    for path in tree.rglob("*"):
        if path.is_dir():
            wanted = path.name not in ("tests", "__pycache__")
        else:
            of_installer = path.parent.suffix == ".dist-info" and path.name in NOTES
            wanted = path.suffix not in SOURCES and not of_installer
        if not wanted:
            useless.append(path)
    for path in useless:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for record in tree.glob("*.dist-info/RECORD"):
        lines = record.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if (tree / line.rsplit(",", 2)[0].strip('"')).exists()]
        record.write_text("".join(kept), encoding="utf-8")


def compile_all(tree: Path, target: Target, interpreter: Path) -> None:
    """
    Give every module that compiles bytecode that Python takes without a look at its source's date.

    Raises:
        LayerError: None compiles.
    """
    command = [str(interpreter), "-s", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    # The paths in bytecode: not of this folder, which is another one each time.
    command += ["-s", str(tree.parent), "-p", MOUNT, str(tree)]
    # The order of sets in bytecode follows the seed, its optimisation PYTHONOPTIMIZE.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    # It fails if one module does not compile: one for another Python, or a template.
    done = run(command, {**environment, "PYTHONHASHSEED": "0"})
    if len(list(uncompiled(tree, target))) == len(list(tree.rglob("*.py"))):
        raise LayerError(
            f"{interpreter} compiled no module, and a layer without bytecode starts slowly. It says:\n"
            f"{(done.stdout + done.stderr).strip()}"
        )


def bytecode(module: Path, target: Target) -> Path:
    """Where `target` looks for the bytecode of a module."""
    return module.parent / "__pycache__" / f"{module.stem}.{target.tag}.pyc"


def uncompiled(tree: Path, target: Target) -> Iterator[Path]:
    return (path for path in sorted(tree.rglob("*.py")) if not bytecode(path, target).exists())


def packages(tree: Path) -> list[Package]:
    """What is installed in `tree`."""
    owner: dict[str, int] = {}
    found = list(importlib.metadata.distributions(path=[str(tree)]))
    for number, distribution in enumerate(found):
        owner.update((str(PurePosixPath(file)), number) for file in distribution.files or [])
    sizes = [0] * (len(found) + 1)  # the last is of what no package lists
    for path in tree.rglob("*"):
        if path.is_file():
            file = source_from_cache(str(path)) if path.suffix == ".pyc" else str(path)
            number = owner.get(Path(file).relative_to(tree).as_posix(), -1)
            sizes[number] += path.stat().st_size
    named = [
        Package(name=distribution.name, version=distribution.version, size=size)
        for distribution, size in zip(found, sizes, strict=False)
    ]
    return sorted(named, key=lambda package: package.name.lower())


def pack(places: Sequence[Path], output: Path) -> int:
    """
    Zip files and folders, in a fixed order and with fixed dates, and give the size of the files.

    Each is at the top of the zip, by its own name.
    """
    found = {
        path.relative_to(place.parent).as_posix(): path
        for place in places
        for path in [place, *place.rglob("*")]
        if path.is_file()
    }
    unzipped = 0
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, path in sorted(found.items(), key=lambda item: item[1]):
            entry = zipfile.ZipInfo(name)  # of 1980
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix: the next line is its permissions
            entry.external_attr = 0o100644 << 16
            content = path.read_bytes()
            unzipped += len(content)
            archive.writestr(entry, content)
    return unzipped


def find_interpreter(target: Target, given: Path | None) -> Path:
    """
    A CPython of the target's version, whose bytecode is the target's.

    Args:
        given: Take this one or none.

    Raises:
        LayerError: There is none, or `given` is another.
    """
    program = "import sys; print(sys.implementation.cache_tag, sys.version_info.releaselevel)"
    for candidate in candidates(target) if given is None else [given]:
        if not os.access(candidate, os.X_OK) or candidate.is_dir():
            continue
        done = run([str(candidate), "-I", "-c", program])
        if done.stdout.split() == [target.tag, "final"]:
            return candidate
    what = f"Python {target.python}"
    raise LayerError(
        f"{f'{given} is not {what}' if given else f'{what} was not found on PATH, by pyenv or by uv'}. "
        "Only the same version of Python, on any platform, can make a runtime's bytecode. Install it "
        f"(uv python install {target.python}), name its path (--interpreter PATH), or leave bytecode "
        "out (--no-bytecode): then every cold start compiles what it imports."
    )


def candidates(target: Target) -> Iterator[Path]:
    """Where Python of that version may be."""
    name = f"python{target.python}"
    yield Path(sys.executable)
    yield from (Path(folder) / name for folder in os.get_exec_path())
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from sorted(pyenv.glob(f"versions/{target.python}.*/bin/{name}"))
    command = [find_uv(), "python", "find", "--managed-python", target.python]
    done = run(command)
    yield Path(done.stdout.strip())
