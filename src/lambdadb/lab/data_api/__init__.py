"""An emulation of the RDS Data API: its five calls over HTTP, carried out by a real PostgreSQL."""

from __future__ import annotations

from lambdadb.lab.data_api.answers import ApiError
from lambdadb.lab.data_api.server import DataApi, Fault

__all__ = ["ApiError", "DataApi", "Fault"]
