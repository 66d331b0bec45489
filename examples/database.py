"""The function's engine, which connects as soon as it is imported."""

import os

from lambdadb import PerEnvironment, create_engine

engine = create_engine(os.environ["DATABASE_URL"], policy=PerEnvironment(connect_ahead=True))
