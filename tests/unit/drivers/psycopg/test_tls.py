"""Which servers are verified, with which roots; and the roots themselves."""

from __future__ import annotations

import itertools
import re
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from sqlalchemy.engine import make_url

from lambdadb import ConnectFailed, Fault, InvalidSettings, create_engine
from lambdadb.drivers import roots as lookup
from lambdadb.drivers.base import AttemptFailed
from lambdadb.drivers.psycopg import tls

from ...conftest import connect

RDS = "orders.cluster-abc.eu-west-1.rds.amazonaws.com"
PROXY = "orders.proxy-abc.eu-west-1.rds.amazonaws.com"
CHINA = "orders.abc.rds.cn-north-1.amazonaws.com.cn"


def roots(name: str) -> str:
    return str(lookup.ROOTS / f"{name}.pem")


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"host": "localhost"},
        {"host": "127.0.0.2", "port": 5433},
        {"host": "::1"},
        {"host": "/var/run/postgresql"},
        {"host": "@abstract,/tmp,LOCALHOST"},
        {"hostaddr": "127.0.0.1"},
        {"host": "localhost", "hostaddr": "127.0.0.1,::1"},
    ],
)
def test_this_machine_is_not_verified(parameters):
    """A loopback address or a socket needs no certificate: a developer's server has none."""
    assert tls.apply_tls_defaults(parameters, {}) == parameters
    always = tls.apply_tls_defaults(parameters, {"SSL_CERT_FILE": "/system.pem"}, always=True)
    assert always == {**parameters, "sslmode": "verify-full", "sslrootcert": "/system.pem"}
    assert tls.get_tls_warning({**parameters, "sslmode": "disable"}, {}) is None


@pytest.mark.parametrize(
    ("parameters", "file"),
    [
        ({"host": RDS}, roots("eu-west-1")),
        ({"host": RDS.upper() + "."}, roots("eu-west-1")),
        ({"host": f"{RDS},reader.{RDS}"}, roots("eu-west-1")),
        ({"host": "a.abc.us-gov-west-1.rds.amazonaws.com"}, roots("us-gov-west-1")),
        ({"host": PROXY}, roots("proxy")),
        ({"host": f"reader.endpoint.{PROXY}"}, roots("proxy")),
        ({"host": f"{RDS}.example"}, "/system.pem"),
        ({"host": "db.example", "hostaddr": "127.0.0.1"}, "/system.pem"),
        ({"host": "localhost", "hostaddr": "10.0.0.7"}, "/system.pem"),
        ({"host": "localhost,db.example"}, "/system.pem"),
        ({"hostaddr": "10.0.0.7"}, "/system.pem"),
        ({"host": "localhost.example"}, "/system.pem"),
        ({"host": RDS, "sslmode": "verify-ca"}, roots("eu-west-1")),
        ({"host": RDS, "sslrootcert": "/own.pem"}, "/own.pem"),
    ],
)
def test_any_other_host_is_verified_with_its_own_roots(parameters, file):
    """Without a word from the caller, a remote server has to prove its name."""
    expected = {"sslmode": "verify-full", **parameters, "sslrootcert": file}
    assert tls.apply_tls_defaults(parameters, {"SSL_CERT_FILE": "/system.pem"}) == expected


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "require"])
@pytest.mark.parametrize("where", ["parameters", "environment"])
def test_an_explicit_choice_is_respected_and_named(mode, where):
    """What the caller says is done, and what it leaves unverified can be logged."""
    chosen, environment = ({"sslmode": mode}, {}) if where == "parameters" else ({}, {"PGSSLMODE": mode})
    parameters = {"host": RDS, **chosen}
    assert tls.apply_tls_defaults(parameters, environment) == {"host": RDS, "sslmode": mode}
    assert f"sslmode={mode} " in (tls.get_tls_warning(parameters, environment) or "")


