"""The emulated Data API, by the client that everybody uses: boto3."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta, timezone

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError

from lambdadb.lab.aurora import Cluster
from lambdadb.lab.clock import LabClock
from lambdadb.lab.data_api import ApiError, DataApi, Fault
from lambdadb.lab.data_api.signature import check_signature
from lambdadb.lab.data_api.statements import number_parameters
from lambdadb.lab.postgres import Postgres

SECRET_KEY = "canary-data-api-secret-key"


def make_client(api, *, attempts=1, region=None, secret_key=SECRET_KEY):
    """boto3's client; it tries once, unlike its default."""
    return boto3.client(
        "rds-data",
        region_name=region or api.region,
        endpoint_url=api.endpoint,
        aws_access_key_id=api.access_key,
        aws_secret_access_key=secret_key,
        config=Config(retries={"total_max_attempts": attempts, "mode": "standard"}),
    )


class Calls:
    """Calls with the ARNs filled in."""

    def __init__(self, api, **keywords):
        self._client = make_client(api, **keywords)
        self._arns = {"resourceArn": api.cluster_arn, "secretArn": api.secret_arn}

    def execute(self, sql, **keywords):
        keywords = {"includeResultMetadata": True, **self._arns, "sql": sql, **keywords}
        return self._client.execute_statement(**keywords)

    def __getattr__(self, name):
        return lambda **keywords: getattr(self._client, name)(**{**self._arns, **keywords})

    def value(self, sql, **keywords):
        return self.execute(sql, **keywords)["records"][0][0]


@pytest.fixture
def calls(api):
    return Calls(api)


def code_of(raised):
    return raised.value.response["Error"]["Code"]


def test_values_come_in_the_members_of_the_model(calls):
    """Each type in its member of Field, with the type's name in the metadata."""
    answer = calls.execute(
        "SELECT 1::int8 AS a, 2.5::float8, true, '2.50'::numeric, 'x'::text, '\\x00ff'::bytea,"
        " NULL::int,"
        " '2026-01-02 03:04:05.678+02'::timestamptz, ARRAY[1,2], ARRAY['a','b'], ARRAY[[1],[2]]"
    )
    assert answer["records"] == [
        [
            {"longValue": 1},
            {"doubleValue": 2.5},
            {"booleanValue": True},
            {"stringValue": "2.50"},
            {"stringValue": "x"},
            {"blobValue": b"\x00\xff"},
            {"isNull": True},
            {"stringValue": "2026-01-02 01:04:05.678"},
            {"arrayValue": {"longValues": [1, 2]}},
            {"arrayValue": {"stringValues": ["a", "b"]}},
            {"arrayValue": {"arrayValues": [{"longValues": [1]}, {"longValues": [2]}]}},
        ]
    ]
    assert [c["typeName"] for c in answer["columnMetadata"]][:5] == [
        *("int8", "float8", "bool", "numeric", "text")
    ]
    assert answer["columnMetadata"][0]["name"] == "a"


def test_parameters_are_found_outside_of_strings_and_casts():
    """The named parameters of a statement, each once."""
    sql = "SELECT ':no', \":no\", $$:no$$, /* :no */ :a::int, :b -- :no\n, :a, E'\\':no'"
    assert number_parameters(sql)[1] == ["a", "b"]
    assert "$1::int, $2" in number_parameters(sql)[0]


def test_a_string_is_text_for_the_server(calls):
    """As with AWS, a string is no uuid unless a hint or a cast says so."""
    value = {"stringValue": "6f1c2a34-0000-4000-8000-000000000000"}
    with pytest.raises(ClientError, match="SQLState: 42804") as raised:
        calls.execute(
            "SELECT coalesce(:a, gen_random_uuid())", parameters=[{"name": "a", "value": value}]
        )
    assert code_of(raised) == "DatabaseErrorException"
    hinted = [{"name": "a", "value": value, "typeHint": "UUID"}]
    assert calls.value("SELECT coalesce(:a, gen_random_uuid())", parameters=hinted) == value


