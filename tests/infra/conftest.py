"""Terraform and moto's server for the tests of `infra/terraform`: `nox -s infra`."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from .terraform import Terraform, TerraformError

OUT_OF_REACH = (
    "terraform init cannot get the AWS provider. Where its registry is out of reach, name a folder "
    "that has the provider: TF_CLI_ARGS_init=-plugin-dir=FOLDER"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each test of this folder runs in the session infra, and has the time that Terraform needs."""
    for item in items:
        if "tests/infra/" in item.path.as_posix():
            item.add_marker(pytest.mark.infra)
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    """AWS as moto's server plays it, empty at first."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


def initialised(folder: Path, endpoint: str, root: str) -> Terraform:
    """A root module with its provider; skips if there is no Terraform, or no provider."""
    if shutil.which("terraform") is None:
        pytest.skip("terraform is not on PATH")
    terraform = Terraform(folder, endpoint, root)
    try:
        terraform.init()
    except TerraformError as error:
        # Whoever named a folder expects the tests to run.
        named = "TF_CLI_ARGS_init" in os.environ
        if not named and "Failed to query available provider packages" in str(error):
            pytest.skip(OUT_OF_REACH)
        raise
    return terraform


@pytest.fixture(scope="session")
def terraform(endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    """The experiment."""
    return initialised(tmp_path_factory.mktemp("infra"), endpoint, "experiment")


@pytest.fixture
def orders(endpoint: str, tmp_path: Path) -> Terraform:
    """A function on a cluster that exists."""
    return initialised(tmp_path, endpoint, "orders")


@pytest.fixture(scope="session")
def default_plan(terraform: Terraform) -> dict[str, Any]:
    return terraform.plan()


@pytest.fixture
def plan(default_plan: dict[str, Any]) -> dict[str, Any]:
    """The plan with the default variables, for a test to break."""
    return copy.deepcopy(default_plan)
