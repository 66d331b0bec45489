"""
The zips that the experiment's functions are deployed from: their code, and a layer per architecture.

    nox -s package
    nox -s package -- --python 3.13

The same files give the same zip, byte for byte. The layers hold the newest packages that lambdadb
allows; --requirement names versions.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lambdadb.layer import ARCHITECTURES, PYTHONS, LayerError, Target, build, find_interpreter, pack

ROOT = Path(__file__).parents[1]
CODE = ROOT / "src" / "lambdadb" / "lab" / "bench" / "functions"
OUTPUT = ROOT / "build" / "experiment"
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def pack_code(output: Path) -> None:
    """Zip the functions' modules. They have no bytecode, so one zip is for every runtime."""
    pack(sorted(CODE.glob("*.py")), output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--python", choices=PYTHONS, default=HERE, help="the functions' runtime")
    parser.add_argument("--interpreter", type=Path, help="the Python that makes the layers' bytecode")
    parser.add_argument("--requirement", action="append", default=[], help="as sqlalchemy==2.1.9")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the folder to write to")
    chosen = parser.parse_args()
    chosen.output.mkdir(parents=True, exist_ok=True)
    pack_code(chosen.output / "function.zip")
    for architecture in ARCHITECTURES:
        target = Target(python=chosen.python, architecture=architecture)
        layer = build(
            target,
            chosen.output / f"layer-{architecture}.zip",
            requirements=chosen.requirement,
            interpreter=find_interpreter(target, chosen.interpreter),
            tell=lambda line: print(line, file=sys.stderr),
        )
        for problem in layer.problems:
            print(f"Error: {layer.file.name}: {problem}", file=sys.stderr)
        if layer.problems:
            sys.exit(1)
    for file in sorted(chosen.output.glob("*.zip")):
        print(f"{file.stat().st_size / 2**20:6.2f} MB  {file}")


if __name__ == "__main__":
    try:
        main()
    except LayerError as error:
        sys.exit(f"Error: {error}")
