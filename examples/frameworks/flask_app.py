"""Flask with Flask-SQLAlchemy; 503 while the database wakes up."""

import os

from apig_wsgi import make_lambda_handler
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import text

from lambdadb import ConnectFailed, handler

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]  # ends in ?plugin=lambdadb
db = SQLAlchemy(app)
INSERT = text("INSERT INTO orders (item) VALUES (:item) RETURNING id")


@app.post("/orders/<item>")
def store(item: str) -> dict[str, int]:
    number = db.session.execute(INSERT, {"item": item}).scalar_one()
    db.session.commit()
    return {"id": number}


@app.errorhandler(ConnectFailed)
def answer_unavailable(error: ConnectFailed) -> tuple[dict[str, str], int, dict[str, str]]:
    if error.retry_after is None:  # another try would not help
        raise error
    return {"message": "Please try again."}, 503, {"Retry-After": str(error.retry_after)}


with app.app_context():
    lambda_handler = handler(db.engine)(make_lambda_handler(app))
