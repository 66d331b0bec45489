"""docs/first-deployment.md: one function on a cluster that exists, applied and destroyed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from . import rules
from .terraform import REGION, Terraform
from .test_apply import client


@pytest.fixture
def cluster(endpoint: str) -> Iterator[dict[str, Any]]:
    """A cluster with its network: the variables that name them."""
    ec2, rds = client("ec2", endpoint), client("rds", endpoint)
    vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(
            VpcId=vpc, CidrBlock=f"10.1.{number}.0/24", AvailabilityZone=f"{REGION}{zone}"
        )["Subnet"]["SubnetId"]
        for number, zone in enumerate("ab")
    ]
    group = ec2.create_security_group(GroupName="db", Description="db", VpcId=vpc)["GroupId"]
    rds.create_db_cluster(
        DBClusterIdentifier="shop",
        Engine="aurora-postgresql",
        MasterUsername="postgres",
        ManageMasterUserPassword=True,
        VpcSecurityGroupIds=[group],
    )
    yield {"cluster": "shop", "cluster_security_group_id": group, "subnet_ids": subnets}
    rds.delete_db_cluster(DBClusterIdentifier="shop", SkipFinalSnapshot=True)
    for subnet in subnets:
        ec2.delete_subnet(SubnetId=subnet)
    ec2.delete_security_group(GroupId=group)
    ec2.delete_vpc(VpcId=vpc)


def test_a_function_on_a_cluster_that_exists(
    orders: Terraform, cluster: dict[str, Any], endpoint: str
) -> None:
    """It may log in as one user and reach the cluster alone; nothing is left at the end."""
    try:
        state = orders.apply(**cluster)
        url = json.loads(orders.run("output", "-json", "database_url"))
        function = client("lambda", endpoint).get_function_configuration(FunctionName="orders")
    finally:
        orders.destroy(**cluster)
    assert function["Environment"]["Variables"]["DATABASE_URL"] == url
    assert url.startswith("postgresql+psycopg://orders_app@")
    assert url.endswith("/shop?lambdadb_iam=true")
    applied = rules.applied(state)
    for rule in (
        rules.nothing_is_public,
        rules.no_action_has_a_wildcard,
        rules.no_resource_has_a_wildcard,
        rules.roles_trust_services_alone,
        rules.functions_cannot_use_their_network_rights,
    ):
        assert list(rule(applied)) == [], rule.__name__
    ((actions, resources),) = [
        (part.actions, part.resources)
        for policy in rules.of_type(applied, "aws_iam_role_policy")
        if policy.values["name"] == "login"
        for part in rules.statements([policy])
    ]
    assert actions == ["rds-db:connect"]
    assert str(resources[0]).endswith("/orders_app")
    names = client("lambda", endpoint).list_functions()["Functions"]
    assert [each for each in names if each["FunctionName"] == "orders"] == []
