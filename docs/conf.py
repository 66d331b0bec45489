"""
Sphinx builds the pages of this repository and an API reference from the docstrings: `nox -s docs`.

The pages stay where they are and link to one another by path, so they read the same where the
repository is read.
"""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

import lambdadb

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "lambdadb"
author = "The lambdadb authors"
copyright = author
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = ["*.md", "docs/**"]
html_theme = "furo"
html_title = "lambdadb"
html_copy_source = False

# Headings get the anchors that they have where the repository is read.
myst_heading_anchors = 4

nitpicky = True
nitpick_ignore_regex = [("py:class", ".*")]  # the types of other libraries, whose pages are elsewhere

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_display_short_literal_types = True
napoleon_numpy_docstring = False

# The book's plan. A page that is missing here is an error of the build.
CONTENTS = {
    "Start here": "tutorial when concepts which-policy transactions errors",
    "Functions": "testing first-deployment fastapi flask queues frameworks by-url environments layer",
    "Databases": "pgvector mysql data-api tenants migrations chat-history proxy",
    "Logins and permissions": "permissions credentials attach secrets-manager iam rotation tls",
    "Traces": "traces xray opentelemetry apm",
    "For operators": "operate awake advise fleets deploy",
    "Reference": "settings reference/api reference/round-trips differences",
    "Figures": "figures compare benchmark",
    "For contributors": "/CONTRIBUTING architecture /SECURITY /CHANGELOG",
}
FENCE = re.compile(r"^```(\w+)$(.*?)^```$", re.M | re.S)
CODE = re.compile(r"(?<![`:])`([^`\n]+)`(?!`)")


def as_restructured_text(docstring: str) -> str:
    """A docstring, which is written in Markdown, in the notation that autodoc reads."""

    def block(fence: re.Match[str]) -> str:
        return f".. code-block:: {fence[1]}\n{textwrap.indent(fence[2], '   ')}"

    def code(span: re.Match[str]) -> str:
        name = span[1].removesuffix("()").removeprefix("lambdadb.")
        return f":obj:`~lambdadb.{name}`" if name in lambdadb.__all__ else f"``{span[1]}``"

    return CODE.sub(code, FENCE.sub(block, docstring))


def convert(_app: Sphinx, what: str, _name: str, _obj: object, _opts: object, lines: list[str]) -> None:
    """Called by autodoc with each docstring, before napoleon reads its sections."""
    # napoleon takes what is before a colon in an attribute's first line for its type: begin with an
    # empty comment instead.
    first = ["..", ""] if what == "attribute" else []
    lines[:] = first + as_restructured_text("\n".join(lines)).split("\n")


def add_contents(_app: Sphinx, page: str, text: list[str]) -> None:
    """Called by Sphinx with each page: the first one gets the list of all."""
    if page == root_doc:
        for caption, pages in CONTENTS.items():
            paths = "\n".join(f"/docs/{page}".replace("/docs//", "/") for page in pages.split())
            text[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{paths}\n```\n"


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", convert, priority=400)
    app.connect("source-read", add_contents)
