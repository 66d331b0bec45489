"""
The program of a function's process: AWS's runtime client, as in Lambda, with three additions.

`lambdadb.lab.environment.runtime_process` runs the text of this file with ``-c``. So it imports nothing
of lambdadb, which a handler has to import by itself.
"""

import copy
import ctypes
import http.client
import importlib
import json
import os
import signal
import sys
from pathlib import Path

# The C part of AWS's client reads the address of its API when it is loaded. A copy of a snapshot has
# another address, so that it loads this part itself, as the client does.
RESTORED = os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"] == "snap-start"
if RESTORED:
    sys.modules["runtime_client"] = None  # type: ignore[assignment]

from awslambdaric import lambda_runtime_client  # noqa: E402 - after the line above
from awslambdaric.__main__ import main  # noqa: E402
from awslambdaric.lambda_runtime_client import LambdaRuntimeClient  # noqa: E402

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


def restore_next_by_fork(self):  # type: ignore[no-untyped-def]
    """
    Wait for the restore of the snapshot. Each restore is a fork of this process, as it is now.

    It returns in the forked process, which has a Runtime API and a log of its own. Python's hooks for a
    fork (`os.register_at_fork`) do not run, as they do not at a restore. A fork copies the memory as a
    snapshot does, and open sockets too, which a snapshot would break.
    """
    address, _, path = self.lambda_runtime_address.partition("/")
    default = signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # ended copies leave nothing behind
    while True:
        connection = http.client.HTTPConnection(address)
        connection.request("GET", f"/{path}/2018-06-01/runtime/restore/next")
        copy_of = json.loads(connection.getresponse().read())
        connection.close()
        child = ctypes.PyDLL(None).fork()
        if child == 0:
            break
        new = Path(copy_of["pid_file"] + ".new")
        new.write_text(str(child))
        new.replace(copy_of["pid_file"])
    signal.signal(signal.SIGCHLD, default)
    log = os.open(copy_of["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2, int(os.environ["LAB_LOG"])):
        os.dup2(log, descriptor)
    os.environ["AWS_LAMBDA_RUNTIME_API"] = self.lambda_runtime_address = copy_of["address"]
    del sys.modules["runtime_client"]
    lambda_runtime_client.runtime_client = importlib.import_module("runtime_client")
    lambda_runtime_client.runtime_client.initialize_client(lambda_runtime_client._user_agent())


if __name__ == "__main__":
    LambdaRuntimeClient.restore_next = restore_next_by_fork
    LambdaRuntimeClient.call_rapid = call_rapid_below_path
    # Lambda gives the client a descriptor for log records, each of which comes in a frame with its
    # length. Without it, records that end without a line break would run into each other. Here it is
    # standard output, so that records and printed lines keep their order.
    os.environ["_LAMBDA_TELEMETRY_LOG_FD"] = os.environ["LAB_LOG"] = str(os.dup(1))
    main(sys.argv)
