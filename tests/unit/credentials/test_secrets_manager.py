"""What is read of a secret and when, and that a rotation at any moment keeps nobody out."""

from __future__ import annotations

import base64
import copy
import json
import pickle
import threading
import traceback
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambdadb import InvalidSettings
from lambdadb.credentials import LoginUnavailable
from lambdadb.credentials.secrets_manager import FIRST_PAUSE, LONGEST_PAUSE, SecretsManager

from ..conftest import VirtualClock

CANARY = "canary-7f3a9"
URL = {"host": "url-host", "user": "url_user", "database": "url_db"}
FULL = '{"engine": "any", "username": "app", "password": "pw", "host": "h", "port": 5433, "dbname": "d"}'


class Refusal(Exception):
    """An answer of the service, in the form of botocore's ClientError."""

    def __init__(self, code: str, status: int = 400, message: str = "as said") -> None:
        super().__init__(code)
        self.response = {
            "Error": {"Code": code, "Message": message},
            "ResponseMetadata": {"HTTPStatusCode": status},
        }


class Client:
    """boto3's client with a secret value, or an exception, for each stage."""

    def __init__(self, **stages: Any) -> None:
        self.stages: dict[str, Any] = stages
        self.read: list[str] = []

    def get_secret_value(self, SecretId: str, VersionStage: str) -> dict[str, Any]:
        self.read.append(VersionStage)
        value = self.stages.get(VersionStage, Refusal("ResourceNotFoundException"))
        if isinstance(value, Exception):
            raise value
        return value if isinstance(value, dict) else {"SecretString": value}


def first(value: Any, parameters: Any = URL) -> dict[str, Any]:
    store = SecretsManager("orders/app", client=Client(AWSCURRENT=value))
    return dict(next(iter(store.logins(parameters))))


def failure(value: Any, parameters: Any = URL) -> str:
    with pytest.raises(LoginUnavailable) as caught:
        first(value, parameters)
    return str(caught.value)


@pytest.mark.parametrize(
    ("value", "parameters", "login"),
    [
        ("pw", URL, {"password": "pw"}),
        ("pw\n", URL, {"password": "pw"}),
        ("pw\r\n", URL, {"password": "pw"}),
        ("pw \n\n", URL, {"password": "pw \n"}),
        ("123456", URL, {"password": "123456"}),
        ('"pw"', URL, {"password": '"pw"'}),
        ({"SecretBinary": b"pw"}, URL, {"password": "pw"}),
        ({"SecretBinary": base64.b64encode(b"pw\n").decode()}, URL, {"password": "pw"}),
        (FULL, URL, {"user": "app", "password": "pw", "port": 5433}),
        ({"SecretBinary": FULL.encode()}, URL, {"user": "app", "password": "pw", "port": 5433}),
        (FULL, {}, {"user": "app", "password": "pw", "host": "h", "port": 5433, "database": "d"}),
        (FULL, {**URL, "port": 6432}, {"user": "app", "password": "pw"}),
        ('{"username": "app", "password": "pw"}', {}, {"user": "app", "password": "pw"}),
        ('{"password": "pw", "host": null}', {"user": "u"}, {"password": "pw"}),
        ('{"username": 7, "password": 1.50}', {}, {"user": "7", "password": "1.50"}),
    ],
)
def test_every_shape_of_a_secret(value, parameters, login):
    """A plain password, RDS's JSON, binary of either: the user is the secret's, the rest fills gaps."""
    assert first(value, parameters) == login


@pytest.mark.parametrize(
    "value", [f'{{"pass": "{CANARY}", "user": "x"}}', f'{{"pass": "x", "{CANARY}": 1, "password": ""}}']
)
def test_json_without_a_password_is_named_by_its_keys(value):
    """The error shows which keys there are and which are read, and no value."""
    text = failure(value)
    assert "'orders/app' has no password. It is JSON with the keys pass" in text
    assert "reads username, password" in text
    assert CANARY not in text


def test_a_password_without_a_user_is_an_error():
    """A password alone needs the URL's user: without it, libpq would take the operating system's."""
    assert "has no username" in failure("pw", {"host": "h"})


