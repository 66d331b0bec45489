"""The file of `terraform output -json experiment`: read, or refused with what is wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lambdadb.lab import LabError
from lambdadb.lab.bench.deployed.infra import Infra, read_infra

from .conftest import output

OUTPUTS = Path(__file__).parents[4] / "infra" / "terraform" / "experiment" / "outputs.tf"


def test_what_it_says(infra: Infra) -> None:
    """Clusters hot first, with the schedule's interval; functions with the policy of their handler."""
    assert list(infra.clusters) == ["hot", "cold"]
    assert [cluster.interval for cluster in infra.clusters.values()] == [600.0, 720.0]
    assert [cluster.auto_pause for cluster in infra.clusters.values()] == [None, 300.0]
    assert [one.policy for one in infra.functions_of("cold")] == ["hand_written", "per_invocation"]


def test_terraform_writes_what_is_read() -> None:
    """Each name that is read here is a name of outputs.tf."""
    written = set(re.findall(r"^\s+(\w+)\s+=", OUTPUTS.read_text(), re.M))
    found = output()
    read = {*found, *found["clusters"]["hot"], *found["functions"][0]}
    assert read <= written


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "is not JSON"),
        ("[]", "is not this experiment's output"),
        (json.dumps({"experiment": "x"}), "it has no 'clusters'"),
        (json.dumps(output(functions=[])), "it has no functions"),
        (json.dumps(output()).replace("insert.hand_written", "insert.other"), "other is none of"),
    ],
)
def test_what_is_no_such_file(text: str, why: str, file: Path) -> None:
    """The error says what is wrong, and how the file is written."""
    file.write_text(text)
    with pytest.raises(LabError, match=why) as caught:
        read_infra(file)
    assert "terraform output -json experiment" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Its name and the reason."""
    with pytest.raises(LabError, match=r"--infra .*nowhere cannot be read: No such file"):
        read_infra(tmp_path / "nowhere")
