"""Where a server keeps its data: in a directory that goes with it, or in one that stays."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from lambdadb.lab import LabError
from lambdadb.lab.postgres.binaries import primary_group, server_user
from lambdadb.lab.process import Directory

DATA, PASSWORD, LOG = "data", "password", "log"  # what such a directory holds


class KeptDirectory:
    """
    A directory that stays: the data, and the password beside them, which only this user can read.

    Raises:
        LabError: It cannot be made, the server's user cannot reach it, or it holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        user = server_user()
        try:
            path.mkdir(mode=0o755, parents=True, exist_ok=True)
            names = {file.name for file in path.iterdir()}
            self._refuse_strangers(names)
            if user is not None:
                self._refuse_private(user)
                shutil.chown(path, user, primary_group(user))
        except OSError as error:
            raise LabError(f"{path} cannot hold the data: {error.strerror}.") from error

    def _refuse_strangers(self, names: set[str]) -> None:
        # Before anything of the directory is changed: it may be somebody's home.
        if strangers := sorted(names - {DATA, PASSWORD, LOG}):
            raise LabError(
                f"{self.path} holds {', '.join(strangers[:3])}, which is not a server's. Choose an "
                "empty directory, or one that was used before."
            )
        if DATA in names and PASSWORD not in names:
            raise LabError(
                f"{self.path / DATA} has no file {PASSWORD} beside it: it is no server's, or was not "
                "completed. Remove it, or choose another directory."
            )

    def _refuse_private(self, user: str) -> None:
        if not open_to_all(self.path.parent):
            raise LabError(
                f"User {user}, which PostgreSQL runs as when you are root, cannot reach {self.path}. "
                "Choose a directory in a place that is open to all users."
            )

    def read_password(self) -> str | None:
        """The password of the data; `None` where there are none yet."""
        file = self.path / PASSWORD
        return file.read_text().strip() if file.exists() else None

    def write_password(self, password: str) -> None:
        """Write the password, last of all: it says that the data are complete."""
        file = self.path / PASSWORD
        file.touch(mode=0o600)
        file.write_text(f"{password}\n")

    def close(self) -> None:
        """Leave everything as it is."""


def new_directory(prefix: str = "lambdadb-postgres-") -> Directory:
    """Make a directory that the server's user can reach and owns."""
    user = server_user()
    places = [Path(tempfile.gettempdir())]
    if user is None:
        return Directory(prefix, parent=places[0])
    # TMPDIR may lie in a private home, closed to the server's user.
    places += [Path("/tmp"), Path("/var/tmp")]  # noqa: S108
    for place in places:
        if open_to_all(place):
            directory = Directory(prefix, parent=place)
            shutil.chown(directory.path, user, primary_group(user))
            return directory
    raise LabError(
        f"User {user}, which PostgreSQL runs as when you are root, can reach none of "
        f"{', '.join(map(str, places))}. Set TMPDIR to a directory that is open to all users."
    )


def open_to_all(place: Path) -> bool:
    """Whether every user may pass through to this directory."""
    resolved = place.resolve()
    return all(part.exists() and part.stat().st_mode & 0o001 for part in (resolved, *resolved.parents))
