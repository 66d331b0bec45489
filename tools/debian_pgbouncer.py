"""
Unpack a Debian release's pgbouncer beside the host's own: `debian_pgbouncer.py RELEASE FOLDER`.

Nothing of the host is changed. apt-get gets a state and a cache of its own, and downloads the packages
of that release; they are unpacked into FOLDER, and `FOLDER/bin/pgbouncer` runs with their own libraries.
With `FOLDER/bin` first in PATH, the lab's `PgBouncer` uses it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SOURCE = """\
Types: deb
URIs: http://deb.debian.org/debian
Suites: {release}
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""


def download(release: str, folder: Path) -> list[Path]:
    """Download pgbouncer and all that it needs; returns the packages."""
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    sources = folder / "debian.sources"
    sources.write_text(SOURCE.format(release=release))
    options = {
        "APT::Sandbox::User": "",  # apt's own user may not enter the folder
        "Dir::State": folder / "state",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": folder / "cache",
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "/dev/null",
    }
    apt = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in options.items())]
    subprocess.run([*apt, "update"], check=True)
    install = ["install", "-y", "--no-install-recommends", "--download-only", "pgbouncer"]
    subprocess.run([*apt, *install], check=True)
    return sorted((folder / "cache/archives").glob("*.deb"))


def main(release: str, folder: Path) -> None:
    """Unpack the release's pgbouncer, and say which version it is."""
    root = folder / "root"
    for package in download(release, folder):
        subprocess.run(["/usr/bin/dpkg-deb", "-x", package, root], check=True)
    (loader,) = root.glob("usr/lib*/ld-linux*.so.*")
    libraries = {str(path.parent) for path in root.glob("usr/lib/*/libc.so.6")}
    program = folder / "bin/pgbouncer"
    program.parent.mkdir()
    command = f"'{loader}' --library-path '{':'.join(libraries)}' '{root}/usr/sbin/pgbouncer'"
    program.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    program.chmod(0o755)
    subprocess.run([program, "--version"], check=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]).resolve())
