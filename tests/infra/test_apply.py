"""`terraform apply` and `destroy` against moto's server: all is made, and nothing is left."""

from __future__ import annotations

import json
from typing import Any

import boto3

from . import rules
from .terraform import REGION, Terraform

# One function for each kind of login, not four.
FUNCTIONS = {
    "per_environment": {"handler": "insert.per_environment", "iam": True},
    "per_invocation": {"handler": "insert.per_invocation"},
}
# Client, operation, key of the answer, key of the name; and arguments.
LISTS: list[tuple[str, str, str, str, dict[str, Any]]] = [
    ("rds", "describe_db_clusters", "DBClusters", "DBClusterIdentifier", {}),
    ("rds", "describe_db_instances", "DBInstances", "DBInstanceIdentifier", {}),
    ("rds", "describe_db_subnet_groups", "DBSubnetGroups", "DBSubnetGroupName", {}),
    (
        "rds",
        "describe_db_cluster_parameter_groups",
        "DBClusterParameterGroups",
        "DBClusterParameterGroupName",
        {},
    ),
    # AWS deletes the automated ones with their cluster. moto keeps them.
    (
        "rds",
        "describe_db_cluster_snapshots",
        "DBClusterSnapshots",
        "DBClusterSnapshotIdentifier",
        {"SnapshotType": "manual"},
    ),
    ("secretsmanager", "list_secrets", "SecretList", "ARN", {}),
    ("lambda", "list_functions", "Functions", "FunctionName", {}),
    ("lambda", "list_layers", "Layers", "LayerName", {}),
    ("iam", "list_roles", "Roles", "RoleName", {}),
    ("iam", "list_policies", "Policies", "PolicyName", {"Scope": "Local"}),
    ("logs", "describe_log_groups", "logGroups", "logGroupName", {}),
    ("cloudwatch", "describe_alarms", "MetricAlarms", "AlarmName", {}),
    ("scheduler", "list_schedules", "Schedules", "Name", {}),
    ("scheduler", "list_schedule_groups", "ScheduleGroups", "Name", {}),
    ("ec2", "describe_vpcs", "Vpcs", "VpcId", {}),
    ("ec2", "describe_subnets", "Subnets", "SubnetId", {}),
    ("ec2", "describe_security_groups", "SecurityGroups", "GroupId", {}),
    ("ec2", "describe_route_tables", "RouteTables", "RouteTableId", {}),
    ("ec2", "describe_vpc_endpoints", "VpcEndpoints", "VpcEndpointId", {}),
    ("ec2", "describe_network_interfaces", "NetworkInterfaces", "NetworkInterfaceId", {}),
    ("ec2", "describe_internet_gateways", "InternetGateways", "InternetGatewayId", {}),
]


def client(service: str, endpoint: str) -> Any:
    return boto3.client(
        service,
        region_name=REGION,
        endpoint_url=endpoint,
        aws_access_key_id="x",
        aws_secret_access_key="x",
    )


def inventory(endpoint: str) -> dict[str, set[str]]:
    """The names of everything that the account has, by the operation that lists it."""
    return {
        operation: {
            item[name]
            for item in getattr(client(service, endpoint), operation)(**arguments)[key]
            if item.get("State") != "deleted"  # a VPC endpoint is listed for some time after its end
        }
        for service, operation, key, name, arguments in LISTS
    }


def test_apply_and_destroy(terraform: Terraform, endpoint: str) -> None:
    """What is made keeps the rules, with all values known; the output names it; nothing is left."""
    before = inventory(endpoint)
    try:
        state = terraform.apply(functions=FUNCTIONS)
        during = inventory(endpoint)
        experiment = json.loads(terraform.run("output", "-json", "experiment"))
    finally:
        terraform.destroy(functions=FUNCTIONS)
    after = inventory(endpoint)
    assert after == before

    unused = {
        "describe_db_cluster_snapshots",
        "describe_internet_gateways",
        "describe_network_interfaces",
    }
    assert {operation for operation in during if during[operation] == before[operation]} <= unused
    check_rules(state)
    check_roles(rules.applied(state))
    check_output(experiment, during)


def check_rules(state: dict[str, Any]) -> None:
    """moto does not give back the Data API, nor a function's log: the plan shows both."""
    for rule in rules.RULES:
        if rule not in (rules.logs_are_kept_for_a_time, rules.logins_are_made_by_aws):
            assert list(rule(rules.applied(state))) == [], rule.__name__


def check_roles(resources: list[rules.Resource]) -> None:
    """A function reads its own cluster's secret, or logs in as one user, and nothing else."""
    clusters = {
        cluster.values["cluster_identifier"]: cluster.values
        for cluster in rules.of_type(resources, "aws_rds_cluster")
    }
    logins = {
        policy.values["role"]: [(part.actions, part.resources) for part in rules.statements([policy])]
        for policy in rules.of_type(resources, "aws_iam_role_policy")
        if policy.values["name"] == "login"
    }
    for type in ["hot", "cold"]:
        cluster = clusters[f"lambdadb-experiment-{type}"]
        user = f"{cluster['cluster_resource_id']}/experiment_app"
        secret = cluster["master_user_secret"][0]["secret_arn"]
        ((actions, (resource,)),) = logins[f"lambdadb-experiment-{type}-per-environment"]
        assert actions == ["rds-db:connect"]
        assert str(resource).startswith(f"arn:aws:rds-db:{REGION}:")
        assert str(resource).endswith(f":dbuser:{user}")
        for function in ["per-invocation", "schema"]:
            assert logins[f"lambdadb-experiment-{type}-{function}"] == [
                (["secretsmanager:GetSecretValue"], [secret])
            ]


def check_output(experiment: dict[str, Any], during: dict[str, set[str]]) -> None:
    """The output `experiment` names what is there."""
    assert {(f["aurora_type"], f["policy"]) for f in experiment["functions"]} == {
        (type, policy) for type in ["hot", "cold"] for policy in FUNCTIONS
    }
    for function in experiment["functions"]:
        assert function["name"] in during["list_functions"]
        assert function["log_group"] in during["describe_log_groups"]
        assert function["schedule"] in during["list_schedules"]
    for cluster in experiment["clusters"].values():
        assert cluster["identifier"] in during["describe_db_clusters"]
        assert cluster["instance"] in during["describe_db_instances"]
        assert cluster["secret_arn"] in during["list_secrets"]
        assert cluster["schema_function"] in during["list_functions"]
