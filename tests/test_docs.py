"""The pages and the examples: what they show is run, and what they point at exists."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import shlex
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import click
import psycopg
import pytest
from moto.server import ThreadedMotoServer
from sqlalchemy import make_url, text

from lambdadb import Fault, PerEnvironment, ResumeRetry, create_engine, errors
from lambdadb.cli.group import lambdadb as command_line
from lambdadb.lab import LabError
from lambdadb.lab.aurora import Cluster
from lambdadb.lab.environment import Environment, FunctionError
from lambdadb.lab.mariadb import MariaDB
from lambdadb.lab.postgres import Postgres, Standby
from lambdadb.lab.rds_proxy import RdsProxy
from lambdadb.lab.xray.daemon import XRayDaemon, nested

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
LANGUAGES = {"json", "python", "sh", "sql", "text"}
FENCE = re.compile(r"^(?P<lead>.*)\n\s*(```+|~~~+)(?P<language>.*)\n(?P<text>[\s\S]*?)^\s*\2[ ]*$", re.M)
SOURCE = re.compile(r"<!-- examples/(?P<file>[\w/]+\.\w+)(?:: (?P<names>[\w, ]+))? -->")
HOW_TO = ["fastapi", "flask", "iam", "opentelemetry", "pgvector", "queues", "secrets-manager", "xray"]
PLAN = ["What you get", "Install", "Permissions", "Handler", "Settings", "Testing", "Limits"]
NAMED = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@dataclasses.dataclass
class Block:
    """A fenced block: its language, its text, and the line before it."""

    lead: str
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    return [
        Block(found["lead"], found["language"].strip(), found["text"])
        for found in FENCE.finditer(page.read_text())
    ]


def region(file: Path, names: list[str]) -> str:
    """The file, or from the first to the last of the statements at its top level that define names."""
    text = file.read_text()
    if not names:
        return text
    spans = {}
    for node in ast.parse(text).body:
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
        for target in getattr(node, "targets", [node]):
            spans[getattr(target, "name", getattr(target, "id", ""))] = (first, node.end_lineno or 0)
    begin, end = min(spans[name][0] for name in names), max(spans[name][1] for name in names)
    return "\n".join(text.splitlines()[begin - 1 : end]) + "\n"


@NAMED
def test_every_block_says_what_it_is(page: Path) -> None:
    """Code cannot hide from these tests in a block of another kind, or in an indented one."""
    assert {block.language for block in blocks(page)} <= LANGUAGES
    outside = FENCE.sub("", page.read_text())
    assert "```" not in outside
    assert "~~~" not in outside
    assert "<pre" not in outside
    assert not re.search(r"^\n(    |\t)(?!\s*([-*]|\d+\.) )", outside, re.M)


@NAMED
def test_every_python_block_is_an_example(page: Path) -> None:
    """A Python block is the file, or the statements of it, that the comment before it names."""
    for block in blocks(page):
        if block.language != "python":
            continue
        source = SOURCE.fullmatch(block.lead.strip())
        assert source, f"No <!-- examples/file.py --> before:\n{block.text}"
        names = [name.strip() for name in (source["names"] or "").split(",") if name]
        assert block.text == region(EXAMPLES / source["file"], names)


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_every_example_is_shown_and_run(example: Path) -> None:
    """No example is kept that no page shows or that no test here runs, by itself or in another."""
    assert any(f"examples/{example.name}" in page.read_text() for page in PAGES)
    others = "".join(other.read_text() for other in EXAMPLES.glob("*.py"))
    run = re.search(rf'"{example.stem}\.', Path(__file__).read_text())
    assert run or f"\nfrom {example.stem} import" in others


@pytest.mark.parametrize(
    "example", sorted((EXAMPLES / "frameworks").glob("*.py")), ids=lambda path: path.name
)
def test_every_framework_is_shown_and_run(example: Path) -> None:
    """A page shows or links each example of a framework, and tests/frameworks runs it."""
    assert any(f"examples/frameworks/{example.name}" in page.read_text() for page in PAGES)
    tests = (ROOT / "tests" / "frameworks" / "test_frameworks.py").read_text()
    assert f'"{example.stem}.' in tests


@pytest.mark.parametrize("page", HOW_TO)
def test_how_to_pages_have_one_plan(page: str) -> None:
    """What a reader looks for is under the same heading, in the same order, on each of them."""
    headings = re.findall(r"^## (.+)$", (ROOT / "docs" / f"{page}.md").read_text(), re.M)
    assert [heading for heading in headings if heading in PLAN] == PLAN


@NAMED
def test_every_link_resolves(page: Path) -> None:
    """Links between pages, to their headings, to files and to pictures."""
    outside = FENCE.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", outside):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def anchors(page: Path) -> set[str]:
    """The anchors that a heading gets where these pages are read."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub(r"\g<lead>", page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@NAMED
