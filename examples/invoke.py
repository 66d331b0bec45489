"""Invoke the tutorial's function each time that Enter is pressed: invoke.py URL [TIMEOUT]"""

import sys
import time
from pathlib import Path

from lambdadb.lab.environment import Environment

event = {"requestContext": {"http": {"method": "GET"}}}  # as from a function URL
with Environment(
    "function.lambda_handler",
    function_name="tutorial",
    timeout=float(sys.argv[2]) if len(sys.argv) > 2 else 60.0,
    environment={"DATABASE_URL": sys.argv[1]},
    path=[Path(__file__).parent],
    on_log=print,
) as environment:
    print("Enter invokes the function, Ctrl-D ends.")
    for _ in sys.stdin:
        started = time.monotonic()
        answer = environment.invoke(event)
        print(f"{time.monotonic() - started:.1f} s: {answer}")
