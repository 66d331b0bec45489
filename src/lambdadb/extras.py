"""
The command that installs what is missing.
"""

from __future__ import annotations


def install_command(extra: str) -> str:
    """Return the command that installs lambdadb with one of its extras, for an error's text."""
    return f"pip install '.[{extra}]' in a clone of lambdadb"
