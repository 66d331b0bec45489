"""A library makes an engine of its own, which gets the same login as the function's."""

import os

import sqlalchemy

from lambdadb import create_engine, handler
from lambdadb.attach import attach
from lambdadb.credentials.secrets_manager import SecretsManager

URL = os.environ["DATABASE_URL"]  # postgresql+psycopg://HOST/DATABASE, without a password
engine = create_engine(URL, credentials=SecretsManager("orders/app"))


class Library:
    """Stands for a vector store or an admin tool, whose code you cannot change."""

    def __init__(self, url: str) -> None:
        self.engine = sqlalchemy.create_engine(url)

    def ask(self) -> str:
        with self.engine.connect() as connection:
            return str(connection.execute(sqlalchemy.text("SELECT current_user")).scalar_one())


library = Library(URL)
attach(library.engine, to=engine)


@handler(engine)
def lambda_handler(event: object, context: object) -> str:
    return library.ask()