@pytest.mark.parametrize("value", ["", {"SecretBinary": b"\xff\xfe" + CANARY.encode()}])
def test_what_is_not_text_is_an_error(value):
    """An empty secret and one that is no text are named as such."""
    assert "is empty, or binary and not text" in failure(value)


def test_without_a_name_there_is_no_secret():
    """An environment variable that is not set is found while building."""
    with pytest.raises(InvalidSettings, match="environment variable"):
        SecretsManager("")


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("AccessDeniedException", "secretsmanager:GetSecretValue"),
        ("AccessDeniedException", "kms:Decrypt"),
        ("ResourceNotFoundException", "region"),
        ("InvalidRequestException", "marked for deletion"),
        ("DecryptionFailure", "KMS key"),
    ],
)
def test_an_answer_that_will_not_change_says_what_to_do(code, hint):
    """The service's own word, its code, the secret's id and the remedy."""
    text = failure(Refusal(code))
    assert text.startswith(f"Secret 'orders/app' could not be read: {code} (as said). ")
    assert hint in text


def test_a_refused_signature_shows_no_request():
    """The service repeats the request in such a message, the session token with it."""
    text = failure(Refusal("InvalidSignatureException", message=CANARY))
    assert "InvalidSignatureException. Check the AWS keys" in text
    assert CANARY not in text


