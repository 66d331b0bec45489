"""URLs that would show a password: refused, without showing it."""

from __future__ import annotations

import traceback

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import URL

from lambdadb import InvalidSettings, create_engine
from lambdadb.url import check_url

SPECIAL = "/?#@:[]%&=+ ;,!$'\"\\{}|^`~*()<>."
# Two canaries, so that neither half of a password that was torn apart may show.
HEAD, TAIL = "canary-head", "canary-tail"
PLACES = [
    "postgresql+psycopg://user:{}@host/db",
    "postgresql+psycopg://user:{}@host:5432/db?application_name=x",
    "postgresql://user:{}@/db",
    "postgresql+psycopg://:{}@host/db",
    "postgresql+psycopg://us/er:{}@host/db",
    "postgresql+psycopg://us/er:{}@host:5432/db?application_name=x",
    "postgresql+psycopg://us@er:{}@host/db",
    "postgresql+psycopg://us?er:{}@host/db",
    "postgresql+psycopg://user/{}@host/db",
    "postgresql+psycopg://host/user:{}@db",
    "postgresql+psycopg://host/db?password={}",
    "postgresql+psycopg://host/db?user=u&PASSWORD={}",
    "postgresql+psycopg://user@host/db?sslpassword={}",
    "postgresql+psycopg://user@host/db?host=h:{}@g",
    "postgresql+psycopg:user:{}@host/db",
    "postgresql+psycopg//user:{}@host/db",
    "user:{}@host/db",
]


@settings(max_examples=300)
@given(
    place=st.sampled_from(PLACES),
    first=st.text(SPECIAL, max_size=3),
    middle=st.text(SPECIAL, min_size=1, max_size=4),
    last=st.text(SPECIAL, max_size=3),
)
@example(PLACES[0], "", "@", "")
@example(PLACES[4], "", "?", "")
@example(PLACES[0], "", "@x?y@", "")
@example(PLACES[10], "&", "=", "")
@example(PLACES[10].replace("password", "%70assword"), "&", "=", "")
def test_no_password_shows_wherever_its_special_characters_lead(place, first, middle, last):
    """Any special character, unescaped, in any place: hidden in the engine, or the URL is refused."""
    url = place.format(f"{first}{HEAD}{middle}{TAIL}{last}")
    shown = show_engine(url)
    assert HEAD not in shown
    assert TAIL not in shown


def show_engine(url):
    """What an engine of this URL shows of itself and in its traces, or the error that refuses it."""
    try:
        engine = create_engine(url)
    except InvalidSettings as error:
        return "".join(traceback.format_exception(error))
    _, parameters = engine.dialect.create_connect_args(engine.url)
    parameters.pop("password", None)
    return f"{engine!r} {engine.url} {parameters}"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://host/db",
        "postgresql+psycopg://user@host:5432/db",
        "postgresql+psycopg://user:p%40ss%2Fword@host/db",
        "postgresql+psycopg://user:p/w?x#y@host/db",
        "postgresql+psycopg:///db?host=/var/run/postgresql",
        "postgresql+psycopg:///db?host=@abstract",
        "postgresql+psycopg://user@/db?host=a:5432&host=b:5433",
        "postgresql+psycopg://user@host/db?passfile=/pass&require_auth=password&sslkey=/key",
        "postgresql+psycopg://user@host/db?application_name=a%40b",
        URL.create("postgresql+psycopg", "us/er", "p@s/s?w:d", "host", 5432, "db"),
    ],
)
def test_a_url_that_hides_its_password_is_taken(url):
    """What is written as it has to be, whatever the password holds."""
    check_url(url)


@pytest.mark.parametrize("url", ["", "x", "postgresql+psycopg://h:port/d", 5, None])
def test_what_is_no_url_is_refused(url):
    """The error gives an example, and does not repeat what was given."""
    with pytest.raises(InvalidSettings, match="driver://user:password@host") as caught:
        check_url(url)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("place", [*PLACES[4:7], *PLACES[8:15]])
def test_a_slip_is_named_with_its_remedy(place):
    """The text says what is wrong and how to write it."""
    with pytest.raises(InvalidSettings, match=r"%40|connect_args"):
        check_url(place.format("a?b"))


def test_a_url_object_made_of_a_slip_is_refused_too():
    """SQLAlchemy's own object holds the password in its database name by then."""
    with pytest.raises(InvalidSettings, match="not shown"):
        check_url(URL.create("postgresql+psycopg", host="us", database=f"er:{HEAD}@host/db"))