def test_what_is_not_weaker_is_not_named():
    """No warning without a reason; verify-ca is one, and a service file that lambdadb does not read."""
    assert tls.get_tls_warning({"host": RDS}, {}) is None
    assert tls.get_tls_warning({"host": RDS, "sslmode": "verify-full"}, {}) is None
    assert "for this host" in (tls.get_tls_warning({"host": RDS, "sslmode": "verify-ca"}, {}) or "")
    assert "service file" in (tls.get_tls_warning({}, {"PGSERVICE": "orders"}) or "")
    assert tls.get_tls_warning({"host": RDS}, {"PGSERVICE": "orders"}) is None


def test_libpqs_own_variables_and_file_count(tmp_path):
    """The environment says host, mode and roots where the parameters do not, as in libpq."""
    environment = {"PGHOST": RDS, "PGSSLROOTCERT": "/own.pem", "HOME": str(tmp_path)}
    assert tls.apply_tls_defaults({}, environment) == {
        "sslmode": "verify-full",
        "sslrootcert": "/own.pem",
    }
    assert tls.apply_tls_defaults({"host": "/tmp"}, environment) == {"host": "/tmp"}
    del environment["PGSSLROOTCERT"]
    assert tls.apply_tls_defaults({}, environment)["sslrootcert"] == roots("eu-west-1")
    own = tmp_path / ".postgresql" / "root.crt"
    own.parent.mkdir()
    own.touch()
    assert tls.apply_tls_defaults({}, environment)["sslrootcert"] == str(own)


def refusal(host: str) -> str:
    with pytest.raises(AttemptFailed) as caught:
        tls.apply_tls_defaults({"host": host}, {})
    assert caught.value.fault is Fault.UNTRUSTED
    return caught.value.text


@pytest.mark.parametrize(
    ("host", "published"),
    [
        (
            RDS.replace("eu-west-1", "eu-moon-7"),
            "//truststore.pki.rds.amazonaws.com/eu-moon-7/eu-moon-7-bundle.pem ",
        ),
        (
            RDS.replace("eu-west-1", "us-gov-moon-7"),
            "//truststore.pki.us-gov-west-1.rds.amazonaws.com/us-gov-moon-7/us-gov-moon-7-bundle.pem ",
        ),
        (CHINA, "//rds-truststore.s3.cn-north-1.amazonaws.com.cn/cn-north-1/cn-north-1-bundle.pem "),
        (
            "orders.abc.cn-north-1.rds.amazonaws.com.cn",
            "//rds-truststore.s3.cn-north-1.amazonaws.com.cn/cn-north-1/cn-north-1-bundle.pem ",
        ),
    ],
)
def test_a_region_without_roots_is_an_error_that_says_where_they_are(host, published):
    """Never a silent fall back to the system's roots, which would refuse it without a reason."""
    assert published in refusal(host)
    assert "?sslrootcert=/var/task/" in refusal(host)


def test_hosts_of_different_authorities_need_a_file_of_the_callers():
    """libpq takes one file for all hosts."""
    assert "us-west-2.pem" in refusal(f"{RDS},{RDS.replace('eu-west-1', 'us-west-2')}")