def test_a_transaction_is_committed_or_rolled_back(calls):
    """Its statements are seen by others after the commit only."""
    calls.execute("CREATE TABLE IF NOT EXISTS t (a int)")
    for end, rows in (("rollback_transaction", 0), ("commit_transaction", 1)):
        one = calls.begin_transaction()["transactionId"]
        calls.execute("INSERT INTO t VALUES (1)", transactionId=one)
        assert calls.value("SELECT count(*) FROM t") == {"longValue": 0}
        getattr(calls, end)(transactionId=one)
        assert calls.value("SELECT count(*) FROM t") == {"longValue": rows}
        with pytest.raises(ClientError) as raised:
            calls.commit_transaction(transactionId=one)
        assert code_of(raised) == "TransactionNotFoundException"


def test_a_batch_is_carried_out_as_a_whole(calls):
    """One parameter set that fails undoes the others."""
    calls.execute("CREATE TABLE IF NOT EXISTS batch (a int PRIMARY KEY)")

    def batch(*numbers):
        sets = [[{"name": "a", "value": {"longValue": number}}] for number in numbers]
        return calls.batch_execute_statement(sql="INSERT INTO batch VALUES (:a)", parameterSets=sets)

    assert len(batch(1, 2)["updateResults"]) == 2
    with pytest.raises(ClientError, match=r"(?s)duplicate key.*Detail: .*SQLState: 23505$"):
        batch(3, 2)
    assert calls.value("SELECT count(*) FROM batch") == {"longValue": 2}


@pytest.mark.parametrize(
    ("sql", "code", "text"),
    [
        ("SELECT 1; SELECT 2", "ValidationException", "Multistatements"),
        (f"SELECT 1 --{'x' * 65536}", "ValidationException", "65536"),
        ("SELECT repeat('x', 70000)", "DatabaseErrorException", "64 KB"),
        (
            "SELECT repeat('x', 60000) FROM generate_series(1, 20)",
            "DatabaseErrorException",
            "size limit",
        ),
        ("SELECT interval '1 day'", "UnsupportedResultException", "interval"),
        ("SELECT :missing", "BadRequestException", "missing"),
    ],
)
def test_limits_and_refusals_have_the_apis_names(calls, sql, code, text):
    """Each of them is an error of the model."""
    with pytest.raises(ClientError, match=text) as raised:
        calls.execute(sql)
    assert code_of(raised) == code


def test_a_long_call_is_ended(server):
    """After 45 seconds, here sooner, with the API's own error."""
    with (
        DataApi(server, call_timeout=0.1, secret_key=SECRET_KEY) as api,
        pytest.raises(ClientError) as raised,
    ):
        Calls(api).execute("SELECT pg_sleep(60)")
    assert code_of(raised) == "StatementTimeoutException"


def test_an_unused_transaction_is_rolled_back(server):
    """After three minutes without a call, also if nobody calls any more."""
    clock = LabClock()
    with DataApi(server, clock=clock, secret_key=SECRET_KEY) as api:
        one = Calls(api).begin_transaction()["transactionId"]
        clock.speed = 100_000.0
        end = time.monotonic() + 30
        while api._service.transactions:
            assert time.monotonic() < end
            time.sleep(0.01)
        with pytest.raises(ClientError) as raised:
            Calls(api).execute("SELECT 1", transactionId=one)
    assert code_of(raised) == "TransactionNotFoundException"


def test_one_call_at_a_time_uses_a_transaction(calls, api):
    """A second one is refused while the first runs."""
    one = calls.begin_transaction()["transactionId"]
    first = threading.Thread(
        target=lambda: calls.execute("SELECT 1::int FROM pg_sleep(0.5)", transactionId=one)
    )
    first.start()
    end = time.monotonic() + 30
    while not any(t.busy.locked() for t in api.transactions):
        assert time.monotonic() < end
    with pytest.raises(ClientError, match="still running a query"):
        Calls(api).execute("SELECT 1", transactionId=one)
    first.join()


