"""A store of one's own: passwords from the Parameter Store of AWS Systems Manager."""

import os
from collections.abc import Iterator, Mapping

import boto3
from sqlalchemy import text

from lambdadb import create_engine, handler
from lambdadb.credentials import Login


class ParameterStore:
    def __init__(self, name: str) -> None:
        self.name = name
        self.client = boto3.client("ssm")

    def logins(self, parameters: Mapping[str, object]) -> Iterator[Login]:
        answer = self.client.get_parameter(Name=self.name, WithDecryption=True)
        yield {"user": "app", "password": answer["Parameter"]["Value"]}


engine = create_engine(os.environ["DATABASE_URL"], credentials=ParameterStore("/orders/app"))


@handler(engine)
def lambda_handler(event: object, context: object) -> object:
    with engine.connect() as connection:
        return connection.scalar(text("SELECT current_user"))