def test_every_command_is_known(page: Path) -> None:
    """What the pages tell to type: options of `lambdadb` with their values, sessions of nox."""
    sessions = re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text(), re.M)
    for block in blocks(page):
        if block.language != "sh":
            continue
        for line in re.split(r"\n|&&", block.text.replace("\\\n", " ")):
            words = shlex.split(line.partition(" | ")[0], comments=True)
            words = [word for word in words if not re.match(r"[A-Z_]+=", word)]
            words[:1] = [Path(word).name for word in words[:1]]
            if words[:1] == ["lambdadb"] and not words[1].startswith("-"):
                command = command_line.get_command(click.Context(command_line), words[1])
                assert command is not None, line
                command.make_context(words[1], words[2:])
            if words[:2] == ["nox", "-s"]:
                assert words[2] in sessions


def test_every_error_and_fault_is_explained() -> None:
    """docs/errors.md has a heading for each exception, and each fault with its own words."""
    text = (ROOT / "docs" / "errors.md").read_text()
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    for kind in [kind for kind in kinds if issubclass(kind, errors.LambdaDBError)]:
        assert f"## {kind.__name__}\n" in text
    for fault in Fault:
        assert f"| `{fault.name}` | {fault.remedy} |" in text


@pytest.mark.parametrize("settings", [PerEnvironment(), ResumeRetry()])
def test_every_setting_is_documented_with_its_default(settings: object) -> None:
    """docs/settings.md has a row for each knob."""
    text = (ROOT / "docs" / "settings.md").read_text()
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]
        default = getattr(settings, field.name)
        shown = f"{default:g}" if isinstance(default, float) else str(default).lower()
        assert re.search(rf"^\| `{field.name}` \| {shown}\b", text, re.M)


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A PostgreSQL with the examples' tables in the database `shop`."""
    with Postgres() as server:
        with psycopg.connect(dsn(server, "postgres"), autocommit=True) as connection:
            connection.execute("CREATE DATABASE shop")
        with psycopg.connect(dsn(server, "shop")) as connection:
            connection.execute((EXAMPLES / "schema.sql").read_bytes())
            connection.execute("INSERT INTO account VALUES ('ann', 100), ('bob', 0)")
        yield server


def dsn(server: Postgres, database: str) -> str:
    return server.url(database).replace("+psycopg", "")


class Shop:
    """A database of its own for a test, and functions that use it."""

    def __init__(self, server: Postgres, database: str) -> None:
        self.url = server.url(database)
        self.connection = psycopg.connect(dsn(server, database), autocommit=True)

    def invoke(self, handler: str, *events: object) -> object:
        """The answer to the last event, of a function that got all of them."""
        with environment(handler, self.url) as function:
            return [function.invoke(event) for event in events][-1]

    def rows(self, query: str) -> list[tuple[object, ...]]:
        return self.connection.execute(query.encode()).fetchall()


def environment(handler: str, url: str, timeout: float = 30.0, **variables: str) -> Environment:
    return Environment(
        handler,
        function_name="example",
        timeout=timeout,
        environment={"DATABASE_URL": url, "PYTHONWARNINGS": "error", **variables},
        path=[EXAMPLES],
    )


@pytest.fixture
def shop(server: Postgres) -> Iterator[Shop]:
    with psycopg.connect(dsn(server, "postgres"), autocommit=True) as admin:
        admin.execute("CREATE DATABASE own TEMPLATE shop")
        shop = Shop(server, "own")
        with shop.connection:
            yield shop
        admin.execute("DROP DATABASE own WITH (FORCE)")


@NAMED
def test_every_query_runs(page: Path, shop: Shop) -> None:
    """SQL on the pages is what PostgreSQL understands; tests/mysql runs that of docs/mysql.md."""
    for block in blocks(page):
        if block.language == "sql" and page.name != "mysql.md":
            shop.connection.execute(block.text.encode())


