"""Handlers whose context has the type of Powertools, or of aws-lambda-typing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aws_lambda_powertools import Logger, Tracer
from aws_lambda_powertools.utilities.typing import LambdaContext
from aws_lambda_typing.context import Context
from aws_lambda_typing.events import APIGatewayProxyEventV2
from aws_lambda_typing.responses import APIGatewayProxyResponseV2
from typing_extensions import assert_type

from lambdadb import create_engine, handler
from lambdadb.aio import create_async_engine

engine = create_engine("postgresql+psycopg://app@host/orders")
async_engine = create_async_engine("postgresql+psycopg://app@host/orders")
logger = Logger()
tracer = Tracer()

PowertoolsHandler = Callable[[dict[str, Any], LambdaContext], dict[str, Any]]
TypedHandler = Callable[[APIGatewayProxyEventV2, Context], APIGatewayProxyResponseV2]


@logger.inject_lambda_context
@tracer.capture_lambda_handler
@handler(engine)
def with_powertools(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Powertools' decorators around lambdadb's."""
    return {"request": context.aws_request_id, **event}


@handler(engine)
def with_powertools_type(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """The signature is as it was."""
    return {"left": context.get_remaining_time_in_millis(), **event}


@handler(engine)
def with_typing(event: APIGatewayProxyEventV2, context: Context) -> APIGatewayProxyResponseV2:
    """An event, a context and an answer of aws-lambda-typing."""
    return {"statusCode": 200, "body": event.get("rawPath", "") + context.function_name}


@handler(engine, on_resuming="503")
def answers_503(event: APIGatewayProxyEventV2, context: Context) -> APIGatewayProxyResponseV2:
    """It may answer 503 in place of the handler, so the result is one of the two."""
    return {"statusCode": 200, "body": event.get("rawPath", "") + context.function_name}


@handler(async_engine)
async def asynchronous(event: dict[str, Any], context: LambdaContext) -> int:
    """A coroutine function stays one for a type checker."""
    return context.get_remaining_time_in_millis() + len(event)


class Service:
    """A handler that is a method."""

    @handler(engine)
    def handle(self, event: dict[str, Any], context: LambdaContext) -> str:
        """The instance stays the first argument."""
        return context.function_name + str(event)


powertools: PowertoolsHandler = with_powertools_type
typed: TypedHandler = with_typing


def call(event: APIGatewayProxyEventV2, context: Context, other: LambdaContext) -> None:
    """Each is called with its own context, and with no other."""
    assert_type(with_powertools_type({}, other), dict[str, Any])
    assert_type(with_typing(event, context), APIGatewayProxyResponseV2)
    assert_type(answers_503(event, context), APIGatewayProxyResponseV2 | dict[str, Any])
    assert_type(Service().handle({}, other), str)
    with_powertools_type({}, context)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with_powertools_type({})  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with_typing(event, other)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    answers_503(event, other)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def call_asynchronous(context: LambdaContext) -> None:
    """It is awaited, as in a test."""
    assert_type(await asynchronous({}, context), int)
