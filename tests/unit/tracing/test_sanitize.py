"""What is shown of a statement: its shape, and nothing that was put into it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError

from lambdadb import TransactionEnded
from lambdadb.tracing.sanitize import SHOWN, get_message, sanitize, sanitize_mysql, shorten_names

# What must never be shown; every literal and comment below holds it, and nothing else does.
CANARY = "7355608"


def quoted(text: str) -> str:
    return text.replace("'", "''")


# Text beside the canary: everything that a lexer could stumble over.
noise = st.text(alphabet="ab'\"\\$/*-; \n\t%:eEé1", max_size=8)
LITERALS = st.one_of(
    noise.map(lambda text: f"'{quoted(text)}{CANARY}'"),
    noise.map(lambda text: f"N'{CANARY}{quoted(text)}'"),
    noise.map(lambda text: "E'" + text.replace("\\", "\\\\").replace("'", "\\'") + f"{CANARY}'"),
    noise.map(lambda text: f"e'{quoted(text.replace(chr(92), chr(92) * 2))}{CANARY}'"),
    noise.map(lambda text: f"U&'{quoted(text)}{CANARY}'"),
    noise.filter(lambda text: "$" not in text).map(lambda text: f"$${text}{CANARY}$$"),
    noise.filter(lambda text: "$tag$" not in text + "$").map(lambda text: f"$tag${text} {CANARY}$tag$"),
    st.sampled_from([f"B'{CANARY}'", f"x'{CANARY}'", f"X'{CANARY}'"]),
    st.sampled_from(
        [CANARY, f"{CANARY}.5", f".{CANARY}", f"1e{CANARY}", f"1.5E-{CANARY}", f"0x{CANARY}"]
    ),
    st.sampled_from([f"1_{CANARY}", f"{CANARY}e+10", f"-{CANARY}", f"{CANARY}::int"]),
)
COMMENTS = st.one_of(
    noise.filter(lambda text: "\n" not in text).map(lambda text: f"--{text}{CANARY}\n"),
    noise.filter(lambda text: "/" not in text).map(lambda text: f"/*{text}{CANARY}*/"),
    st.just(f"/* a /* '{CANARY} */ {CANARY} */"),
)
KEPT = st.sampled_from(
    [
        *(
            "SELECT",
            "t1",
            "_a9$",
            "é2",
            '"a ""b"" 1"',
            '"it\'s"',
            "$1",
            "%(name_1)s",
            "%s",
            ":name",
            "?",
        ),
        *("=", "<->", "||", "(", ")", ",", "::vector", "E", "U&"),
    ]
)


@given(st.lists(st.one_of(LITERALS, COMMENTS, KEPT.map(lambda text: f" {text} ")), max_size=12))
def test_no_literal_and_no_comment_is_shown(parts):
    """Whatever stands beside it, and wherever the statement is cut."""
    # Two literals side by side would be one: 'a''b'.
    assert CANARY not in sanitize(" ".join(parts))


@given(st.lists(KEPT, max_size=12))
def test_names_and_placeholders_stay(parts):
    """What is no literal is shown as it is."""
    assert sanitize(" ".join(parts)) == " ".join(parts)


@given(
    st.lists(st.one_of(LITERALS, KEPT.filter(lambda text: text != "?")), max_size=12), st.integers(0, 60)
)
def test_a_cut_shows_nothing(parts, cut):
    """A statement that ends anywhere, in the middle of a literal too."""
    assert CANARY[:3] not in sanitize(" ".join(parts)[:cut])


@pytest.mark.parametrize(
    ("sql", "shown"),
    [
        ("SELECT 1", "SELECT ?"),
        ("SELECT a1 FROM t WHERE x='it''s' AND y=$1", "SELECT a1 FROM t WHERE x=? AND y=$1"),
        ("  SELECT *\n\n  FROM t -- all\n", "SELECT * FROM t"),
        ("a /* b /* c */ d */ e", "a e"),
        ("a /* b", "a"),
        ("SELECT 'a\\' , secret", "SELECT ?"),  # which of two, a setting decides
        ("E'it\\'s', a", "?, a"),
        ("$t$ a $$ b $t$ c", "? c"),
        ("x IN (1, 2.5, 'c')", "x IN (?, ?, ?)"),
        ("INTERVAL'1 day'", "INTERVAL?"),
        ("a[1:2]", "a[?:?]"),
        ("5%(3)", "?%(?)"),
        ("a$1$b$1$", "a$1$b$1$"),  # a name
        ('SELECT "never ends, 1', "SELECT ?"),
        ("éE'a\\' || 'b'", "éE?"),  # no E'...': the E belongs to a name
        ("1and 2", "? ?"),
    ],
)
def test_examples(sql, shown):
    """Cases that are easily got wrong."""
    assert sanitize(sql) == shown


MYSQL_LITERALS = st.one_of(
    noise.map(lambda text: f"'{quoted(text)}{CANARY}'"),
    noise.map(lambda text: '"' + text.replace('"', '""') + f'{CANARY}"'),
    noise.filter(lambda text: "\n" not in text).map(lambda text: f"#{text}{CANARY}\n"),
    noise.filter(lambda text: "/" not in text).map(lambda text: f"/*{text}{CANARY}*/"),
    st.sampled_from([CANARY, f"0x{CANARY}", f"x'{CANARY}'", f"_utf8mb4'{CANARY}'", f'n"{CANARY}"']),
)
MYSQL_NAMES = st.sampled_from(["SELECT", "`t`", "`a ``b`` c`", "%(name_1)s", "%s", "=", ",", "@@a"])


@given(st.lists(st.one_of(MYSQL_LITERALS, MYSQL_NAMES), max_size=12), st.integers(0, 200))
def test_no_literal_of_mysql_is_shown(parts, cut):
    """A text in double quotes is a literal there. A statement may end anywhere."""
    assert CANARY[:3] not in sanitize_mysql(" ".join(parts)[:cut])


@pytest.mark.parametrize(
    ("sql", "shown"),
    [
        ("SELECT `n` FROM t WHERE a = 'x' AND b = \"y\" # z", "SELECT `n` FROM t WHERE a = ? AND b = ?"),
        ("SELECT 'it''s', 5 -- z", "SELECT ?, ?"),
        ("SELECT 'a\\' , 'secret'", "SELECT ?"),
        ('SELECT "unended', "SELECT ?"),
    ],
)
def test_examples_of_mysql(sql, shown):
    """Strings in either quotes are masked, and what may belong to one."""
    assert sanitize_mysql(sql) == shown


def test_a_long_statement_is_cut_after_masking():
    """A name may be cut, a literal never appears, and a cut can be seen."""
    assert len(sanitize("SELECT " + "a, " * SHOWN)) == SHOWN
    assert sanitize("SELECT " + "a, " * SHOWN).endswith("…")
    assert sanitize(f"SELECT '{'x' * 100_000}'") == "SELECT ?…"
    assert sanitize("SELECT ?" + " " * 60_000 + CANARY) == "SELECT ?…"


@pytest.mark.parametrize(
    "text",
    [
        "'",
        "$a",
        "$a$",
        "/*",
        "E'\\",
        '"',
        "\\'",
        "e'''",
        "1e+",
        "U&",
        "$a$a",
        "'\\\\",
        "--\n",
        "a$",
        "''\\",
    ],
)
@pytest.mark.timeout(20)
def test_the_time_is_linear(text):
    """Nobody's statement can stop a function: quadratic time would not end before this test's."""
    for times in range(49_900 // len(text), 50_000 // len(text)):
        sanitize(text * times)


def test_only_our_own_messages_are_shown():
    """The server's quote values."""
    server = IntegrityError(
        "INSERT", {"name": CANARY}, Exception(f"Key (name)=({CANARY}) already exists")
    )
    assert get_message(server) == ""
    assert get_message(ValueError(CANARY)) == ""
    assert get_message(TransactionEnded("It had ended.")) == "It had ended."


def test_attributes_by_one_word():
    """Names that X-Ray indexes and Logs Insights needs no quotes for."""
    attributes = {"faas.coldstart": True, "lambdadb.left_out": 1, "db.namespace": "orders", "own.x": 2}
    shortened = {"cold_start": True, "left_out": 1, "database": "orders", "own_x": 2}
    assert shorten_names(attributes) == shortened
