"""
Traces of an engine's work: connects, statements, repeated transactions, and spans of the user's own.
"""

from __future__ import annotations

from lambdadb.background import context_carriers
from lambdadb.tracing.span import Attributes, Span, StatementFilter, Tracer
from lambdadb.tracing.trace import trace
from lambdadb.tracing.xray_sdk import carry_entity

__all__ = ["Attributes", "Span", "StatementFilter", "Tracer", "trace"]

context_carriers.append(carry_entity)