@pytest.mark.parametrize(
    "error",
    [Refusal("InternalServiceError", 500), Refusal("ThrottlingException"), TimeoutError("too slow")],
)
def test_a_given_client_is_the_only_source(error, monkeypatch):
    """With `client`, nothing else is asked, even where there is an extension and there are keys."""
    for name in ("AWS_LAMBDA_FUNCTION_NAME", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID"):
        monkeypatch.setenv(name, "x")
    client = Client(AWSCURRENT=error)
    store = SecretsManager("orders/app", client=client)
    with pytest.raises(LoginUnavailable, match="could not be read"):
        next(iter(store.logins(URL)))
    assert client.read == ["AWSCURRENT"]


def test_a_refused_login_is_read_anew_in_the_order_of_a_rotation():
    """Current from memory or source, current as it is now, pending, and current once more."""
    client = Client(AWSCURRENT="old", AWSPENDING="new")
    logins = SecretsManager("orders/app", client=client).logins(URL)
    assert [login["password"] for login in logins] == ["old", "old", "new", "old"]
    assert client.read == ["AWSCURRENT", "AWSCURRENT", "AWSPENDING", "AWSCURRENT"]


@pytest.mark.parametrize("code", ["ResourceNotFoundException", "AccessDeniedException"])
def test_a_pending_version_that_is_not_there_is_skipped(code):
    """Usually there is none, or the role may read the current one only."""
    client = Client(AWSCURRENT="pw", AWSPENDING=Refusal(code))
    assert len(list(SecretsManager("orders/app", client=client).logins(URL))) == 3


def test_a_secret_is_read_once_in_max_age_seconds():
    """Frozen time counts: the clock's, whatever the process saw of it."""
    clock, client = VirtualClock(), Client(AWSCURRENT="pw")
    store = SecretsManager("orders/app", client=client, max_age=60.0, clock=clock)
    reads = []
    for wait in (0.0, 59.0, 2.0, 59.0):
        clock.time += wait
        next(iter(store.logins(URL)))
        reads.append(len(client.read))
    assert reads == [1, 1, 2, 2]


def test_an_outage_of_the_store_is_no_outage_of_the_database(caplog):
    """A secret that is too old and cannot be read anew is used, with a warning; none is an error."""
    clock = VirtualClock()
    client = Client(AWSCURRENT="old")
    store = SecretsManager("orders/app", client=client, max_age=60.0, clock=clock)
    next(iter(store.logins(URL)))
    client.stages["AWSCURRENT"] = ConnectionError("no route")
    clock.time += 60.0
    assert [next(iter(store.logins(URL)))["password"] for _ in range(2)] == ["old", "old"]
    assert client.read == ["AWSCURRENT"] * 2
    client.stages["AWSCURRENT"] = Refusal("AccessDeniedException")
    clock.time += 60.0
    with pytest.raises(LoginUnavailable, match="AccessDenied"):
        next(iter(store.logins(URL)))
    with pytest.raises(LoginUnavailable, match="no route"):
        first(ConnectionError("no route"))


def test_the_login_that_was_accepted_is_kept():
    """The next connect begins with what came last, and with the source if all were refused."""
    clock, client = VirtualClock(), Client(AWSCURRENT="old", AWSPENDING="new")
    store = SecretsManager("orders/app", client=client, clock=clock)
    for login in store.logins(URL):
        if login["password"] == "new":
            break
    client.read.clear()
    assert next(iter(store.logins(URL)))["password"] == "new"
    assert client.read == []
    assert len(list(store.logins(URL))) == 4
    client.read.clear()
    clock.time += FIRST_PAUSE
    assert next(iter(store.logins(URL)))["password"] == "old"
    assert client.read == ["AWSCURRENT"]


def test_one_store_serves_engines_with_different_urls():
    """What is kept is the secret, not what one URL made of it."""
    store = SecretsManager("orders/app", client=Client(AWSCURRENT=FULL))
    assert "database" not in next(iter(store.logins(URL)))
    assert next(iter(store.logins({})))["database"] == "d"


def test_two_threads_read_at_the_same_time():
    """No thread waits for another one's request."""
    meeting = threading.Barrier(2)

    class Meeting(Client):
        def get_secret_value(self, **keywords: str) -> dict[str, Any]:
            meeting.wait(10)
            return {"SecretString": "pw"}

    store = SecretsManager("orders/app", client=Meeting())
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(next(iter(store.logins(URL))))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert found == [{"password": "pw"}] * 2


def test_the_secret_is_not_shown_and_not_stored():
    """Neither repr nor vars shows it; a copy and a pickle go without it."""
    store = SecretsManager("orders/app", client=Client(AWSCURRENT=CANARY))
    next(iter(store.logins(URL)))
    assert repr(store) == "SecretsManager('orders/app')"
    store._reader._client = None
    assert CANARY not in repr(vars(store))
    assert CANARY.encode() not in pickle.dumps(store)
    assert copy.copy(store)._kept is None


@pytest.mark.parametrize(
    "value",
    [
        f'{{"pass": "{CANARY}"}}',
        {"SecretBinary": b"\xff" + CANARY.encode()},
        {"SecretBinary": f"#{CANARY}"},
        {"Other": CANARY},
    ],
)
def test_no_exception_carries_the_secret(value):
    """Neither an error nor anything in its chain."""
    store = SecretsManager("orders/app", client=Client(AWSCURRENT=value))
    with pytest.raises(LoginUnavailable) as caught:
        next(iter(store.logins(URL)))
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert CANARY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (f'{{"password": "{CANARY}"', "not valid JSON"),
        (f"{{{CANARY}}}", "not valid JSON"),
        (f' {{"password": {CANARY}}}', "not valid JSON"),
        (f'{{"password": "{CANARY}", "port": NaN}}', "not valid JSON"),
        (f'{{"password": "{CANARY}"}} x', "not valid JSON"),
        ('{"a":' * 100_000, "not valid JSON"),
        (f'\ufeff{{"password": "{CANARY}"', "not valid JSON"),
        (f'{{"password": ["{CANARY}"]}}', "password is neither text nor a number"),
        (f'{{"password": true, "x": "{CANARY}"}}', "password is neither"),
        (f'{{"username": {{}}, "password": "{CANARY}"}}', "username is neither"),
        (f'{{"host": ["h"], "password": "{CANARY}"}}', "host is neither"),
        (f'{{"dbname": [], "password": "{CANARY}"}}', "dbname is neither"),
        (f'{{"port": [5432], "password": "{CANARY}"}}', "port is neither"),
        *(
            (f'{{"port": {port}, "password": "{CANARY}"}}', "port is not a number from 1 to 65535")
            for port in ("0", "65536", "-1", "5432.5", "1e3", '"5_432"', '" 5432"', '"x"', "9" * 5000)
        ),
        (f"{CANARY}\0x", "NUL"),
        (f'{{"password": "{CANARY}\\u0000x"}}', "NUL"),
        ("\n", "empty line"),
        ({"SecretString": 5}, "not text"),
        ({"SecretString": ["x"]}, "not text"),
        ({"SecretBinary": 5}, "not text"),
    ],
)
def test_a_secret_that_cannot_be_right_is_an_error_at_once(value, said):
    """Neither taken as a password nor passed over: nothing else is asked, and no value is shown."""
    client = Client(AWSCURRENT=value)
    with pytest.raises(LoginUnavailable, match=said) as caught:
        next(iter(SecretsManager("orders/app", client=client).logins(URL)))
    assert CANARY not in str(caught.value)
    assert client.read == ["AWSCURRENT"]


