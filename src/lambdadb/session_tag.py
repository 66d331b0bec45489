"""
The session tag: the text in a session's `application_name`.

It contains the function's name, so that operators see which function has which sessions.
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
    Return the tag of this function; None if there is no function to name.

    The tag has at most `limit` bytes of printable ASCII. Other characters become `?`, as on older
    servers. A longer text is cut and ends in a digest of the whole text, so that two long names that
    differ only at their ends stay different.

    Args:
        template: Text with any of `{name}`, `{version}` and `{alias}`.
        environment: Lambda's environment variables (`AWS_LAMBDA_FUNCTION_NAME`, `_VERSION`).
        alias: The qualifier by which the function was invoked; empty if there is none.
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
        InvalidSettings: It contains an unknown field, or its braces do not match.
    """
    allowed = ", ".join(f"{{{field}}}" for field in FIELDS)
    try:
        parts = [part for part in string.Formatter().parse(template) if part[1] is not None]
    except (ValueError, TypeError) as error:
        raise InvalidSettings(f"tag={template!r} is not a template: {error}. Use {allowed}.") from None
    if unknown := {str(field) for _, field, _, _ in parts} - set(FIELDS):
        raise InvalidSettings(f"tag={template!r} uses {sorted(unknown)}; use {allowed}.")
    if any(format_spec or conversion for _, _, format_spec, conversion in parts):
        raise InvalidSettings(f"tag={template!r} has a conversion or a format: use {allowed} alone.")
