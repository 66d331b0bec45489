"""SQLAlchemy's own tests of a dialect, unchanged."""

from sqlalchemy.testing.suite import *  # noqa: F403
