"""What an engine for MySQL says where PyMySQL is missing."""

from __future__ import annotations

import importlib
import sys

import pytest

import lambdadb
from lambdadb import InvalidSettings


def test_a_missing_pymysql_is_named_with_its_command(monkeypatch):
    """No bare ImportError."""
    for name in [name for name in sys.modules if name.startswith("lambdadb.drivers.pymysql")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pymysql", None)
    with pytest.raises(InvalidSettings, match=r"pip install '\.\[mysql\]'"):
        importlib.import_module("lambdadb.drivers.pymysql")


@pytest.mark.parametrize("url", ["", "oracle://user@host/database"])
def test_a_wrong_url_is_answered_with_one_of_each_database(url):
    """PostgreSQL's and MySQL's."""
    with pytest.raises(InvalidSettings, match=r"postgresql\+psycopg://.* or mysql\+pymysql://"):
        lambdadb.create_engine(url)