@NAMED
def test_every_policy_is_one(page: Path) -> None:
    """JSON on the pages is what IAM takes: statements that allow some actions on some resources."""
    for block in blocks(page):
        if block.language == "json":
            policy = json.loads(block.text)
            assert policy["Version"] == "2012-10-17"
            for statement in policy["Statement"]:
                assert {"Effect", "Action", "Resource"} <= statement.keys()
                assert "*" not in (statement["Action"], statement["Resource"])


@pytest.mark.parametrize("handler", ["orders.lambda_handler", "orders_async.lambda_handler"])
def test_orders(handler: str, shop: Shop) -> None:
    """Each order is stored, and its id returned."""
    assert shop.invoke(handler, {"item": "tea"}, {"item": "milk"}) == {"id": 2}
    assert shop.rows("SELECT item FROM orders ORDER BY id") == [("tea",), ("milk",)]


def test_orders_on_mysql() -> None:
    """Each order is stored in a MariaDB, and its id returned."""
    mariadb = MariaDB()
    try:
        mariadb.start()
    except LabError as missing:
        mariadb.close()
        pytest.skip(str(missing))
    with mariadb:
        engine = create_engine(mariadb.url())
        with engine.begin() as connection:
            connection.execute(
                text("CREATE TABLE orders (id INT AUTO_INCREMENT PRIMARY KEY, item TEXT)")
            )
        engine.dispose()
        with environment("orders_mysql.lambda_handler", mariadb.url()) as function:
            assert [function.invoke({"item": item}) for item in ("tea", "milk")] == [
                {"id": 1},
                {"id": 2},
            ]


@pytest.fixture(scope="module")
def aws() -> Iterator[dict[str, str]]:
    """The variables of a function whose AWS is moto's server, with a secret and a parameter in it."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    variables = {
        "AWS_ENDPOINT_URL": "http://{}:{}".format(*server.get_host_and_port()),
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "SECRET_ID": "orders/app",
    }
    session = boto3.Session("AKIDEXAMPLE", "secret", region_name="us-east-1")
    secrets = session.client("secretsmanager", endpoint_url=variables["AWS_ENDPOINT_URL"])
    secrets.create_secret(Name="orders/app", SecretString='{"username": "app", "password": "pw"}')
    parameters = session.client("ssm", endpoint_url=variables["AWS_ENDPOINT_URL"])
    parameters.put_parameter(Name="/orders/app", Value="pw", Type="SecureString")
    yield variables
    # moto keeps what it knows in the process, in which this may run again.
    secrets.delete_secret(SecretId="orders/app", ForceDeleteWithoutRecovery=True)
    parameters.delete_parameter(Name="/orders/app")
    server.stop()


@pytest.fixture
def app(shop: Shop) -> Iterator[str]:
    """The URL of the shop without a user; who comes as `app` can store orders."""
    shop.connection.execute("CREATE ROLE app LOGIN PASSWORD 'pw'")
    shop.connection.execute("GRANT ALL ON orders, orders_id_seq TO app")
    yield re.sub("//.*@", "//", shop.url)
    shop.connection.execute("DROP OWNED BY app")
    shop.connection.execute("DROP ROLE app")


def test_a_login_for_a_librarys_engine(app: str, aws: dict[str, str]) -> None:
    """The library connects as the secret's user."""
    with environment("attached.lambda_handler", app, **aws) as function:
        assert function.invoke(None) == "app"


@pytest.mark.parametrize("example", ["orders_secret.lambda_handler", "orders_traced.lambda_handler"])
def test_a_login_from_secrets_manager(example: str, app: str, aws: dict[str, str]) -> None:
    """The secret's user stores the order."""
    with environment(example, app, **aws) as function:
        assert function.invoke({"item": "tea"}) == {"id": 1}


def test_a_login_from_a_store_of_ones_own(app: str, aws: dict[str, str]) -> None:
    """The user is the one that the store gives."""
    with environment("parameter_store.lambda_handler", app, **aws) as function:
        assert function.invoke(None) == "app"


def test_a_caller_beyond_the_budget(app: str, shop: Shop) -> None:
    """A role that may have no more connections is 503 over HTTP; with one more it is 200."""
    event = {"requestContext": {"http": {"method": "GET"}}}
    with environment("budget.lambda_handler", app.replace("//", "//app:pw@")) as function:
        shop.connection.execute("ALTER ROLE app CONNECTION LIMIT 0")
        answer = function.invoke(event)
        assert (answer["statusCode"], answer["headers"]["Retry-After"]) == (503, "5")
        shop.connection.execute("ALTER ROLE app CONNECTION LIMIT 1")
        assert function.invoke(event)["statusCode"] == 200


