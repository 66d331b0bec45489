"""Run the handler of orders.py against the emulated Data API."""

import os

from sqlalchemy import create_engine, text

from lambdadb.lab.data_api import DataApi
from lambdadb.lab.postgres import Postgres

with Postgres() as server, DataApi(server) as api:
    os.environ.update(api.environment(), DATABASE_URL=api.url())
    with create_engine(server.url()).begin() as connection:
        connection.execute(text("CREATE TABLE orders (id serial, item text)"))

    from orders import lambda_handler

    print(lambda_handler({"item": "book"}, None))
    print(api.calls)