@pytest.mark.parametrize(
    ("keywords", "code"),
    [
        ({"secret_key": "canary-another"}, "InvalidSignatureException"),
        ({"region": "eu-west-1"}, "InvalidSignatureException"),
    ],
)
def test_a_wrong_key_or_region_is_refused(api, keywords, code):
    """By the signature alone, as AWS does."""
    with pytest.raises(ClientError) as raised:
        Calls(api, **keywords).execute("SELECT 1")
    assert code_of(raised) == code


def test_an_old_signature_is_refused(api):
    """A recorded request cannot be sent again later."""
    request = {}

    def record(sent):
        request.update(headers=dict(sent.headers), body=sent.body)

    calls = Calls(api)
    calls._client.meta.events.register("before-send.rds-data", lambda request, **_: record(request))
    calls.execute("SELECT 1")
    text = {
        name.lower(): value.decode() if isinstance(value, bytes) else str(value)
        for name, value in request["headers"].items()
    }
    text["host"] = api.endpoint.removeprefix("http://")
    keys, now = {api.access_key: SECRET_KEY}, datetime.now(timezone.utc)
    check_signature("/Execute", text, request["body"], keys=keys, region=api.region, now=now)
    for body, moment in ((b"{}", now), (request["body"], now + timedelta(minutes=6))):
        with pytest.raises(ApiError):
            check_signature("/Execute", text, body, keys=keys, region=api.region, now=moment)


def test_faults_come_before_or_after_the_effect(api, calls):
    """An error answer, a dropped request, a dropped or cut answer; the row tells the two apart."""
    calls.execute("CREATE TABLE f (a int)")
    insert = "INSERT INTO f VALUES (1)"
    rows = 0
    for fault, error in [
        (Fault(code="InternalServerErrorException"), ClientError),
        (Fault(code="ServiceUnavailableError", effect=True), ClientError),
        (Fault(), ConnectionClosedError),
        (Fault(effect=True), ConnectionClosedError),
    ]:
        api.fail(fault)
        with pytest.raises(error):
            calls.execute(insert)
        rows += fault.effect
        assert calls.value("SELECT count(*) FROM f") == {"longValue": rows}, fault
    # boto3 takes the half of an answer for a whole one, in which everything is missing.
    api.fail(Fault(effect=True, cut=True))
    assert "numberOfRecordsUpdated" not in calls.execute(insert)
    rows += 1
    api.fail(Fault(delay=0.01, answered=True))
    calls.execute(insert)
    assert calls.value("SELECT count(*) FROM f") == {"longValue": rows + 1}


def test_boto3_by_default_doubles_a_write(api):
    """Why lambdadb makes one attempt: two rows of one INSERT whose answer was an error 500."""
    calls = Calls(api, attempts=3)
    calls.execute("CREATE TABLE IF NOT EXISTS doubled (a int)")
    api.fail(Fault(code="InternalServerErrorException", effect=True))
    calls.execute("INSERT INTO doubled VALUES (1)")
    assert calls.value("SELECT count(*) FROM doubled") == {"longValue": 2}


def test_a_paused_cluster_is_woken_by_a_call():
    """The call is answered at once with DatabaseResumingException; one after the resume works."""
    with (
        Postgres(settings={"fsync": "off"}) as server,
        Cluster(server, auto_pause=300.0, resume=0.3, paused=True) as cluster,
        DataApi(server, cluster=cluster, secret_key=SECRET_KEY) as api,
    ):
        calls = Calls(api)
        with pytest.raises(ClientError) as raised:
            calls.execute("SELECT 1")
        assert code_of(raised) == "DatabaseResumingException"
        end = time.monotonic() + 60
        while True:
            try:
                assert calls.value("SELECT 1::int8") == {"longValue": 1}
                break
            except ClientError:
                assert time.monotonic() < end
                time.sleep(0.05)
        assert cluster.connects >= 2
