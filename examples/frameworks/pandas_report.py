"""pandas: read a table, and write a summary of it."""

import os

import pandas

from lambdadb import create_engine, handler

engine = create_engine(os.environ["DATABASE_URL"])


@handler(engine)
def lambda_handler(event: object, context: object) -> int:
    with engine.begin() as connection:
        orders = pandas.read_sql("SELECT item, quantity FROM orders", connection)
        summary = orders.groupby("item", as_index=False).sum()
        summary.to_sql("order_summary", connection, if_exists="replace", index=False)
    return len(summary)
