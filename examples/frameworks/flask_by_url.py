"""Flask with Flask-SQLAlchemy, which knows lambdadb by the URL alone."""

import os

from apig_wsgi import make_lambda_handler
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import text

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
db = SQLAlchemy(app)
lambda_handler = make_lambda_handler(app)
INSERT = text("INSERT INTO orders (item) VALUES (:item) RETURNING id")


@app.post("/orders/<item>")
def store(item: str) -> dict[str, int]:
    number = db.session.execute(INSERT, {"item": item}).scalar_one()
    db.session.commit()
    return {"id": number}
