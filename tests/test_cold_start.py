"""What importing lambdadb costs a function, in modules: a fresh interpreter is asked."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


def modules_after(code: str) -> set[str]:
    program = f"{code}\nimport sys, json, threading\nassert threading.active_count() == 1\n"
    program += "print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def roots(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


DRIVER = "import sqlalchemy, psycopg, sqlalchemy.dialects.postgresql.psycopg"


def test_importing_lambdadb_adds_only_lambdadb():
    """Over SQLAlchemy and the driver: our own modules and the built-in gc; and no thread."""
    added = modules_after(f"{DRIVER}\nimport lambdadb") - modules_after(DRIVER)
    assert roots(added) <= {"gc", "lambdadb"}, sorted(added)


def test_garbage_is_collected_again_after_importing():
    """The collector is off during imports only, and stays off where it was off."""
    for before, after in (("gc.enable()", True), ("gc.disable()", False)):
        code = (
            f"import gc\n{before}\nimport lambdadb\nlambdadb.create_engine('postgresql+psycopg://u@h/d')"
        )
        modules_after(f"{code}\nassert gc.isenabled() is {after}")


def test_what_was_imported_is_walked_by_no_young_collection():
    """It is old at once: a first collection would otherwise walk all of it while the function starts."""
    code = "import gc, lambdadb\nold = len(gc.get_objects(2))\nyoung = len(gc.get_objects(0))"
    modules_after(f"{code}\nassert young < 1_000 < 20_000 < old, (young, old)")


def test_nothing_is_left_frozen_and_nothing_is_thawed():
    """An object that becomes garbage later is still found, and what the program froze stays frozen."""
    modules_after("import gc, lambdadb\nassert gc.get_freeze_count() == 0")
    code = "import gc\ngc.freeze()\nbefore = gc.get_freeze_count()\nimport lambdadb"
    after = "0.9 * before < gc.get_freeze_count() <= before"  # some are used no more, and freed
    modules_after(f"{code}\nassert {after}, (before, gc.get_freeze_count())")


def test_creating_an_engine_imports_neither_orm_nor_retry_loop_nor_aws():
    """An engine that connects at the first attempt needs no ORM, asyncio, tenacity or boto3."""
    code = "import lambdadb\nlambdadb.create_engine('postgresql+psycopg://u@h/d')"
    loaded = modules_after(code)
    assert not loaded & {"sqlalchemy.orm", "sqlalchemy.ext.asyncio", "sqlalchemy.ext", "lambdadb.aio"}
    assert not roots(loaded) & {"tenacity", "boto3", "botocore", "aws_xray_sdk", "numpy"}
    assert not any(module.startswith("lambdadb.lab") for module in loaded)


@pytest.mark.parametrize("backend", ["postgresql", "mysql"])
def test_an_engine_over_the_data_api_imports_no_driver_of_the_database(backend):
    """Nor an AWS package: it has an HTTP client and signatures of its own."""
    arn = "arn:aws:rds:eu-west-1:123456789012:cluster:orders"
    url = f"{backend}+data_api:///orders?cluster_arn={arn}&secret_arn=s"
    loaded = roots(modules_after(f"import lambdadb\nlambdadb.create_engine('{url}')"))
    assert not loaded & {"psycopg", "pymysql", "boto3", "botocore", "tenacity", "urllib3", "httpx"}


@pytest.mark.parametrize("store", ["rds_iam.RdsIam()", "secrets_manager.SecretsManager('orders/app')"])
def test_a_store_imports_what_it_needs_when_it_needs_it(store):
    """Importing and making one loads itself and hmac: no AWS package, no HTTP, no TLS."""
    code = f"{DRIVER}\nimport lambdadb"
    made = f"from lambdadb.credentials import {store.partition('.')[0]}\n{store}"
    added = modules_after(f"{code}\n{made}") - modules_after(code)
    assert roots(added) <= {"lambdadb", "hmac"}, sorted(added)


def test_signing_a_token_needs_nothing_else():
    """With the keys that Lambda gives, an IAM login needs neither botocore nor a request."""
    made = (
        "from lambdadb.credentials.rds_iam import RdsIam\nstore = RdsIam('eu-west-1', 'app', host='h')"
    )
    signed = "import os\nos.environ.update(AWS_ACCESS_KEY_ID='a', AWS_SECRET_ACCESS_KEY='b')\n"
    signed += "assert list(store.logins({'host': 'h', 'port': 5432}))"
    added = modules_after(f"{DRIVER}\n{made}\n{signed}") - modules_after(f"{DRIVER}\n{made}")
    assert not added, sorted(added)
