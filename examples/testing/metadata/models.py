"""The tables of a project that has them in SQLAlchemy's metadata."""

from sqlalchemy import Column, Integer, MetaData, Table, Text

metadata = MetaData()
orders = Table("orders", metadata, Column("id", Integer, primary_key=True), Column("item", Text))
