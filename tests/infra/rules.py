"""
What `infra/terraform` must always be: rules about the resources of a plan, or of what was applied.

A rule takes the resources and gives a line for each thing that breaks it. A plan does not know values
that AWS will give, such as the ARN of a secret, and shows None. Applied resources have all values.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

EVERYWHERE = {"0.0.0.0/0", "::/0", "0000:0000:0000:0000:0000:0000:0000:0000/0"}
PUBLIC = {
    "aws_egress_only_internet_gateway",
    "aws_eip",
    "aws_internet_gateway",
    "aws_lambda_function_url",
    "aws_nat_gateway",
}
# Actions that are allowed on every resource, and why.
UNRESTRICTED = {
    **dict.fromkeys(
        [
            "ec2:AssignPrivateIpAddresses",
            "ec2:CreateNetworkInterface",
            "ec2:DeleteNetworkInterface",
            "ec2:DescribeNetworkInterfaces",
            "ec2:DescribeSubnets",
            "ec2:UnassignPrivateIpAddresses",
        ],
        "Lambda makes the interfaces, so they have no ids before; denied to the function's own code",
    ),
    "xray:PutTelemetryRecords": "X-Ray has no resource for it",
    "xray:PutTraceSegments": "X-Ray has no resource for it",
}
PAUSE = range(300, 86400 + 1)  # seconds: what the RDS API accepts
ALARMS = {"Duration", "Errors", "Throttles"}
AWAKE = "ServerlessDatabaseCapacity"
CLUSTER_ALARMS = {"DatabaseConnections", "ACUUtilization", AWAKE}
TAG = "project"


@dataclass(frozen=True)
class Resource:
    """A resource or a data source, with its values as Terraform shows them."""

    address: str
    type: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Statement:
    """One statement of an IAM policy. A resource that is not known yet is None."""

    address: str
    effect: str
    actions: list[str]
    resources: list[str | None]
    principals: list[tuple[str, str]]
    inverted: bool  # NotAction, NotResource or NotPrincipal


Rule = Callable[[list[Resource]], Iterator[str]]


def planned(plan: dict[str, Any]) -> list[Resource]:
    """What the plan will create, and the policies that it has read or will read."""
    changes = [
        Resource(change["address"], change["type"], change["change"]["after"])
        for change in plan["resource_changes"]
        if change["change"]["after"] is not None
    ]
    return [*changes, *applied({"values": plan.get("prior_state", {}).get("values", {})})]


def applied(state: dict[str, Any]) -> list[Resource]:
    """What the state has."""

    def walk(module: dict[str, Any]) -> Iterator[Resource]:
        for resource in module.get("resources", []):
            yield Resource(resource["address"], resource["type"], resource["values"])
        for child in module.get("child_modules", []):
            yield from walk(child)

    return list(walk(state["values"].get("root_module", {})))


def statements(resources: Iterable[Resource]) -> Iterator[Statement]:
    """Each statement of each policy, wherever it is written."""
    for resource in resources:
        if resource.type == "aws_iam_policy_document":
            yield from map(document_statement(resource.address), resource.values["statement"] or [])
        for name in ["policy", "assume_role_policy", "inline_policy"]:
            text = resource.values.get(name)
            if isinstance(text, str) and resource.type != "aws_iam_policy_document":
                parts = json.loads(text)["Statement"]
                yield from map(json_statement(resource.address), as_list(parts))


def document_statement(address: str) -> Callable[[dict[str, Any]], Statement]:
    def convert(part: dict[str, Any]) -> Statement:
        return Statement(
            address,
            part["effect"] or "Allow",
            part["actions"] or [],
            part["resources"] or [],
            [
                (principal["type"], name)
                for principal in part["principals"] or []
                for name in principal["identifiers"]
            ],
            any(part[name] for name in ["not_actions", "not_resources", "not_principals"]),
        )

    return convert


def json_statement(address: str) -> Callable[[dict[str, Any]], Statement]:
    def convert(part: dict[str, Any]) -> Statement:
        principals = part.get("Principal", {})
        pairs = principals.items() if isinstance(principals, dict) else [("AWS", principals)]
        return Statement(
            address,
            part["Effect"],
            as_list(part.get("Action", [])),
            as_list(part.get("Resource", [])),
            [(kind, name) for kind, names in pairs for name in as_list(names)],
            any(name in part for name in ["NotAction", "NotResource", "NotPrincipal"]),
        )

    return convert


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def of_type(resources: Iterable[Resource], kind: str) -> list[Resource]:
    return [resource for resource in resources if resource.type == kind]


def texts(value: Any) -> Iterator[str]:
    """Every text inside of a value."""
    if isinstance(value, str):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
        yield from texts(part)


def nothing_is_public(resources: list[Resource]) -> Iterator[str]:
    """No way to the internet or from it."""
    for resource in resources:
        if resource.type in PUBLIC:
            yield f"{resource.address} is a way to the internet"
        if EVERYWHERE & set(texts(resource.values)):
            yield f"{resource.address} names every address"
        if resource.values.get("map_public_ip_on_launch"):
            yield f"{resource.address} gives public addresses"
    for instance in of_type(resources, "aws_rds_cluster_instance"):
        if instance.values["publicly_accessible"] is not False:
            yield f"{instance.address}: publicly_accessible is not false"
    for function in of_type(resources, "aws_lambda_function"):
        if not function.values["vpc_config"]:
            yield f"{function.address} is outside of the VPC"


def no_action_has_a_wildcard(resources: list[Resource]) -> Iterator[str]:
    """Policies name each action that they allow."""
    for statement in statements(resources):
        if statement.inverted:
            yield f"{statement.address} allows or denies all but something"
        for action in statement.actions if statement.effect == "Allow" else []:
            if "*" in action or "?" in action:
                yield f"{statement.address} allows {action}"


def no_resource_has_a_wildcard(resources: list[Resource]) -> Iterator[str]:
    """Policies name each resource that they allow, but for UNRESTRICTED and the streams of a log."""
    for statement in statements(resources):
        if statement.effect != "Allow":
            continue
        for resource in statement.resources:
            if resource is None or not ("*" in resource or "?" in resource):
                continue
            unrestricted = resource == "*" and set(statement.actions) <= set(UNRESTRICTED)
            group, _, streams = resource.rpartition(":")
            of_one_group = ":log-group:/aws/lambda/" in group and "*" not in group and streams == "*"
            logs = set(statement.actions) <= {"logs:CreateLogStream", "logs:PutLogEvents"}
            if not unrestricted and not (of_one_group and logs):
                yield f"{statement.address} allows {statement.actions} on {resource}"


def roles_trust_services_alone(resources: list[Resource]) -> Iterator[str]:
    """A role is assumed by a service of AWS, not by a user, an account or everybody."""
    for statement in statements(resources):
        if "sts:AssumeRole" in statement.actions:
            for kind, name in statement.principals:
                if kind != "Service" or "*" in name:
                    yield f"{statement.address} trusts {kind} {name}"


def functions_cannot_use_their_network_rights(resources: list[Resource]) -> Iterator[str]:
    """Where a role may make network interfaces, the function's code is denied them."""
    found = list(statements(resources))
    network = {action for action in UNRESTRICTED if action.startswith("ec2:")}
    for function in of_type(resources, "aws_lambda_function"):
        module = function.address.removesuffix("aws_lambda_function.this")
        denied = [part for part in found if part.effect == "Deny" and part.address.startswith(module)]
        if not any(network <= set(part.actions) for part in denied):
            yield f"{function.address}: its code may use the rights of its network interfaces"


