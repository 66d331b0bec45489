"""IAM tokens: botocore's to the byte, and never where they could be read on the way."""

from __future__ import annotations

import copy
import datetime
import json
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import botocore.auth
import botocore.signers
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.hooks import HierarchicalEmitter
from botocore.model import ServiceId
from hypothesis import given
from hypothesis import strategies as st

from lambdadb import InvalidSettings
from lambdadb.aws.keys import Keys
from lambdadb.aws.sigv4 import presign_url, sign_request
from lambdadb.credentials import LoginUnavailable
from lambdadb.credentials.rds_iam import RdsIam
from lambdadb.credentials.secrets_manager import SecretsManager
from lambdadb.drivers.rds_endpoint import dns_suffix, is_proxy, region_of

from ..conftest import VirtualClock

HOST = "orders.cluster-c9akciq32.ap-northeast-1.rds.amazonaws.com"
URL: dict[str, Any] = {"host": HOST, "port": 5432, "user": "app"}
AT = 1_763_600_000.0


@pytest.fixture(autouse=True)
def lambda_keys(monkeypatch):
    """What Lambda puts into the environment, and nothing else of AWS or libpq."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_CONTAINER_CREDENTIALS_FULL_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-secret-key")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token+/=")


@pytest.fixture(scope="module", autouse=True)
def botocore_at():
    """botocore's signers at the moment AT."""
    with pytest.MonkeyPatch.context() as patch:
        moment = datetime.datetime.fromtimestamp(AT, datetime.timezone.utc)
        patch.setattr(botocore.auth, "get_current_datetime", lambda: moment)
        yield


def login(parameters: Any = URL, **arguments: Any) -> dict[str, Any]:
    (found,) = RdsIam(**arguments).logins(parameters)
    return dict(found)


def failure(parameters: Any, **arguments: Any) -> str:
    with pytest.raises(LoginUnavailable) as caught:
        login(parameters, **arguments)
    return str(caught.value)


KEYS = st.builds(
    Keys,
    access=st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", min_size=16, max_size=20),
    secret=st.text("abcXYZ019+/", min_size=1, max_size=40),
    token=st.none() | st.text("abcXYZ019+/=", min_size=1, max_size=1200),
)
REGIONS = st.sampled_from(["ap-northeast-1", "us-east-1", "cn-north-1", "us-gov-west-1"])


@given(
    keys=KEYS,
    region=REGIONS,
    host=st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,60}[A-Za-z0-9])?", fullmatch=True),
    port=st.sampled_from([80, 443, 3306, 5432]) | st.integers(1, 65535),
    user=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=63),
)
def test_the_token_is_botocores_to_the_byte(keys, region, host, port, user):
    """For any keys, endpoint, user and region: what `generate_db_auth_token` makes at that moment."""
    events = HierarchicalEmitter()  # the signer keeps a weak reference
    signer = botocore.signers.RequestSigner(
        ServiceId("rds"), region, "rds", "v4", credentials_of(keys), events
    )
    client = SimpleNamespace(_request_signer=signer, meta=SimpleNamespace(region_name=region))
    theirs = botocore.signers.generate_db_auth_token(client, host, port, user)
    query = {"Action": "connect", "DBUser": user}
    assert presign_url(keys, f"{host}:{port}", query, scope=(region, "rds-db"), at=AT) == theirs


@given(keys=KEYS, region=REGIONS, body=st.binary(max_size=200), port=st.sampled_from(["", ":5000"]))
def test_a_signed_request_is_botocores(keys, region, body, port):
    """The headers that prove who asks are those that botocore would send."""
    headers = {"content-type": "application/x-amz-json-1.1", "x-amz-target": "secretsmanager.Get"}
    host = f"secretsmanager.{region}.amazonaws.com{port}"
    request = AWSRequest("POST", f"https://{host}/", headers=headers, data=body)
    botocore.auth.SigV4Auth(credentials_of(keys), "secretsmanager", region).add_auth(request)
    scope = (region, "secretsmanager")
    ours = sign_request(keys, {"host": host, **headers}, body, scope=scope, at=AT)
    assert ours.pop("host") == host
    assert ours == {name.lower(): value for name, value in request.headers.items()}


def credentials_of(keys: Keys) -> Credentials:
    return Credentials(keys.access, keys.secret, keys.token)


def test_each_connect_gets_a_token_of_its_own_moment():
    """A token lives for 15 minutes, an execution environment for hours: none is used twice."""
    clock = VirtualClock()
    store = RdsIam(clock=clock)
    tokens = []
    for _ in range(2):
        tokens += [login["password"] for login in store.logins(URL)]
        clock.time += 1.0
    assert len(set(tokens)) == 2
    assert all(token.startswith(f"{HOST}:5432/?Action=connect&DBUser=app&") for token in tokens)
    assert all("X-Amz-Security-Token=token%2B%2F%3D" in token for token in tokens)


