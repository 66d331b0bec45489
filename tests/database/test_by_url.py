"""Frameworks that make the engine themselves get lambdadb's pool, tag and wait by their URL alone."""

from __future__ import annotations

import textwrap

import pytest
import sqlalchemy
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

import lambdadb
from lambdadb import ConnectionInUse, InvalidSettings, PerEnvironment, PerInvocation
from lambdadb.pool import GuardedPool

ITEMS = text("SELECT count(*) FROM item")


@pytest.fixture
def url(database):
    """The database's URL with the plugin's name."""
    return database.update_query_dict({"plugin": "lambdadb"})


@pytest.fixture
def in_lambda(monkeypatch):
    """The name of the function that it runs in."""
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "orders")
    return "orders"


def render(url):
    """As it stands in a configuration file."""
    return url.render_as_string(hide_password=False)


@pytest.mark.parametrize("how", ["in the url", "as a keyword"])
def test_sqlalchemys_own_create_engine(how, url, database, sessions, in_lambda):
    """One guarded session with the function's name, and a URL as users know it."""
    if how == "in the url":
        engine = sqlalchemy.create_engine(render(url))
    else:
        engine = sqlalchemy.create_engine(database, plugins=["lambdadb"], policy=PerEnvironment())
    with engine.connect() as connection:
        assert connection.scalar(ITEMS) == 0
        assert [name for _, name, _ in sessions.become(1)] == [in_lambda]
        with pytest.raises(ConnectionInUse):
            engine.connect()
    assert isinstance(engine.pool, GuardedPool)
    assert engine.url == database
    engine.dispose()


def test_sqlalchemys_own_create_async_engine(url, sessions, in_lambda):
    """The same on an event loop."""
    import asyncio

    async def steps():
        engine = create_async_engine(url)
        async with engine.connect() as connection:
            assert await connection.scalar(ITEMS) == 0
            assert [name for _, name, _ in sessions.become(1)] == [in_lambda]
        await engine.dispose()

    asyncio.run(steps())


def test_an_invocation_and_a_transaction(url, sessions):
    """`handler`, `invocation` and `run_transaction` know such an engine."""
    engine = sqlalchemy.create_engine(url.update_query_dict({"lambdadb_policy": "per-invocation"}))

    @lambdadb.handler(engine)
    def handler(event, context):
        return lambdadb.run_transaction(engine, lambda connection: connection.scalar(ITEMS))

    assert handler({}, None) == 0
    sessions.become(0)


@pytest.mark.parametrize(
    ("query", "policy", "retry", "tag"),
    [
        ({}, PerEnvironment(), None, "{name}"),
        ({"lambdadb_policy": "per-invocation"}, PerInvocation(), None, "{name}"),
        ({"lambdadb_connections": "2"}, PerEnvironment(connections=2), None, "{name}"),
        ({"lambdadb_timeout": "7.5"}, PerEnvironment(), 7.5, "{name}"),
        ({"lambdadb_tag": "{name}/{alias}"}, PerEnvironment(), None, "{name}/{alias}"),
    ],
)
def test_settings_in_the_url(query, policy, retry, tag, url):
    """Each of them is what the keyword of the same meaning is."""
    engine = sqlalchemy.create_engine(url.update_query_dict(query))
    settings = engine.pool.connector.settings
    assert (settings.policy, settings.retry.timeout, settings.tag) == (policy, retry, tag)
    assert not [name for name in engine.url.query if name.startswith("lambdadb")]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"lambdadb_policy": "forever"}, "per-environment, per-invocation"),
        ({"lambdadb_timeout": "soon"}, "use a number"),
        ({"lambdadb_pool": "1"}, "is no setting"),
        ({"lambdadb_tag": ("a", "b")}, "more than once"),
    ],
)
def test_settings_that_there_are_not(query, said, url):
    """They are named while the engine is made."""
    with pytest.raises(InvalidSettings, match=said):
        sqlalchemy.create_engine(url.update_query_dict(query))


