"""What the commands have in common that look at a server: their options, and what they say first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

WAKE = "If it is paused, this wakes it up; it then stays awake for its pause time, 300 s or more."


def login_options(function: F) -> F:
    """Add the options that say how to log in."""
    options = [
        click.option(
            "--secret",
            metavar="NAME",
            help="The Secrets Manager secret with the login: name or ARN.",
        ),
        click.option("--iam", is_flag=True, help="Log in by IAM, as the URL's user."),
        click.option(
            "--timeout",
            default=60.0,
            show_default=True,
            metavar="SECONDS",
            type=click.FloatRange(1, 600),
            help="How long a connect may take, a resume included.",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function
