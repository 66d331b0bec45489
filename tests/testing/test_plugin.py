"""The plugin as pytest sees it: what it costs a run that does not use it, and its settings."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pytest_lambdadb import SETTINGS, setting


def test_a_run_without_its_fixtures_imports_nothing_more():
    """pytest loads the plugin in every run; lambdadb, SQLAlchemy and the driver are not imported."""
    code = "import sys, pytest; before = set(sys.modules); import pytest_lambdadb\n"
    code += "print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["pytest_lambdadb"]


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_comes_from_the_command_line_a_variable_or_the_ini_file(pytester, monkeypatch, name):
    """The first of the three counts, and the default if there is none."""
    option = "--" + name.replace("_", "-")
    assert setting(pytester.parseconfig(), name, "default") == "default"
    pytester.makeini(f"[pytest]\n{name} = ini")
    assert setting(pytester.parseconfig(), name, "default") == "ini"
    monkeypatch.setenv(name.upper(), "variable")
    assert setting(pytester.parseconfig(), name, "default") == "variable"
    assert setting(pytester.parseconfig(option, "line"), name, "default") == "line"


def test_each_setting_is_explained(pytester):
    """In `pytest --help`, with its three names."""
    shown = pytester.runpytest_inprocess("--help").stdout.str()
    for name in SETTINGS:
        assert name in shown
        assert name.upper() in shown


def test_each_fixture_is_explained(pytester):
    """In `pytest --fixtures`, by its first line."""
    shown = pytester.runpytest_inprocess("--fixtures").stdout.str()
    ours = shown.partition("fixtures defined from pytest_lambdadb")[2]
    for name in ("aurora_cluster", "postgres", "sessions", "invoke", "lambda_context"):
        assert f"\n{name} " in ours
    assert "no docstring available" not in ours


def test_sql_files_make_the_tables(pytester, postgres_server):
    """A path in the ini file is relative to it, one on the command line to where pytest was started."""
    pytester.makefile(".sql", tables="CREATE TABLE item (name text)")
    pytester.makepyfile(
        """
        def test_one(postgres):
            assert postgres.query("INSERT INTO item VALUES ('a') RETURNING name") == [("a",)]

        def test_other(postgres):
            assert postgres.query("TABLE item") == []
        """
    )
    server = f"--lambdadb-postgres={postgres_server.url()}"
    pytester.runpytest_inprocess(server, "--lambdadb-schema=tables.sql").assert_outcomes(passed=2)
    pytester.makeini("[pytest]\nlambdadb_schema = tables.sql")
    folder = pytester.mkdir("folder")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        pytester.runpytest_inprocess(server, "..").assert_outcomes(passed=2)


def test_a_server_that_is_not_there_is_an_error_and_no_skip(pytester):
    """A test that cannot run is never green."""
    pytester.makepyfile("def test_one(postgres): pass")
    result = pytester.runpytest_inprocess("--lambdadb-postgres=docker")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*LabError: The PostgreSQL for the tests is 'docker'. Say embedded*"])