def test_credentials_in_the_url(url):
    """A secret's name, or IAM."""
    bare = url._replace(password=None, host="orders.cluster-x.eu-west-1.rds.amazonaws.com")
    stores = {"SecretsManager": {"lambdadb_secret": "orders/app"}, "RdsIam": {"lambdadb_iam": "true"}}
    for store, query in stores.items():
        engine = sqlalchemy.create_engine(bare.update_query_dict(query))
        assert type(engine.pool.connector.settings.credentials).__name__ == store


def test_a_driver_that_there_is_not():
    """The drivers that there are stand in the error."""
    with pytest.raises(InvalidSettings, match=r"postgresql\+psycopg"):
        sqlalchemy.create_engine("mysql+mysqldb://u@h/d?plugin=lambdadb")


@pytest.mark.filterwarnings("ignore:.*__version__.*:DeprecationWarning")
def test_flask_sqlalchemy(url, sessions, in_lambda):
    """Its URL setting is enough: one session with the function's name, used by one request at a time."""
    flask = pytest.importorskip("flask")
    flask_sqlalchemy = pytest.importorskip("flask_sqlalchemy")
    app = flask.Flask("orders")
    app.config["SQLALCHEMY_DATABASE_URI"] = render(url)
    db = flask_sqlalchemy.SQLAlchemy(app)

    @app.get("/count")
    def count():
        return {"count": db.session.execute(ITEMS).scalar()}

    for _ in range(2):
        assert app.test_client().get("/count").json == {"count": 0}
    assert [name for _, name, _ in sessions.become(1)] == [in_lambda]
    with app.app_context():
        assert isinstance(db.engine.pool, GuardedPool)
        db.engine.dispose()


ENV = """
from alembic import context
from sqlalchemy import engine_from_config, pool

config = context.config
if context.is_offline_mode():
    context.configure(url=config.get_main_option("sqlalchemy.url"), literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    engine = engine_from_config(
        config.get_section(config.config_ini_section), prefix="sqlalchemy.", poolclass=pool.NullPool
    )
    config.attributes["pool"] = engine.pool
    with engine.connect() as connection:
        context.configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()
"""

REVISION = '''
"""Add a table."""
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "1", None, None, None


def upgrade():
    op.create_table("made_by_alembic", sa.Column("id", sa.Integer, primary_key=True))
'''


@pytest.fixture
def alembic_config(tmp_path):
    """A project as `alembic init` makes it, less its comments."""
    config = pytest.importorskip("alembic.config").Config()
    (tmp_path / "versions").mkdir()
    (tmp_path / "env.py").write_text(textwrap.dedent(ENV))
    (tmp_path / "versions" / "1_add_a_table.py").write_text(textwrap.dedent(REVISION))
    config.set_main_option("script_location", str(tmp_path))
    config.set_main_option("path_separator", "os")
    return config


def test_alembic_offline(url, alembic_config, capsys):
    """The script is the same, and nothing is connected to."""
    from alembic import command

    offline = url.set(host="nowhere.invalid")
    alembic_config.set_main_option("sqlalchemy.url", render(offline).replace("%", "%%"))
    command.upgrade(alembic_config, "head", sql=True)
    assert "CREATE TABLE made_by_alembic" in capsys.readouterr().out


def test_alembic_online_waits_for_a_resume(alembic_config, aurora_cluster, postgres, in_lambda, caplog):
    """Alembic's NullPool means one session for each use; a resume is waited for."""
    from alembic import command

    by_url = sqlalchemy.make_url(aurora_cluster.url).update_query_dict({"plugin": "lambdadb"})
    alembic_config.set_main_option("sqlalchemy.url", render(by_url).replace("%", "%%"))
    command.upgrade(alembic_config, "head")
    assert postgres.query("SELECT count(*) FROM made_by_alembic") == [(0,)]
    assert isinstance(alembic_config.attributes["pool"], GuardedPool)
    assert alembic_config.attributes["pool"].policy == PerInvocation()
    assert "waiting for it" in caplog.text
