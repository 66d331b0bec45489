"""The plugin as pytest sees it: what it costs a run that does not use it, and its settings."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from pytest_lambdadb import SETTINGS, paths, setting


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


def test_sql_files_make_the_tables_on_a_running_server(pytester, postgres_server):
    """Each test has its own; a service of a CI job takes the place of the embedded server."""
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


def test_a_path_is_relative_to_where_it_is_written(pytester, monkeypatch):
    """One of the ini file is relative to it, one of the command line to where pytest was started."""
    pytester.makeini("[pytest]\nlambdadb_schema = a.sql")
    monkeypatch.chdir(pytester.mkdir("folder"))
    name = "lambdadb_schema"
    assert paths(pytester.parseconfig(".."), name) == [pytester.path / "a.sql"]
    config = pytester.parseconfig("..", f"--lambdadb-schema=b.sql{os.pathsep}c.sql")
    assert paths(config, name) == [pytester.path / "folder" / file for file in ("b.sql", "c.sql")]


def test_a_server_that_is_not_there_is_an_error_and_no_skip(pytester):
    """A test that cannot run is never green."""
    pytester.makepyfile("def test_one(postgres): pass")
    result = pytester.runpytest_inprocess("--lambdadb-postgres=docker")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*LabError: The PostgreSQL for the tests is 'docker'. Say embedded*"])


def test_folders_of_tests_may_have_tables_of_their_own(pytester, postgres_server):
    """A fixture that one folder overrides does not reach the tests of another."""
    schema = """
        import pytest
        from lambdadb.testing.databases import connect

        @pytest.fixture(scope="session")
        def postgres_schema():
            def create(url):
                with connect(url) as connection:
                    connection.execute("CREATE TABLE {} (name text)")
            return create
        """
    for folder in ("one", "other"):
        place = pytester.mkdir(folder)
        (place / "conftest.py").write_text(textwrap.dedent(schema.format(folder)))
        query = f"def test_it(postgres): assert postgres.query('TABLE {folder}') == []"
        (place / f"test_{folder}.py").write_text(query)
    server = f"--lambdadb-postgres={postgres_server.url()}"
    pytester.runpytest_inprocess(server).assert_outcomes(passed=2)