def test_a_login_from_an_asynchronous_store(app: str) -> None:
    """A login that is refused makes the store's next question a fresh one."""
    asked = []

    class Agent(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            asked.append(self.rfile.readline())
            user = "nobody" if len(asked) == 1 else "app"
            self.wfile.write(json.dumps({"user": user, "password": "pw"}).encode() + b"\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Agent) as server:
        threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
        port = str(server.server_address[1])
        with environment("agent.lambda_handler", app, AGENT_PORT=port) as function:
            assert function.invoke(None) == "app"
        server.shutdown()
    assert asked == [b"cached orders\n", b"fresh orders\n"]


def test_orders_over_the_data_api() -> None:
    """The page's test of a handler prints the new id, and the calls."""
    command = [sys.executable, "orders_data_api.py"]
    run = subprocess.run(command, cwd=EXAMPLES, capture_output=True, text=True, check=True)
    id_, calls = run.stdout.splitlines()
    assert id_ == "{'id': 1}"
    assert ast.literal_eval(calls)[-3:] == ["BeginTransaction", "Execute", "CommitTransaction"]


def test_a_login_by_iam(shop: Shop, aws: dict[str, str]) -> None:
    """To a server that speaks no TLS the token is not sent."""
    with (
        environment("orders_iam.lambda_handler", re.sub("//.*@", "//app@", shop.url), **aws) as function,
        pytest.raises(FunctionError, match="untrusted"),
    ):
        function.invoke({"item": "tea"})
    assert shop.rows("SELECT FROM orders") == []


def test_orders_through_a_proxy_and_from_the_readers(shop: Shop, server: Postgres) -> None:
    """Orders are stored through the proxy, which pins nobody, and read from a standby."""
    with Standby(server) as standby, RdsProxy(server) as proxy:
        url, reader = proxy.url("own"), f"127.0.0.1:{standby.port}"
        with environment("orders_proxy.lambda_handler", url, READER_HOST=reader) as function:
            assert function.invoke({"item": "tea"}) == {"id": 1}
            for _ in range(1000):  # a standby follows a moment later
                if (found := function.invoke({})) != {"items": []}:
                    break
        assert found == {"items": ["tea"]}
        assert proxy.pins == []


def test_orders_behind_an_api(shop: Shop) -> None:
    """An order that is there, and one that is not."""
    shop.connection.execute("INSERT INTO orders (item) VALUES ('tea')")
    answer = shop.invoke("orders_api.lambda_handler", {"pathParameters": {"id": "1"}})
    assert answer == {"statusCode": 200, "body": '{"item": "tea"}'}
    missing = shop.invoke("orders_api.lambda_handler", {"pathParameters": {"id": "2"}})
    assert missing == {"statusCode": 404}


def test_rows_of_one_tenant(shop: Shop) -> None:
    """Each invocation sees its tenant's rows, and a transaction without a tenant sees none."""
    shop.connection.execute((EXAMPLES / "tenants.sql").read_bytes())
    shop.connection.execute("INSERT INTO invoice (tenant, amount) VALUES ('a', 3), ('a', 4), ('b', 9)")
    url = make_url(shop.url)
    shop.connection.execute(f"CREATE ROLE clerk LOGIN PASSWORD '{url.password}'".encode())
    shop.connection.execute("GRANT ALL ON invoice TO clerk")
    clerk = url.set(username="clerk").render_as_string(hide_password=False)
    try:
        with environment("tenants.lambda_handler", clerk) as function:
            assert [function.invoke({"tenant": name}) for name in ("a", "b", "", "a")] == [7, 9, 0, 7]
    finally:
        shop.connection.execute("DROP OWNED BY clerk; DROP ROLE clerk")


def test_a_session_cleared_between_invocations(shop: Shop) -> None:
    """What one invocation sets the next one does not find."""
    first = shop.invoke("tenants_reset.lambda_handler", None)
    assert shop.invoke("tenants_reset.lambda_handler", None, None) == first


def test_a_framework_behind_mangum(shop: Shop) -> None:
    """The order and the note of its background task are stored."""
    pytest.importorskip("mangum", reason="the group `test` has fastapi and mangum")
    event = {
        "version": "2.0",
        "requestContext": {"http": {"method": "POST", "path": "/orders/tea", "sourceIp": "::1"}},
        "rawPath": "/orders/tea",
        "rawQueryString": "",
        "headers": {"host": "api.example"},
        "isBase64Encoded": False,
    }
    answer = shop.invoke("api.lambda_handler", event, event)
    assert isinstance(answer, dict)
    assert (answer["statusCode"], answer["body"]) == (200, '{"id":2}')
    assert shop.rows("SELECT note FROM audit ORDER BY note") == [("order 1",), ("order 2",)]


@pytest.mark.parametrize("handler", ["orders_api.lambda_handler", "function.lambda_handler"])
def test_an_api_whose_database_sleeps(handler: str) -> None:
    """503 with Retry-After, before the function's time is over."""
    event = {"requestContext": {"http": {"method": "GET"}}, "pathParameters": {"id": "1"}}
    with (
        Postgres() as server,
        Cluster(server, auto_pause=60.0, resume=60.0, paused=True) as cluster,
        environment(handler, cluster.url(), timeout=3.0) as function,
    ):
        answer = function.invoke(event)
    assert isinstance(answer, dict)
    assert answer["statusCode"] == 503
    assert 0 < int(answer["headers"]["Retry-After"]) <= 15


def test_notes_survive_the_rollback(shop: Shop) -> None:
    """The second session's notes stay, the refused order does not."""
    with pytest.raises(FunctionError, match="quantity must be 1 or more"):
        shop.invoke(
            "audit.lambda_handler", {"item": "tea", "quantity": 2}, {"item": "milk", "quantity": 0}
        )
    assert shop.rows("SELECT item FROM orders") == [("tea",)]
    notes = shop.rows("SELECT note FROM audit ORDER BY id")
    assert notes == [("order of tea",), ("order of milk",), ("refused",)]


@pytest.mark.parametrize(
    ("handler", "event"),
    [
        ("transfer.lambda_handler", {"source": "ann", "target": "bob", "amount": 30}),
        ("transfer.pay_in_handler", {"name": "bob", "amount": 30}),
        ("transfer_orm.lambda_handler", {"name": "bob", "amount": 30}),
        ("transfer_async.lambda_handler", {"name": "bob", "amount": 30}),
    ],
)
def test_transfers(handler: str, event: object, shop: Shop) -> None:
    """Each is done once, whatever way it is written."""
    assert shop.invoke(handler, event, event) == 60
    assert shop.rows("SELECT balance FROM account WHERE name = 'bob'") == [(60,)]


def test_a_traced_order(shop: Shop) -> None:
    """The block, and in it the connect and the statement; nothing of what is outside."""
    with XRayDaemon() as daemon:
        variables = {"AWS_XRAY_DAEMON_ADDRESS": daemon.address}
        with environment("traced.lambda_handler", shop.url, **variables) as function:
            assert function.invoke({"item": "tea"}) == {"id": 1, "orders": 1}
        place = "own@127.0.0.1"
        (tree,) = nested(daemon.settle())
    assert tree.names == ("store_order", (place, ("attempt",)), (place,))
    assert daemon.problems == []


def test_orders_that_are_traced_otherwise(shop: Shop) -> None:
    """With OpenTelemetry's spans, which nobody receives here, and with lines in the log."""
    assert shop.invoke("traced_otel.lambda_handler", {"item": "tea"}) == {"id": 1}
    with environment("logged.lambda_handler", shop.url) as function:
        assert function.invoke({"item": "tea"}) == {"id": 2}
        assert json.loads(function.log[0])["lambdadb"] == "connect"


def test_a_tracer_of_ones_own() -> None:
    """It tells how long a resume took."""
    with (
        Postgres() as server,
        Cluster(server, auto_pause=60.0, resume=1.0, paused=True) as cluster,
        environment("own_tracer.lambda_handler", cluster.url()) as function,
    ):
        with pytest.raises(FunctionError, match="orders"):  # there is no such table
            function.invoke(None)
        (line,) = [line for line in function.log if line.startswith("{")]
        assert 1.0 <= json.loads(line)["Resume"] < 20.0


def test_payments_are_booked_once(shop: Shop) -> None:
    """A message that is delivered again changes nothing; a payment that cannot be booked is an error."""
    event = {"Records": [{"messageId": "m-1", "body": json.dumps({"name": "bob", "amount": 30})}]}
    shop.invoke("payments.lambda_handler", event, event)
    assert shop.rows("SELECT balance FROM account WHERE name = 'bob'") == [(30,)]
    event["Records"] = [{"messageId": "m-2", "body": json.dumps({"name": "ann", "amount": -101})}]
    with pytest.raises(FunctionError, match="balance_check"):
        shop.invoke("payments.lambda_handler", event)
    assert shop.rows("SELECT message FROM handled") == [("m-1",)]


def messages(*items: object) -> dict[str, object]:
    """An event of a queue, with messages m-1, m-2 and so on."""
    records = [
        {"messageId": f"m-{number}", "body": json.dumps({"item": item, "quantity": 1})}
        for number, item in enumerate(items, 1)
    ]
    return {"Records": records}


def given_back(*names: str) -> dict[str, object]:
    return {"batchItemFailures": [{"itemIdentifier": name} for name in names]}


def test_messages_of_a_queue(shop: Shop) -> None:
    """Each is stored once; one that cannot be stored is given back, and the one after it stored."""
    with environment("messages.lambda_handler", shop.url) as function:
        assert function.invoke(messages("tea", None, "milk")) == given_back("m-2")
        assert function.invoke(messages("tea", "rice", "milk")) == given_back()
    assert shop.rows("SELECT item FROM orders ORDER BY id") == [("tea",), ("milk",), ("rice",)]


def test_messages_that_the_time_is_too_short_for(shop: Shop) -> None:
    """A message that waits for a lock until the time is over is given back with those after it."""
    with (
        psycopg.connect(shop.url.replace("+psycopg", "")) as other,
        environment("messages.lambda_handler", shop.url, timeout=2.5) as function,
    ):
        function.start()
        other.execute("INSERT INTO handled VALUES ('m-2')")
        assert function.invoke(messages("tea", "rice", "milk")) == given_back("m-2", "m-3")
    assert shop.rows("SELECT item FROM orders") == [("tea",)]


@pytest.mark.sweep
def test_messages_whose_database_sleeps() -> None:
    """The first message's error is raised, so that the whole batch is delivered again."""
    with (
        Postgres() as server,
        Cluster(server, auto_pause=60.0, resume=60.0, paused=True) as cluster,
        environment("messages.lambda_handler", cluster.url(), timeout=3.0) as function,
        pytest.raises(FunctionError, match="DatabaseResuming"),
    ):
        function.invoke(messages("tea", "milk"))


def test_documents(shop: Shop) -> None:
    """The nearest document comes first, by L2 distance."""
    documents = [
        {"content": content, "embedding": [value] * 1536}
        for content, value in (("far", 1.0), ("near", 0.0), ("nearest", 0.5))
    ]
    answer = shop.invoke("documents.lambda_handler", *documents, {"embedding": [0.4] * 1536})
    assert answer == ["nearest", "near", "far"]


def test_the_tutorial(tmp_path: Path) -> None:
    """Its two files, as the reader runs them: a visit per Enter, with the function's name."""
    for name in ("function.py", "invoke.py"):
        (tmp_path / name).write_bytes((EXAMPLES / name).read_bytes())
    with Postgres() as server, Cluster(server, auto_pause=60.0, resume=1.0, paused=True) as cluster:
        done = subprocess.run(
            [sys.executable, "invoke.py", cluster.url()],
            cwd=tmp_path,
            input="\n\n",
            capture_output=True,
            text=True,
            timeout=50,
            check=True,
        )
    assert "Enter invokes" in done.stdout
    assert re.findall(r'"visit": \d+, "sessions": \[[^]]*\]', done.stdout) == [
        '"visit": 1, "sessions": ["tutorial"]',
        '"visit": 2, "sessions": ["tutorial"]',
    ]


def test_a_region_is_the_statements_named(tmp_path: Path) -> None:
    """From the first to the last of them, decorators included."""
    file: Callable[[str], Path] = tmp_path.joinpath
    file("a.py").write_text("import os\n\na = 1\nb = [\n    2,\n]\n\n\n@c\ndef d(): ...\n\n\ne = 3\n")
    assert region(file("a.py"), ["a", "b"]) == "a = 1\nb = [\n    2,\n]\n"
    assert region(file("a.py"), ["d"]) == "@c\ndef d(): ...\n"
