"""The session tag."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdadb import InvalidSettings
from lambdadb.session_tag import check_template, session_tag


def tag_of(name, template="{name}", **environment):
    return session_tag(template, {"AWS_LAMBDA_FUNCTION_NAME": name, **environment})


def test_it_is_the_functions_name():
    """By default the server shows the function's name, unchanged."""
    assert tag_of("orders-prod") == "orders-prod"


def test_a_template_can_tell_version_and_alias():
    """The caller's own template is filled with name, version and alias."""
    environment = {"AWS_LAMBDA_FUNCTION_NAME": "orders", "AWS_LAMBDA_FUNCTION_VERSION": "7"}
    assert session_tag("{name}:{alias} v{version}", environment, alias="prod") == "orders:prod v7"


def test_outside_lambda_there_is_no_function_to_name():
    """Without a function name nothing is sent, but a text of the caller's own is."""
    assert session_tag("{name}:{version}", {}) is None
    assert session_tag("nightly import", {}) == "nightly import"


@given(st.text(max_size=200), st.sampled_from(["{name}", "fn {name}", "{name}/{alias}"]))
def test_the_server_shows_it_as_it_was_sent(name, template):
    """Whatever the name: at most 63 bytes of printable ASCII, so the server changes nothing."""
    tag = tag_of(name, template)
    if tag is not None:
        assert 0 < len(tag.encode("ascii")) <= 63
        assert tag.isprintable()


@given(st.text("abc-_0", min_size=64, max_size=140), st.text("xyz", min_size=1, max_size=8))
def test_long_names_that_differ_only_at_the_end_stay_different(name, ending):
    """Cutting never makes one function look like another."""
    assert tag_of(name) != tag_of(name + ending)
    assert tag_of(name)[:40] == name[:40], "people still recognize it"


NOT_TEMPLATES = ["{nmae}", "{", "{0}", "{}", "{name.x}", "{name[0]}"]
NOT_TEMPLATES += ["{name!x}", "{name!r}", "{name:>5}", "{name:d}"]


@pytest.mark.parametrize("template", NOT_TEMPLATES)
def test_a_template_that_cannot_be_filled_is_refused(template):
    """A misspelled field is found while building the engine, not at the first connect."""
    with pytest.raises(InvalidSettings, match="name"):
        check_template(template)