@pytest.mark.parametrize(
    ("host", "region"),
    [
        (HOST, "ap-northeast-1"),
        ("db.c9.us-gov-west-1.rds.amazonaws.com", "us-gov-west-1"),
        ("orders.proxy-c9.eu-west-1.rds.amazonaws.com", "eu-west-1"),
        ("db.c9.cn-north-1.rds.amazonaws.com.cn", "cn-north-1"),
        ("db.c9.rds.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("DB.C9.EU-WEST-1.RDS.AMAZONAWS.COM", "eu-west-1"),
        ("db.example.com", "sa-east-1"),
        ("rds.amazonaws.com.example.com", "sa-east-1"),
    ],
)
def test_the_region_is_the_databases(host, region, monkeypatch):
    """It is in the endpoint's name; only where it is not, the function's own is taken."""
    monkeypatch.setenv("AWS_REGION", "sa-east-1")
    assert f"%2F{region}%2Frds-db%2F" in login({**URL, "host": host})["password"]
    assert "%2Fus-west-2%2Frds-db%2F" in login({**URL, "host": host}, region="us-west-2")["password"]


def test_a_region_that_nobody_knows_is_an_error():
    """Its text says where to name it."""
    assert "AWS_REGION" in failure({**URL, "host": "db.example.com"})


@pytest.mark.parametrize("host", ["", "/var/run/postgresql", "@socket", f"{HOST},{HOST}"])
def test_no_token_without_the_one_host_it_is_for(host):
    """Sockets have no TLS, and of several hosts only one would take it."""
    assert "one host" in failure({**URL, "host": host}, host=HOST)


def regions_of_partitions() -> list[tuple[str, str]]:
    """Every region that botocore knows, and the DNS suffix of its partition."""
    file = Path(botocore.__file__).parent / "data" / "partitions.json"
    return [
        (region, partition["outputs"]["dnsSuffix"])
        for partition in json.loads(file.read_text())["partitions"]
        for region in partition["regions"]
        if not region.endswith("-global")
    ]


def test_endpoints_of_every_partition_are_known():
    """Suffix and region of an endpoint, in all of AWS's partitions, as botocore lists them."""
    regions = regions_of_partitions()
    assert {region for region, _ in regions} >= {"eusc-de-east-1", "us-iso-east-1", "us-isob-east-1"}
    for region, suffix in regions:
        assert dns_suffix(region) == suffix
        for kind in ("cluster-c9", "c9", "proxy-c9"):
            host = f"orders.{kind}.{region}.rds.{suffix}"
            assert region_of(host) == region
            assert is_proxy(host) is (kind == "proxy-c9")
            assert region_of(f"{host}.example") is None


def test_a_session_signs_and_names_the_region(monkeypatch):
    """For an assumed role: its keys at each connect, and its region where the host tells none."""
    monkeypatch.setenv("AWS_REGION", "sa-east-1")
    session = boto3.Session("AKIDROLE", "role-secret", "role-token", region_name="eu-west-3")
    for made in (session, session._session):
        assert "Credential=AKIDROLE%2F" in login(session=made)["password"]
        alias = login({**URL, "host": "db.example.com"}, session=made)["password"]
        assert "%2Feu-west-3%2Frds-db%2F" in alias
        assert "%2Fap-northeast-1%2Frds-db%2F" in login(session=made)["password"]


def test_a_client_signs():
    """boto3's own client of RDS makes the token, with whatever keys it has."""
    session = boto3.Session("AKIDROLE", "role-secret", region_name="eu-west-3")
    token = login(client=session.client("rds"))["password"]
    clock = VirtualClock()
    clock.time = AT
    assert token == login(session=session, clock=clock)["password"]


@pytest.mark.parametrize(
    "arguments", [{"session": object(), "client": object()}, {"session": object()}, {"client": object()}]
)
def test_arguments_that_cannot_sign_are_refused_at_once(arguments):
    """While the store is made."""
    with pytest.raises(InvalidSettings, match=r"RdsIam\("):
        RdsIam(**arguments)


def test_a_token_needs_a_port():
    """The port is part of what is signed: the URL's, the argument's, or the driver's."""
    nameless = {"host": HOST, "user": "app"}
    assert "port" in failure(nameless)
    assert f"{HOST}:6432/" in login({**nameless, "default_port": 6432})["password"]
    assert f"{HOST}:7/" in login(nameless, port=7)["password"]


def test_without_keys_and_without_botocore_the_error_says_what_to_install(monkeypatch):
    """Both stores need it where the environment variables hold no keys."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    assert "pip install botocore" in failure(URL)
    with pytest.raises(LoginUnavailable, match=r"'orders/app' could not.*pip install botocore"):
        next(SecretsManager("orders/app").logins(URL))


def test_the_user_is_the_arguments_or_the_urls():
    """The token and the login name the same one; without one there is no token."""
    assert login()["user"] == "app"
    assert login(user="reports")["user"] == "reports"
    assert "&DBUser=reports&" in login(user="reports")["password"]
    assert "user=" in failure({"host": HOST})


def test_another_name_for_the_endpoint_is_warned_of_once(log):
    """AWS refuses a token that is signed for a CNAME; `host` and `port` name what it is signed for."""
    cname = {**URL, "host": "db.example.com", "port": 15432}
    store = RdsIam("us-east-1")
    list(store.logins(cname))
    list(store.logins(cname))
    assert [r.levelname for r in log.records] == ["WARNING"]
    assert "RdsIam(host=" in log.text
    log.clear()
    assert login(cname, host=HOST, port=5432)["password"].startswith(f"{HOST}:5432/?")
    assert not log.records


def test_neither_repr_nor_pickle_nor_log_shows_a_token(log):
    """What is kept of a connect is nothing."""
    store = RdsIam("us-east-1", user="app")
    list(store.logins(URL))
    shown = f"{store!r}{vars(store)}{log.text}".encode() + pickle.dumps(store)
    assert b"X-Amz" not in shown
    assert b"the-secret-key" not in shown
    assert repr(copy.copy(store)) == "RdsIam(region='us-east-1', user='app')"