def storage_is_encrypted(resources: list[Resource]) -> Iterator[str]:
    """Of every cluster."""
    for cluster in of_type(resources, "aws_rds_cluster"):
        if cluster.values["storage_encrypted"] is not True:
            yield f"{cluster.address} is not encrypted"


def subnets_are_in_two_zones(resources: list[Resource]) -> Iterator[str]:
    """Aurora wants two zones, and so does a function that outlives one."""
    zones = {subnet.values["availability_zone"] for subnet in of_type(resources, "aws_subnet")}
    if len(zones) < 2:
        yield f"the subnets are in {sorted(zones)} alone"


def capacity_is_in_the_range(resources: list[Resource]) -> Iterator[str]:
    """One cluster pauses, within AWS's range; one does not; none is dear by mistake."""
    pauses = []
    for cluster in of_type(resources, "aws_rds_cluster"):
        (scaling,) = cluster.values["serverlessv2_scaling_configuration"]
        low, high = scaling["min_capacity"], scaling["max_capacity"]
        pause = scaling.get("seconds_until_auto_pause")
        pauses.append(low == 0)
        if not 1 <= high <= 2 or low not in (0, 0.5):
            yield f"{cluster.address} has {low} to {high} ACU"
        if low == 0 and pause not in PAUSE:
            yield f"{cluster.address} pauses after {pause} s"
        if low > 0 and pause:
            yield f"{cluster.address} cannot pause, and says when"
    if sorted(pauses) != [False, True]:
        yield "there is not one hot and one cold cluster"


def deletion_is_decided(resources: list[Resource]) -> Iterator[str]:
    """Whether a cluster can be deleted, and whether a snapshot remains, is written down."""
    for cluster in of_type(resources, "aws_rds_cluster"):
        for name in ["deletion_protection", "skip_final_snapshot"]:
            if cluster.values[name] is None:
                yield f"{cluster.address}: {name} is not set"


def logs_are_kept_for_a_time(resources: list[Resource]) -> Iterator[str]:
    """Each function writes JSON into a log group of this plan, and each group has a retention."""
    groups = {group.values["name"]: group for group in of_type(resources, "aws_cloudwatch_log_group")}
    for group in groups.values():
        if not group.values["retention_in_days"]:
            yield f"{group.address} is kept for ever"
    for function in of_type(resources, "aws_lambda_function"):
        (logging,) = function.values["logging_config"] or [{}]
        if logging.get("log_format") != "JSON" or logging.get("log_group") not in groups:
            yield f"{function.address} does not write JSON into a log group of its own"