def test_the_systems_roots_are_found_or_missed_aloud(tmp_path, monkeypatch):
    """Python knows them, or they are at one of the usual places, or there is an error."""
    known = tmp_path / "known.pem"
    paths = type("Paths", (), {"cafile": str(known)})
    monkeypatch.setattr(lookup.ssl, "get_default_verify_paths", lambda: paths)
    usual = tmp_path / "usual.pem"
    monkeypatch.setattr(lookup, "SYSTEM_ROOTS", (str(tmp_path / "missing.pem"), str(usual)))
    assert "no public root certificates" in refusal("db.example")
    usual.touch()
    assert tls.apply_tls_defaults({"host": "db.example"}, {})["sslrootcert"] == str(usual)
    known.touch()
    assert tls.apply_tls_defaults({"host": "db.example"}, {})["sslrootcert"] == str(known)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ('server certificate for "a" does not match host name "b"', "not an alias"),
        ("server does not support SSL, but SSL was required", "?sslmode=disable"),
        ("received invalid response to SSL negotiation: H", "is not PostgreSQL"),
        ('root certificate file "/none" does not exist\nEither provide the file, or', "deploy the file"),
        ("host name must be specified for a verified SSL connection", "add host="),
        ("could not load system root certificate paths: no", "/var/task/root.pem"),
    ],
)
def test_what_libpq_says_comes_back_with_what_to_do(text, advice):
    """Its own text stays, but for a hint that does not work in Lambda."""
    explained = tls.explain_rejection({}, text, 1.0)
    assert explained.startswith(text.partition("\n")[0])
    assert advice in explained
    assert "Either" not in explained


def test_a_text_of_another_kind_comes_back():
    """Nothing is invented."""
    assert tls.explain_rejection({}, "something new", 1.0) == "something new."


FILES = sorted(lookup.ROOTS.glob("*.pem"))


