"""Terraform on a copy of `infra/terraform`, against moto's server on this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parents[2] / "infra" / "terraform"
REGION = "us-east-1"


class TerraformError(Exception):
    """A command that failed, with what it said."""


class Terraform:
    """A root module, with zips that have nothing in them."""

    def __init__(self, folder: Path, endpoint: str, root: str = "experiment") -> None:
        shutil.copytree(SOURCE, folder / "terraform", ignore=shutil.ignore_patterns(".terraform*"))
        self._root = folder / "terraform" / root
        self._plan = folder / "plan"
        build = folder / "build"
        build.mkdir()
        for name in ["function", "layer-arm64", "layer-x86_64"]:
            with zipfile.ZipFile(build / f"{name}.zip", "w") as archive:
                archive.writestr("placeholder.py", "")
        # No variable of the machine may lead to an account of AWS.
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        self._environment = {
            **{name: value for name, value in kept.items() if not name.lower().endswith("_proxy")},
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL": endpoint,
            "CHECKPOINT_DISABLE": "1",
            "TF_IN_AUTOMATION": "1",
            "TF_VAR_build": str(build),
        }

    def run(self, *arguments: str) -> str:
        """What the command printed."""
        done = subprocess.run(
            ["terraform", *arguments],
            cwd=self._root,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise TerraformError(done.stdout + done.stderr)
        return done.stdout

    def init(self) -> None:
        """Get the AWS provider: from its registry, or from where TF_CLI_ARGS_init says."""
        self.run("init", "-input=false", "-no-color")

    def plan(self, **variables: object) -> dict[str, Any]:
        """The plan as `terraform show -json` gives it."""
        self.run("plan", "-input=false", "-no-color", f"-out={self._plan}", *options(variables))
        plan: dict[str, Any] = json.loads(self.run("show", "-json", str(self._plan)))
        return plan

    def apply(self, **variables: object) -> dict[str, Any]:
        """The state after all was made."""
        self.run("apply", "-input=false", "-no-color", "-auto-approve", *options(variables))
        state: dict[str, Any] = json.loads(self.run("show", "-json"))
        return state

    def destroy(self, **variables: object) -> None:
        """Delete all that was made."""
        self.run("destroy", "-input=false", "-no-color", "-auto-approve", *options(variables))


def options(variables: dict[str, object]) -> list[str]:
    return [
        f"-var={name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in variables.items()
    ]