MARKED = st.text(max_size=3).map(lambda text: f"{text}{CANARY}{text}")
SCALARS = MARKED | st.none() | st.booleans() | st.integers() | st.floats()
KEYS = st.sampled_from(["username", "password", "host", "port", "dbname"]) | MARKED
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5)
)
SECRETS = st.one_of(
    st.binary(max_size=50).map(lambda raw: {"SecretBinary": raw + CANARY.encode()}),
    st.binary(max_size=50).map(lambda raw: {"SecretBinary": base64.b64encode(raw).decode()}),
    MARKED.map(lambda text: {"SecretBinary": text}),
    (MARKED | st.text()).map(lambda text: {"SecretString": text}),
    MARKED.map(lambda text: {"SecretString": "{" + text}),
    st.dictionaries(KEYS, VALUES, max_size=6).map(lambda d: {"SecretString": json.dumps(d)}),
    VALUES.map(lambda value: {"SecretString": value, "SecretBinary": value}),
    VALUES,
)


@settings(max_examples=150)
@given(answer=SECRETS, cut=st.integers(0, 3), parameters=st.sampled_from([URL, {}]))
def test_any_secret_is_a_login_or_a_clear_error(answer, cut, parameters):
    """Any bytes and any JSON, whole or cut off: text to log in with, or an error that shows nothing."""
    if cut and isinstance(answer, dict) and isinstance(answer.get("SecretString"), str):
        answer = {"SecretString": answer["SecretString"][:-cut]}

    class Source:
        def get_secret_value(self, **_: str) -> Any:
            return answer

    logins = SecretsManager("orders/app", client=Source()).logins(parameters)
    try:
        login = next(logins)
    except LoginUnavailable as error:
        shown = "".join(traceback.format_exception(error))
        login = {"password": "-"}
    else:
        shown = ""
    assert CANARY not in shown
    assert login["password"]
    assert all(isinstance(value, str) and "\0" not in value for k, value in login.items() if k != "port")
    assert 0 < login.get("port", 1) < 65536


def test_a_refused_secret_is_not_read_again_at_once():
    """An environment that goes on connecting asks 4 times, and then 4 times in 5, 10, 20 ... 60 s."""
    clock, client = VirtualClock(), Client(AWSCURRENT="wrong")
    store = SecretsManager("orders/app", client=client, clock=clock)
    pauses, before = [], 0
    last = clock.time
    for _ in range(4000):  # ten connects a second
        assert all(login["password"] == "wrong" for login in store.logins(URL))
        if len(client.read) > before:
            pauses.append(round(clock.time - last))
            before, last = len(client.read), clock.time
        clock.time += 0.1
    assert pauses[:5] == [0, 5, 10, 20, 40]
    assert set(pauses[5:]) == {round(LONGEST_PAUSE)}
    assert len(client.read) == 4 * len(pauses)


def test_a_refused_secret_is_tried_without_being_read():
    """The server may have been given it meanwhile; and a corrected secret is found after the pause."""
    clock, client = VirtualClock(), Client(AWSCURRENT="wrong")
    store = SecretsManager("orders/app", client=client, clock=clock)
    assert len(list(store.logins(URL))) == 3
    client.read.clear()
    assert [login["password"] for login in store.logins(URL)] == ["wrong"]
    assert client.read == []
    client.stages["AWSCURRENT"] = "right"
    clock.time += FIRST_PAUSE
    assert next(iter(store.logins(URL)))["password"] == "right"
    list(store.logins(URL))  # all refused: another secret, so the pause is the first one again
    assert store._refused.pause == FIRST_PAUSE