def logins_are_made_by_aws(resources: list[Resource]) -> Iterator[str]:
    """IAM logins and the Data API are on; the master's password is RDS's, and nowhere in the state."""
    for cluster in of_type(resources, "aws_rds_cluster"):
        for name in ["enable_http_endpoint", "iam_database_authentication_enabled"]:
            if cluster.values[name] is not True:
                yield f"{cluster.address}: {name} is not true"
        if (
            cluster.values["manage_master_user_password"] is not True
            or cluster.values["master_password"]
        ):
            yield f"{cluster.address}: RDS does not manage the master user's password"


def servers_require_tls_and_end_idle_sessions(resources: list[Resource]) -> Iterator[str]:
    """By a parameter group of this plan, that each cluster has."""
    good = set()
    for group in of_type(resources, "aws_rds_cluster_parameter_group"):
        values = {part["name"]: part["value"] for part in group.values["parameter"]}
        if values.get("rds.force_ssl") != "1":
            yield f"{group.address} does not require TLS"
        for name in ["idle_session_timeout", "idle_in_transaction_session_timeout"]:
            if int(values.get(name, "0")) < 1000:  # milliseconds; 0 is never
                yield f"{group.address}: {name} is not set"
        good.add(group.values["name"])
    for cluster in of_type(resources, "aws_rds_cluster"):
        if cluster.values["db_cluster_parameter_group_name"] not in good:
            yield f"{cluster.address} has a parameter group of somebody else"


def everything_is_tagged(resources: list[Resource]) -> Iterator[str]:
    """Whatever can have tags has the project's."""
    for resource in resources:
        if "tags_all" in resource.values and TAG not in (resource.values["tags_all"] or {}):
            yield f"{resource.address} has no tag {TAG}"


def functions_raise_alarms(resources: list[Resource]) -> Iterator[str]:
    """On errors, on throttles, and on a duration before the timeout ends the invocation."""
    alarms = of_type(resources, "aws_cloudwatch_metric_alarm")
    for function in of_type(resources, "aws_lambda_function"):
        name = function.values["function_name"]
        mine = {
            alarm.values["metric_name"]: alarm.values["threshold"]
            for alarm in alarms
            if alarm.values["dimensions"] == {"FunctionName": name}
        }
        if set(mine) != ALARMS:
            yield f"{function.address} has alarms on {sorted(mine)}"
        elif mine["Duration"] > function.values["timeout"] * 1000:
            yield f"{function.address}: its timeout comes before its alarm"


def clusters_raise_alarms(resources: list[Resource]) -> Iterator[str]:
    """On connections and capacity, below what there is; on one that never pauses, if it could."""
    alarms = of_type(resources, "aws_cloudwatch_metric_alarm")
    for cluster in of_type(resources, "aws_rds_cluster"):
        (scaling,) = cluster.values["serverlessv2_scaling_configuration"]
        mine = {
            alarm.values["metric_name"]: alarm.values["threshold"]
            for alarm in alarms
            if alarm.values["dimensions"]
            == {"DBClusterIdentifier": cluster.values["cluster_identifier"]}
        }
        expected = CLUSTER_ALARMS - ({AWAKE} if scaling["min_capacity"] > 0 else set())
        if set(mine) != expected:
            yield f"{cluster.address} has alarms on {sorted(mine)}"
        elif mine["DatabaseConnections"] >= 189 * scaling["max_capacity"]:
            yield f"{cluster.address}: its connections are used up before its alarm"


def nothing_is_invoked_twice(resources: list[Resource]) -> Iterator[str]:
    """Neither the scheduler nor Lambda repeats an invocation; one policy is on schedule at a time."""
    enabled: dict[str, list[str]] = {}
    for schedule in of_type(resources, "aws_scheduler_schedule"):
        (target,) = schedule.values["target"]
        if [retry["maximum_retry_attempts"] for retry in target["retry_policy"]] != [0]:
            yield f"{schedule.address} repeats"
        if schedule.values["state"] != "DISABLED":
            cluster, _, _ = schedule.address.partition('["')[2].partition("-")
            enabled.setdefault(cluster, []).append(schedule.address)
    for schedules in enabled.values():
        if len(schedules) > 1:
            yield f"{' and '.join(schedules)} run at the same time"
    for config in of_type(resources, "aws_lambda_function_event_invoke_config"):
        if config.values["maximum_retry_attempts"] != 0:
            yield f"{config.address} repeats"
    configured = len(of_type(resources, "aws_lambda_function_event_invoke_config"))
    if configured != len(of_type(resources, "aws_scheduler_schedule")):
        yield "a function on schedule is repeated by Lambda"


RULES: list[Rule] = [
    nothing_is_public,
    no_action_has_a_wildcard,
    no_resource_has_a_wildcard,
    roles_trust_services_alone,
    functions_cannot_use_their_network_rights,
    storage_is_encrypted,
    subnets_are_in_two_zones,
    capacity_is_in_the_range,
    deletion_is_decided,
    logs_are_kept_for_a_time,
    logins_are_made_by_aws,
    servers_require_tls_and_end_idle_sessions,
    everything_is_tagged,
    functions_raise_alarms,
    clusters_raise_alarms,
    nothing_is_invoked_twice,
]
