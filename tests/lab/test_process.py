from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lambdadb.lab import LabError
from lambdadb.lab.process import Directory, Process

from ..waiting import wait_until

PYTHON = [sys.executable, "-I", "-S", "-c"]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_exit_code_and_the_output_are_the_commands(tmp_path: Path) -> None:
    """A command's exit code is reported and what it prints goes to the file, both streams."""
    script = "import os, sys; os.write(1, b'out '); os.write(2, b'err'); sys.exit(7)"
    process = Process([*PYTHON, script], output=tmp_path / "output")
    assert process.wait(10.0) == 7
    assert not process.running
    assert (tmp_path / "output").read_text() == "out err"


def test_the_command_gets_environment_and_directory(tmp_path: Path) -> None:
    """The command sees exactly the environment given, in the working directory given."""
    script = "import os; print(os.environ['COLOUR'], 'HOME' in os.environ, os.getcwd())"
    output = tmp_path / "output"
    process = Process([*PYTHON, script], env={"COLOUR": "blue"}, cwd=tmp_path, output=output)
    assert process.wait(10.0) == 0
    assert output.read_text() == f"blue False {tmp_path}\n"


def test_a_frozen_command_can_be_killed() -> None:
    """A command stopped with SIGSTOP ends on kill(), by SIGKILL."""
    process = Process([*PYTHON, "import time; time.sleep(60)"])
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(TimeoutError, match="still running"):
        process.wait(0.05)
    process.kill()
    assert process.wait() == -signal.SIGKILL


def test_stop_ends_the_command_with_its_ending_signal() -> None:
    """stop() sends the chosen signal, not SIGKILL, and may be called again."""
    process = Process([*PYTHON, "import time; time.sleep(60)"], ending=signal.SIGTERM)
    process.stop()
    process.stop()
    process.kill()
    assert process.wait() == -signal.SIGTERM


def test_ctrl_c_in_the_terminal_does_not_reach_the_command() -> None:
    """The command is in a session of its own, so that its end is left to this process."""
    process = Process([*PYTHON, "import time; time.sleep(60)"])
    assert os.getsid(process.pid) != os.getsid(0)
    process.stop()


def test_a_command_that_cannot_start_says_which_and_why() -> None:
    """A missing program is a LabError at once, not a process that never was."""
    with pytest.raises(LabError, match=r"/no/such/program could not be started: .*No such file"):
        Process(["/no/such/program"])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_nothing_outlives_a_killed_parent(tmp_path: Path, number: signal.Signals) -> None:
    """A frozen command and a directory are gone after their parent was killed."""
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, signal, sys, time\n"
        "from lambdadb.lab.process import Directory, Process\n"
        "directory = Directory('lambdadb-test-')\n"
        f"command = Process({[*PYTHON, 'import time; time.sleep(60)']!r})\n"
        "os.kill(command.pid, signal.SIGSTOP)\n"
        "print(command.pid, directory.path, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        # These tests may themselves run as a script's background job, with SIGINT ignored.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL) if number != signal.SIGKILL else None,
    )
    assert parent.stdout is not None
    pid, path = parent.stdout.readline().split()
    assert alive(int(pid))
    assert Path(path).is_dir()
    parent.send_signal(number)
    parent.wait(10.0)
    parent.stdout.close()
    wait_until(lambda: not alive(int(pid)))
    wait_until(lambda: not Path(path).exists())


IGNORED = [signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM]


@pytest.mark.parametrize("number", IGNORED)
def test_a_command_does_not_inherit_an_ignored_signal(number: signal.Signals) -> None:
    """Also below a background job of a script, which ignores SIGINT, a signal ends the command."""
    program = (
        "import signal, sys\n"
        "from lambdadb.lab.process import Process\n"
        f"command = Process({[*PYTHON, 'import time; time.sleep(60)']!r})\n"
        f"command.send_signal(signal.Signals({int(number)}))\n"
        "print(command.wait(30))\n"
    )

    def ignore_all() -> None:
        for each in IGNORED:
            signal.signal(each, signal.SIG_IGN)

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, preexec_fn=ignore_all
    )
    # Python ends by SIGINT with a traceback, and with this code.
    assert done.stdout.strip() == str(-number), done.stderr


def test_a_sibling_does_not_keep_a_command_alive() -> None:
    """Each command ends with its own Process while others, started later, go on."""
    first = Process([*PYTHON, "import time; time.sleep(60)"])
    second = Process([*PYTHON, "import time; time.sleep(60)"])
    first.stop()
    assert second.running
    second.stop()


def test_a_directory_is_removed_with_its_content() -> None:
    """close() leaves nothing of the directory and can be repeated."""
    directory = Directory("lambdadb-test-")
    (directory.path / "deep" / "er").mkdir(parents=True)
    (directory.path / "deep" / "file").write_text("x")
    directory.close()
    directory.close()
    assert not directory.path.exists()


def test_a_directory_that_cannot_be_made_says_where_and_why() -> None:
    """A missing parent is a LabError that names it."""
    with pytest.raises(LabError, match=r"No directory could be made in /no/such/place: .*No such"):
        Directory("lambdadb-test-", parent=Path("/no/such/place"))


def test_a_parent_killed_at_any_moment_leaves_no_directory(tmp_path: Path) -> None:
    """Directories that are being made while their parent is killed are removed as well."""
    script = (
        "import sys, threading\n"
        "from pathlib import Path\n"
        "from lambdadb.lab.process import Directory\n"
        "make = lambda: Directory('lambdadb-test-', parent=Path(sys.argv[1]))\n"
        "threads = [threading.Thread(target=make, daemon=True) for _ in range(8)]\n"
        "[thread.start() for thread in threads]\n"
        "print('started', flush=True)\n"
        "threading.Event().wait(60)\n"
    )
    for moment in (0.0, 0.02, 0.04, 0.08, 0.16):
        parent = subprocess.Popen(
            [sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True
        )
        assert parent.stdout is not None
        parent.stdout.readline()
        time.sleep(moment)
        parent.kill()
        parent.wait(10.0)
        parent.stdout.close()
    time.sleep(0.5)  # the last supervisor has started, and so made its directory, if ever
    wait_until(lambda: not list(tmp_path.iterdir()))
