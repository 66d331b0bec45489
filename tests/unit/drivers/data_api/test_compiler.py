"""Statements in the form that the Data API takes."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from lambdadb.drivers.data_api.dialect import DataApiDialect

DIALECT = DataApiDialect(connector=None)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("plain_1", "plain_1"),
        ("_x", "_x"),
        ("1st", "_31_st"),
        ("a b", "a_20_b"),
        ("a:b", "a_3a_b"),
        ("q?", "q_3f_"),
        ("é", "_e9_"),
    ],
)
def test_a_parameter_has_a_plain_name(name, written):
    """And its value is found by the name that the caller gave."""
    compiled = sa.select(sa.bindparam(name, 7)).compile(dialect=DIALECT)
    assert f":{written}::" in str(compiled)
    assert compiled.construct_params(escape_names=True) == {written: 7}


def test_names_that_look_alike_stay_different():
    """A replaced name is no other parameter's."""
    both = sa.select(sa.bindparam("a.b", 1), sa.bindparam("a_b", 2)).compile(dialect=DIALECT)
    assert set(both.construct_params(escape_names=True).values()) == {1, 2}


def test_lists_have_plain_names_too():
    """The parameters of an IN are named after its own."""
    statement = sa.select(sa.column("x")).where(sa.column("x").in_(sa.bindparam("a b", [1, 2])))
    compiled = statement.compile(dialect=DIALECT, compile_kwargs={"render_postcompile": True})
    assert "(:a_20_b_1, :a_20_b_2)" in str(compiled)


def test_a_slice_has_blanks_around_its_colon():
    """Two colons would be a cast."""
    numbers = sa.column("n", postgresql.ARRAY(sa.Integer))
    assert "n[:n_1::INTEGER : :n_2::INTEGER]" in str(sa.select(numbers[1:2]).compile(dialect=DIALECT))


def test_types_that_the_api_cannot_return_are_selected_as_text():
    """The generic types too."""
    for kind in (sa.Interval(), postgresql.INTERVAL(), sa.Time(timezone=True)):
        assert "CAST(c AS TEXT)" in str(sa.select(sa.column("c", kind)).compile(dialect=DIALECT))
    for kind in (sa.Time(), sa.DateTime(timezone=True), sa.Date()):
        assert "CAST" not in str(sa.select(sa.column("c", kind)).compile(dialect=DIALECT))


def test_a_json_path_is_an_array_of_text_also_as_a_literal():
    """With quotes around its elements, which may have commas."""
    element = sa.column("j", postgresql.JSONB)[("a,b", 1)]
    literal = str(sa.select(element).compile(dialect=DIALECT, compile_kwargs={"literal_binds": True}))
    assert """CAST('{"a,b","1"}' AS TEXT[])""" in literal
