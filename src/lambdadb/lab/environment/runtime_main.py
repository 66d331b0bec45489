"""
The program of a function's process: AWS's runtime client, as in Lambda, with two additions.

`lambdadb.lab.environment.runtime_process` runs the text of this file with ``-c``. So it imports nothing
of lambdadb, which a handler has to import by itself.
"""

import copy
import os
import sys

from awslambdaric.__main__ import main
from awslambdaric.lambda_runtime_client import LambdaRuntimeClient

call_rapid = LambdaRuntimeClient.call_rapid


def call_rapid_below_path(self, method, endpoint, *arguments, **options):  # type: ignore[no-untyped-def]
    """
    Send a request of the client's Python part below the path of AWS_LAMBDA_RUNTIME_API.

    The lab's Runtime API is below a secret path, so that no other program of this machine can answer for
    the function. The client's C part, which asks for events, takes an address with a path. Its Python
    part, which reports a failed init, takes host and port alone.
    """
    plain = copy.copy(self)
    plain.lambda_runtime_address, _, path = self.lambda_runtime_address.partition("/")
    return call_rapid(plain, method, f"/{path}{endpoint}", *arguments, **options)


if __name__ == "__main__":
    LambdaRuntimeClient.call_rapid = call_rapid_below_path
    # Lambda gives the client a descriptor for log records, each of which comes in a frame with its
    # length. Without it, records that end without a line break would run into each other. Here it is
    # standard output, so that records and printed lines keep their order.
    os.environ["_LAMBDA_TELEMETRY_LOG_FD"] = str(os.dup(1))
    main(sys.argv)
