"""
The cold start from `lambdadb layer`'s zip beside a plain one: CPU and wall time of fresh processes.

The plain zip is what `pip install --target` leaves, all of it. No page of AWS says what dates Lambda
gives to the files that it unzips, so the plain zip is measured with three: exact ones, those that a zip
keeps (even seconds), and one date for all, as tools set it that make zips reproducible. The table says
how much of pip's bytecode is stale then: with even seconds it is chance. Nothing is written (-B), as on
Lambda's read-only file system. In turns.

    nox -s layer -- --rounds 20
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from lambdadb.lab.postgres import Postgres
from lambdadb.layer import Layer, Target, build, mebibytes

ROOT = Path(__file__).parents[1]
IMPORT = """\
import os, sys
sys.path.insert(0, sys.argv[1])
import lambdadb, sqlalchemy, psycopg, pgvector
engine = lambdadb.create_engine(sys.argv[2])
"""
FIRST_ROW = """\
with engine.connect() as connection:
    assert connection.execute(sqlalchemy.text("SELECT 1")).scalar_one() == 1
"""
END = "os._exit(0)\n"  # tidying up at the end of a process is no part of a cold start
PROGRAMS = {"import": IMPORT + END, "first row": IMPORT + FIRST_ROW + END}
OURS, EXACT = "lambdadb layer", "plain, exact dates"
Times = dict[str, dict[str, dict[str, list[float]]]]  # seconds by program, tree, and "cpu" or "wall"


def seconds(program: str, tree: Path, url: str) -> tuple[float, float]:
    """CPU and wall time of a fresh Python, its own start included."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-I", "-S", "-B", "-c", program, str(tree), url])
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{tree} does not work")
    return usage.ru_utime + usage.ru_stime, wall


def plain_zip(folder: Path) -> Path:
    """What `pip install --target` and a zip of it make, with bytecode by this Python."""
    tree = folder / EXACT / "python"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:"]
    subprocess.run([*command, "--target", str(tree), f"{ROOT}[binary,pgvector]"], check=True)
    with zipfile.ZipFile(folder / "plain.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in tree.rglob("*"):
            archive.write(path, path.relative_to(tree.parent))
    return folder / "plain.zip"


def unzip(file: Path, folder: Path, date: float | None = None) -> Path:
    """The tree of a zip, each file with its date in there or all with `date`."""
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder)
        for entry in archive.infolist():
            then = time.mktime((*entry.date_time, 0, 0, -1)) if date is None else date
            os.utime(folder / entry.filename, (then, then))
    return folder / "python"


def stale(tree: Path) -> float:
    """The share of modules in `tree` that Python would compile again."""
    modules = list(tree.rglob("*.py"))
    return sum(not valid(module) for module in modules) / len(modules)


def valid(module: Path) -> bool:
    """Whether Python takes the bytecode of a module: by its source's date, or as it is (PEP 552)."""
    file = Path(cache_from_source(str(module)))
    if not file.exists():
        return False
    _, flags, date, _ = struct.unpack("<4I", file.read_bytes()[:16])
    return bool(flags == 1 or date == int(module.stat().st_mtime))


def measure(trees: dict[str, Path], rounds: int) -> Times:
    """Both programs with each tree, in turns."""
    times: Times = {name: {tree: {"cpu": [], "wall": []} for tree in trees} for name in PROGRAMS}
    with Postgres() as server:
        for number in track(range(rounds + 1), "measuring", console=Console(stderr=True)):
            for name, program in PROGRAMS.items():
                for tree, path in trees.items():
                    cpu, wall = seconds(program, path, server.url())
                    if number:  # the first round fills the system's file cache
                        times[name][tree]["cpu"].append(cpu)
                        times[name][tree]["wall"].append(wall)
    return times


def ratios(ours: list[float], theirs: list[float]) -> dict[str, float]:
    each = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    return {"median": statistics.median(each), "lowest": each[0], "highest": each[-1]}


def say(line: str) -> None:
    print(line, file=sys.stderr)


def prepare(folder: Path) -> tuple[Layer, Path, dict[str, Path]]:
    """The layer, the plain zip, and the trees that are measured."""
    machine = {"aarch64": "arm64"}.get(platform.machine(), platform.machine())
    target = Target(python="{}.{}".format(*sys.version_info), architecture=machine)
    layer = build(target, folder / "layer.zip", interpreter=Path(sys.executable), tell=say)
    say("pip install --target, and a zip of it")
    plain = plain_zip(folder)
    trees = {
        OURS: unzip(layer.file, folder / "ours"),
        EXACT: folder / EXACT / "python",
        "plain, dates of the zip": unzip(plain, folder / "dates of the zip"),
        "plain, one date": unzip(plain, folder / "one date", date=315532800.0),
    }
    ours, theirs = (
        {
            (package.name, package.version)
            for package in importlib.metadata.distributions(path=[str(tree)])
        }
        for tree in list(trees.values())[:2]
    )
    if ours != theirs:
        raise SystemExit(f"the two hold different packages: {sorted(ours ^ theirs)}")
    return layer, plain, trees


def summed(times: Times, shares: dict[str, float]) -> list[dict[str, Any]]:
    """A line for each program and tree: medians, and the layer's ratio to them in the same round."""
    return [
        {
            "until": name,
            "tree": tree,
            "stale": shares[tree],
            **{f"{kind}_seconds": statistics.median(taken[kind]) for kind in taken},
            **{f"{kind}_ratio": ratios(trees[OURS][kind], taken[kind]) for kind in taken},
        }
        for name, trees in times.items()
        for tree, taken in trees.items()
    ]


def print_table(lines: list[dict[str, Any]], sizes: dict[str, int], rounds: int) -> None:
    files = ", ".join(f"{name} {mebibytes(size)}" for name, size in sizes.items())
    table = Table(title=f"Python {platform.python_version()}, {rounds} rounds in turns; {files}")
    for heading in ("until", "tree"):
        table.add_column(heading)
    for heading in ("stale", "CPU ms", "layer's CPU / this", "wall ms", "layer's wall / this"):
        table.add_column(heading, justify="right")
    for line in lines:
        row = [line["until"], line["tree"], f"{line['stale']:.0%}"]
        for kind in ("cpu", "wall"):
            ratio = line[f"{kind}_ratio"]
            row.append(f"{line[f'{kind}_seconds'] * 1e3:.0f}")
            row.append(f"{ratio['median']:.2f} ({ratio['lowest']:.2f} to {ratio['highest']:.2f})")
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="how often each is measured, in turns")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lambdadb-layer-") as name:
        layer, plain, trees = prepare(Path(name))
        sizes = {
            "layer zipped": layer.zipped,
            "layer unzipped": layer.unzipped,
            "plain zipped": plain.stat().st_size,
            "plain unzipped": sum(p.stat().st_size for p in trees[EXACT].rglob("*") if p.is_file()),
        }
        shares = {tree: stale(path) for tree, path in trees.items()}
        lines = summed(measure(trees, arguments.rounds), shares)
    if arguments.json:
        print(json.dumps({"bytes": sizes, "measured": lines}))
    else:
        print_table(lines, sizes, arguments.rounds)


if __name__ == "__main__":
    main()
