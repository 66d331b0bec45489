"""
The session tag: the function's name as the server shows it beside each session, so that an operator
sees who holds the connections.
"""

from __future__ import annotations

import hashlib
import string
from collections.abc import Mapping

from lambdadb.errors import InvalidSettings

FIELDS = ("name", "version", "alias")
_DIGEST = 6


def session_tag(
    template: str, environment: Mapping[str, str], alias: str = "", limit: int = 63
) -> str | None:
    """
    The text that names this function to the server; None where there is no function to name.

    At most `limit` bytes of printable ASCII: other characters become `?`, as older servers would
    make of them. A longer text is cut and ends in a digest of the whole, so that two long names
    that differ only at their ends stay different.

    Args:
        template: Text with any of `{name}`, `{version}` and `{alias}`.
        environment: Lambda's environment variables (`AWS_LAMBDA_FUNCTION_NAME`, `_VERSION`).
        alias: The qualifier that the function was invoked by; empty if by none.
    """
    name = environment.get("AWS_LAMBDA_FUNCTION_NAME", "")
    if not name and "{name}" in template:
        return None
    version = environment.get("AWS_LAMBDA_FUNCTION_VERSION", "")
    text = template.format(name=name, version=version, alias=alias)
    text = "".join(c if " " <= c <= "~" else "?" for c in text).strip()
    if len(text) > limit:
        digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGEST]
        text = f"{text[: limit - _DIGEST - 1]}~{digest}"
    return text or None


def check_template(template: str) -> None:
    """
    Refuse a template that could not be filled in later.

    Raises:
        InvalidSettings: It names a field that does not exist, or its braces do not match.
    """
    allowed = ", ".join(f"{{{field}}}" for field in FIELDS)
    try:
        parts = [part for part in string.Formatter().parse(template) if part[1] is not None]
    except (ValueError, TypeError) as error:
        raise InvalidSettings(f"tag={template!r} is not a template: {error}. Use {allowed}.") from None
    if unknown := {str(field) for _, field, _, _ in parts} - set(FIELDS):
        raise InvalidSettings(f"tag={template!r} uses {sorted(unknown)}; known are {allowed}.")
    if any(format_spec or conversion for _, _, format_spec, conversion in parts):
        raise InvalidSettings(f"tag={template!r} has a conversion or a format: use {allowed} alone.")
