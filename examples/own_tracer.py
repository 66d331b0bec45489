"""Count the resumes of a function, in CloudWatch's embedded metric format."""

import json
import os
import time

from sqlalchemy import text

from lambdadb import create_engine, handler
from lambdadb.tracing import Span, Tracer


class Resumes(Tracer):
    def record(self, span: Span) -> None:
        if not span.attributes.get("lambdadb.resumed"):
            return
        metric = {"Name": "Resume", "Unit": "Seconds"}
        directive = {"Namespace": "orders", "Dimensions": [[]], "Metrics": [metric]}
        aws = {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]}
        print(json.dumps({"_aws": aws, "Resume": span.seconds}))


engine = create_engine(os.environ["DATABASE_URL"], tracer=Resumes())


@handler(engine)
def lambda_handler(event: object, context: object) -> int:
    with engine.connect() as connection:
        count: int = connection.execute(text("SELECT count(*) FROM orders")).scalar_one()
    return count
