"""The plan of `infra/terraform/experiment` keeps the rules, and each rule finds what breaks it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from . import rules
from .terraform import Terraform, TerraformError

Plan = dict[str, Any]
Change = Callable[[dict[str, Any]], object]


def find(plan: Plan, kind: str, name: str = "") -> dict[str, Any]:
    """The values of the first resource of this type whose address has the name in it."""
    return next(
        change["change"]["after"]
        for change in plan["resource_changes"]
        if change["type"] == kind and name in change["address"]
    )


def change(kind: str, edit: Change, name: str = "") -> Change:
    """A change of one resource of a plan."""
    return lambda plan: edit(find(plan, kind, name))


def add(kind: str, **values: Any) -> Change:
    """A resource that the plan does not have."""
    resource = {"address": f"{kind}.added", "type": kind, "change": {"after": values}}
    return lambda plan: plan["resource_changes"].append(resource)


def remove(kind: str, name: str = "") -> Change:
    """A resource less."""

    def edit(plan: Plan) -> None:
        changes = plan["resource_changes"]
        changes.remove(next(c for c in changes if c["type"] == kind and name in c["address"]))

    return edit


def allow(actions: list[str], resources: list[str], **more: Any) -> Change:
    """A policy more."""
    statement = {
        "effect": None,
        "actions": actions,
        "resources": resources,
        "principals": [],
        "not_actions": None,
        "not_resources": None,
        "not_principals": [],
        **more,
    }
    return add("aws_iam_policy_document", statement=[statement])


def scaling(**values: Any) -> Change:
    return lambda cluster: cluster["serverlessv2_scaling_configuration"][0].update(values)


def parameter(name: str, value: str) -> Change:
    def edit(group: dict[str, Any]) -> None:
        next(part for part in group["parameter"] if part["name"] == name)["value"] = value

    return edit


def everywhere(rule: dict[str, Any]) -> None:
    rule["cidr_ipv4"] = "0.0.0.0/0"


CLUSTER = "aws_rds_cluster"
GROUP = "aws_rds_cluster_parameter_group"
READ = ["secretsmanager:GetSecretValue"]
TRUST = {"actions": ["sts:AssumeRole"], "resources": []}
WRITTEN = '{"Statement": {"Effect": "Allow", "Action": "rds:*", "Resource": "arn:aws:rds:::x"}}'
BROKEN: list[tuple[rules.Rule, Change]] = [
    (rules.nothing_is_public, add("aws_internet_gateway")),
    (rules.nothing_is_public, change("aws_vpc_security_group_ingress_rule", everywhere)),
    (rules.nothing_is_public, change("aws_vpc_security_group_egress_rule", everywhere)),
    (rules.nothing_is_public, add("aws_security_group", ingress=[{"ipv6_cidr_blocks": ["::/0"]}])),
    (rules.nothing_is_public, change("aws_subnet", lambda s: s.update(map_public_ip_on_launch=True))),
    (
        rules.nothing_is_public,
        change("aws_rds_cluster_instance", lambda i: i.update(publicly_accessible=True)),
    ),
    (
        rules.nothing_is_public,
        change("aws_rds_cluster_instance", lambda i: i.update(publicly_accessible=None)),
    ),
    (rules.nothing_is_public, change("aws_lambda_function", lambda f: f.update(vpc_config=[]))),
    (rules.no_action_has_a_wildcard, allow(["s3:Get*"], ["arn:aws:s3:::x"])),
    (rules.no_action_has_a_wildcard, allow([], ["arn:aws:s3:::x"], not_actions=["iam:PassRole"])),
    (rules.no_action_has_a_wildcard, add("aws_iam_role_policy", policy=WRITTEN)),
    (rules.no_resource_has_a_wildcard, allow(READ, ["*"])),
    (rules.no_resource_has_a_wildcard, allow(READ, ["arn:aws:secretsmanager:us-east-1:1:secret:*"])),
    (rules.no_resource_has_a_wildcard, allow(["logs:PutLogEvents"], ["arn:aws:logs:us-east-1:1:*"])),
    (rules.no_resource_has_a_wildcard, allow(["rds-db:connect"], ["arn:aws:rds-db:r:1:dbuser:c-A/*"])),
    (
        rules.roles_trust_services_alone,
        allow(**TRUST, principals=[{"type": "AWS", "identifiers": ["*"]}]),
    ),
    (rules.functions_cannot_use_their_network_rights, remove("aws_iam_policy_document", "no_network")),
    (rules.storage_is_encrypted, change(CLUSTER, lambda c: c.update(storage_encrypted=None))),
    (
        rules.subnets_are_in_two_zones,
        change("aws_subnet", lambda s: s.update(availability_zone="us-east-1b"), '["a"]'),
    ),
    (rules.capacity_is_in_the_range, change(CLUSTER, scaling(seconds_until_auto_pause=299), "cold")),
    (rules.capacity_is_in_the_range, change(CLUSTER, scaling(seconds_until_auto_pause=86401), "cold")),
    (rules.capacity_is_in_the_range, change(CLUSTER, scaling(seconds_until_auto_pause=None), "cold")),
    (rules.capacity_is_in_the_range, change(CLUSTER, scaling(seconds_until_auto_pause=300), "hot")),
    (rules.capacity_is_in_the_range, change(CLUSTER, scaling(max_capacity=16), "hot")),
    (rules.capacity_is_in_the_range, change(CLUSTER, scaling(min_capacity=0.5), "cold")),
    (rules.deletion_is_decided, change(CLUSTER, lambda c: c.update(deletion_protection=None))),
    (rules.deletion_is_decided, change(CLUSTER, lambda c: c.update(skip_final_snapshot=None))),
    (
        rules.logs_are_kept_for_a_time,
        change("aws_cloudwatch_log_group", lambda g: g.update(retention_in_days=0)),
    ),
    (rules.logs_are_kept_for_a_time, remove("aws_cloudwatch_log_group")),
    (rules.logins_are_made_by_aws, change(CLUSTER, lambda c: c.update(enable_http_endpoint=False))),
    (
        rules.logins_are_made_by_aws,
        change(CLUSTER, lambda c: c.update(iam_database_authentication_enabled=None)),
    ),
    (rules.logins_are_made_by_aws, change(CLUSTER, lambda c: c.update(master_password="x"))),
    (rules.servers_require_tls_and_end_idle_sessions, change(GROUP, parameter("rds.force_ssl", "0"))),
    (
        rules.servers_require_tls_and_end_idle_sessions,
        change(GROUP, parameter("idle_session_timeout", "0")),
    ),
    (
        rules.servers_require_tls_and_end_idle_sessions,
        change(GROUP, parameter("idle_in_transaction_session_timeout", "60")),
    ),
    (
        rules.servers_require_tls_and_end_idle_sessions,
        change(
            CLUSTER, lambda c: c.update(db_cluster_parameter_group_name="default.aurora-postgresql16")
        ),
    ),
    (rules.everything_is_tagged, change("aws_vpc_endpoint", lambda e: e.update(tags_all={"Name": "x"}))),
    (rules.everything_is_tagged, change(CLUSTER, lambda c: c.update(tags_all=None))),
    (rules.clusters_raise_alarms, remove("aws_cloudwatch_metric_alarm", "cold-awake")),
    (
        rules.clusters_raise_alarms,
        change("aws_cloudwatch_metric_alarm", lambda a: a.update(threshold=200), "hot-connections"),
    ),
    (rules.functions_raise_alarms, remove("aws_cloudwatch_metric_alarm", "throttles")),
    (
        rules.functions_raise_alarms,
        change("aws_cloudwatch_metric_alarm", lambda a: a.update(threshold=150_001), "duration"),
    ),
    (
        rules.nothing_is_invoked_twice,
        change("aws_scheduler_schedule", lambda s: s["target"][0].update(retry_policy=[])),
    ),
    (rules.nothing_is_invoked_twice, remove("aws_lambda_function_event_invoke_config")),
    (
        rules.nothing_is_invoked_twice,
        lambda plan: [
            find(plan, "aws_scheduler_schedule", f"cold-{policy}").update(state="ENABLED")
            for policy in ["hand-written", "per-invocation"]
        ],
    ),
]


def test_the_configuration_is_valid(terraform: Terraform) -> None:
    """`terraform validate`, without a warning."""
    said = json.loads(terraform.run("validate", "-json"))
    assert said["valid"]
    assert said["diagnostics"] == []


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_the_plan_keeps_the_rule(rule: rules.Rule, plan: Plan) -> None:
    """With the default variables."""
    assert list(rule(rules.planned(plan))) == []


@pytest.mark.parametrize(("rule", "edit"), BROKEN, ids=lambda value: getattr(value, "__name__", None))
def test_the_rule_finds_what_breaks_it(rule: rules.Rule, edit: Change, plan: Plan) -> None:
    """A plan with one thing wrong."""
    edit(plan)
    assert list(rule(rules.planned(plan)))


def test_every_rule_has_a_plan_that_breaks_it() -> None:
    """No rule is untested."""
    assert {rule for rule, _ in BROKEN} == set(rules.RULES)


def test_the_plan_has_a_function_for_each_policy_and_cluster(plan: Plan) -> None:
    """Two clusters, four policies and the schema; every schedule waits until the schema is there."""
    functions = rules.of_type(rules.planned(plan), "aws_lambda_function")
    assert {(f.values["function_name"], f.values["handler"]) for f in functions} == {
        *(
            (f"lambdadb-experiment-{cluster}-{policy.replace('_', '-')}", f"insert.{policy}")
            for cluster in ["hot", "cold"]
            for policy in ["hand_written", "sqlalchemy_default", "per_environment", "per_invocation"]
        ),
        *(
            (f"lambdadb-experiment-{cluster}-schema", "schema.lambda_handler")
            for cluster in ["hot", "cold"]
        ),
    }
    schedules = rules.of_type(rules.planned(plan), "aws_scheduler_schedule")
    assert {(s.values["schedule_expression"], s.values["state"]) for s in schedules} == {
        ("rate(10 minutes)", "DISABLED"),
        ("rate(12 minutes)", "DISABLED"),
    }


def test_one_policy_is_on_schedule_at_a_time(terraform: Terraform) -> None:
    """`scheduled` enables its two schedules and no other."""
    schedules = rules.of_type(
        rules.planned(terraform.plan(scheduled="per_invocation")), "aws_scheduler_schedule"
    )
    enabled = [s.values["name"] for s in schedules if s.values["state"] == "ENABLED"]
    assert sorted(enabled) == [f"lambdadb-experiment-{type}-per-invocation" for type in ["cold", "hot"]]


WRONG = {
    "zones": ["a", "a"],
    "name": "Shop",
    "scheduled": "nobody",
    "engine_version": "16.2",
    "build": "nowhere",
    "clusters": {
        "never": {"min_capacity": 0, "max_capacity": 1, "schedule": "rate(1 day)"},
        "soon": {
            "min_capacity": 0,
            "max_capacity": 1,
            "seconds_until_auto_pause": 100,
            "schedule": "rate(1 day)",
        },
        "small": {"min_capacity": 0.5, "max_capacity": 0.5, "schedule": "rate(1 day)"},
    },
}
MESSAGES = [
    "two different Availability Zones",
    "name has lower-case letters",
    "scheduled is the name of one of the functions",
    "Auto-pause needs Aurora PostgreSQL",
    "Build them: nox -s package",
    "seconds_until_auto_pause is for a cluster with a min_capacity of 0, and only for it",
    "seconds_until_auto_pause is from 300 to 86400",
    "max_capacity is at least 1 ACU",
]


def test_wrong_variables_are_refused(terraform: Terraform) -> None:
    """All of them at once, before anything is made, and with what to do."""
    with pytest.raises(TerraformError) as caught:
        terraform.plan(**WRONG)
    said = re.sub(r"[\s│]+", " ", str(caught.value))
    assert [message for message in MESSAGES if message not in said] == []