def test_throttling_costs_one_request():
    """Neither another source is asked nor another version: that would make more of what is too much."""
    client = Client(AWSCURRENT="old")
    store = SecretsManager("orders/app", client=client)
    logins = store.logins(URL)
    next(logins)
    for stage in ("AWSCURRENT", "AWSPENDING"):
        client.stages[stage] = Refusal("ThrottlingException")
        client.read.clear()
        with pytest.raises(LoginUnavailable, match="too many requests"):
            list(store.logins(URL))
        assert client.read.count(stage) == 1
        client.stages["AWSCURRENT"] = "old"


def test_throttling_is_no_outage_of_the_database(caplog):
    """A secret in memory that is too old is used, as where nobody answers."""
    clock, client = VirtualClock(), Client(AWSCURRENT="old")
    store = SecretsManager("orders/app", client=client, max_age=60.0, clock=clock)
    next(iter(store.logins(URL)))
    client.stages["AWSCURRENT"] = Refusal("TooManyRequestsException", 429)
    clock.time += 60.0
    assert next(iter(store.logins(URL)))["password"] == "old"
    assert "too many requests" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"session": object(), "client": object()}, "one of the two"),
        ({"session": object()}, r"boto3\.Session"),
        ({"client": object()}, "boto3.client"),
        ({"secret_id": None}, "environment variable"),
        ({"max_age": "3600"}, "seconds"),
    ],
)
def test_arguments_that_cannot_work_are_refused_at_once(arguments, said):
    """While the store is made, and by name."""
    with pytest.raises(InvalidSettings, match=said):
        SecretsManager(**{"secret_id": "orders/app", **arguments})


class World:
    """A secret and its database in a rotation, which goes on one step at a time."""

    def __init__(self, *, alternating: bool) -> None:
        self.alternating = alternating
        self.count = 0
        self.server = {"a": "a0", "b": "b0"}
        self.stages = {"AWSCURRENT": ("a", "a0")}
        self.next_step = 0
        self.connecting = False
        self.seen_by_connect = 0

    def connect_begins(self) -> None:
        self.connecting = True
        self.seen_by_connect = int(self.next_step > 0)

    def step(self, *, keep_label: bool) -> None:
        """createSecret, setSecret, testSecret or finishSecret; a connect sees no second rotation."""
        if self.next_step == 0:
            if self.connecting and self.seen_by_connect:
                return
            self.seen_by_connect += 1
            self.count += 1
            user = self.stages["AWSCURRENT"][0]
            user = {"a": "b", "b": "a"}[user] if self.alternating else user
            self.stages["AWSPENDING"] = (user, f"{user}{self.count}")
        elif self.next_step == 1:
            user, self.server[user] = self.stages["AWSPENDING"]
        elif self.next_step == 3:
            self.stages["AWSCURRENT"] = self.stages["AWSPENDING"]
            if not keep_label:
                del self.stages["AWSPENDING"]
        self.next_step = (self.next_step + 1) % 4

    def get_secret_value(self, SecretId: str, VersionStage: str) -> dict[str, str]:
        if VersionStage not in self.stages:
            raise Refusal("ResourceNotFoundException")
        user, password = self.stages[VersionStage]
        return {"SecretString": f'{{"username": "{user}", "password": "{password}"}}'}


@settings(max_examples=60)
@given(alternating=st.booleans(), keep_label=st.booleans(), data=st.data())
def test_no_connect_fails_whenever_a_rotation_takes_its_steps(alternating, keep_label, data):
    """Steps fall before and after every read and every login of two environments: all get in."""
    world = World(alternating=alternating)

    def pass_time(most: int) -> None:
        for _ in range(data.draw(st.integers(0, most))):
            world.step(keep_label=keep_label)

    class Source:
        def get_secret_value(self, **keywords: str) -> dict[str, str]:
            pass_time(1)
            return world.get_secret_value(**keywords)

    stores = [SecretsManager("orders/app", client=Source()) for _ in range(2)]
    for _ in range(6):
        pass_time(6)
        world.connect_begins()
        logins = data.draw(st.sampled_from(stores)).logins({})
        accepted = False
        while not accepted and (login := next(logins, None)):
            pass_time(1)
            accepted = world.server[login["user"]] == login["password"]
        assert accepted
        world.connecting = False