@pytest.mark.filterwarnings("ignore:Parsed a serial number")  # Starfield's is 0
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_holds_the_roots_of_its_name(file: Path):
    """Self-signed authorities, valid for years, those of the region that the file is named after."""
    text = file.read_bytes()
    certificates = x509.load_pem_x509_certificates(text)
    assert len(certificates) == text.count(b"BEGIN")
    names = []
    for certificate in certificates:
        assert certificate.issuer == certificate.subject
        certificate.verify_directly_issued_by(certificate)
        assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        now = datetime.now(timezone.utc)
        assert certificate.not_valid_before_utc < now < certificate.not_valid_after_utc - timedelta(1000)
        (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        names.append(name.value)
    if file.stem == "proxy":
        starfield = "Starfield Services Root Certificate Authority - G2"
        assert names == [*(f"Amazon Root CA {number}" for number in (1, 2, 3, 4)), starfield]
    else:
        keys = ("RSA2048", "RSA4096", "ECC384")
        assert names == [f"Amazon RDS {file.stem} Root CA {key} G1" for key in keys]


def test_the_roots_are_those_of_every_region():
    """34 commercial regions and two of GovCloud, each a name that an endpoint can have."""
    regions = {file.stem for file in FILES} - {"proxy"}
    assert len(regions) == 36
    assert all(re.fullmatch(r"[a-z]{2}(-gov)?-[a-z]+-\d", region) for region in regions)


def test_the_pages_comparison_runs_as_written(tmp_path):
    """Beside a virtual environment: nothing for AWS's own file, the lines that differ for another."""
    page = (Path(__file__).parents[4] / "docs" / "tls.md").read_text()
    (command,) = re.findall(r"^grep .*$", page, re.M)
    package = tmp_path / ".venv" / "lib" / "python3.11" / "site-packages" / "lambdadb"
    package.mkdir(parents=True)
    (package / "roots").symlink_to(lookup.ROOTS)
    ours = (lookup.ROOTS / "eu-west-1.pem").read_text()
    for theirs, different in ((ours + "# and intermediates\n", False), (ours[5000:], True)):
        (tmp_path / "eu-west-1-bundle.pem").write_text(theirs)
        done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
        assert bool(done.stdout) is different
        assert done.stderr == ""


MODES = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
PLACES = ["url", "connect_args", "PGSSLMODE"]
SERVICES: list[dict[str, str]] = [{}, {"service": "orders"}, {"PGSERVICE": "orders"}]
HOSTS: dict[str, tuple[str, bool]] = {
    # How the URL names it, and whether that is this machine.
    "none": ("/db", True),
    "socket": ("/db?host=/var/run/postgresql", True),
    "loopback name": ("localhost/db", True),
    "loopback address": ("127.0.0.1:5433/db", True),
    "name": ("db.example/db", False),
    "endpoint": (f"{RDS}/db", False),
    "private address": ("172.17.0.2/db", False),
    "one of two": ("/db?host=localhost:1&host=db.example:2", False),
    "address behind a local name": ("localhost/db?hostaddr=10.0.0.7", False),
    "PGHOST": ("/db", False),  # with a service the host is the file's, which wins over PGHOST
}


class OwnStore:
    """A store of one's own, which counts how often it is asked."""

    requires_verified_server = False
    asked = 0

    def logins(self, parameters):
        self.asked += 1
        return [{"user": "u", "password": "canary-store"}]


class TokenStore(OwnStore):
    """As RdsIam."""

    requires_verified_server = True


def may_get_the_login(mode, place, service, local, token, allow):
    """The rule, in its own words: whether a login of a store is sent."""
    if service and local and (mode is None or place == "PGSSLMODE"):
        return allow and not token  # the file decides alone
    if mode in (None, "verify-full"):
        return True
    if local and not service and not token:
        return True  # nothing leaves this machine
    if token and mode in ("disable", "allow", "prefer"):
        return False  # never unencrypted
    return allow


@pytest.mark.parametrize("allow", [False, True])
@pytest.mark.parametrize("kind", [OwnStore, TokenStore])
@pytest.mark.parametrize("host", HOSTS)
def test_the_rule_of_verified_servers(host, kind, allow, connector_to):
    """Every sslmode in every place, with and without a service: refused unasked, or sent as it says."""
    where, local = HOSTS[host]
    silence = AttemptFailed(Fault.UNREACHABLE, "no answer", silent=True)
    dialect = create_engine("postgresql+psycopg://h/d").dialect
    places = [(None, "url"), *itertools.product(MODES, PLACES)]
    for (mode, place), service in itertools.product(places, SERVICES):
        url = make_url(f"postgresql+psycopg://{where}")
        arguments = {"sslmode": mode} if mode and place == "connect_args" else {}
        environment = {"SSL_CERT_FILE": "/system.pem"}
        if mode and place == "url":
            url = url.update_query_dict({"sslmode": mode})
        if mode and place == "PGSSLMODE":
            environment["PGSSLMODE"] = mode
        url = url.update_query_dict({k: v for k, v in service.items() if k == "service"})
        environment |= {k: v for k, v in service.items() if k != "service"}
        if host == "PGHOST":
            environment["PGHOST"] = "db.example"
            local = bool(service)
        case = (str(url), arguments, environment)
        expected = may_get_the_login(mode, place, service, local, kind is TokenStore, allow)

        store = kind()
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            keywords = {"allow_unverified_server": allow, "connect_args": arguments}
            if expected:
                create_engine(url, credentials=store, **keywords)
            else:
                with pytest.raises(InvalidSettings, match="has to be verified"):
                    create_engine(url, credentials=store, **keywords)

        connector = connector_to(
            lambda now: (now, None), silence, credentials=store, allow_unverified_server=allow
        )
        connector.environment = environment
        parameters = {**dialect.create_connect_args(url)[1], **arguments}
        if not expected:
            with pytest.raises(ConnectFailed, match="has to be verified") as caught:
                connect(connector, **parameters)
            assert caught.value.fault is Fault.UNTRUSTED, case
            assert store.asked == 0, case
            assert connector.driver.sent == [], case
            continue
        connect(connector, **parameters)
        (sent,) = connector.driver.sent
        exempt = local and not service and kind is OwnStore
        assert allow or exempt or sent.get("sslmode") == "verify-full", case
        assert kind is OwnStore or sent["sslmode"] not in ("disable", "allow", "prefer"), case


def test_without_a_store_the_caller_decides():
    """The URL's own password goes where the URL says; a warning tells what it leaves unverified."""
    create_engine(f"postgresql+psycopg://u:p@{RDS}/db?sslmode=require")
