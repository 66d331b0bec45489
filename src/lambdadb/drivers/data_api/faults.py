"""
What a failed call of the Data API means, and the DBAPI error for it.

The names are those of the service's model (botocore, rds-data 2018-08-01).
"""

from __future__ import annotations

import re

from lambdadb.drivers.base import AttemptFailed
from lambdadb.drivers.data_api import dbapi
from lambdadb.drivers.data_api.api import CallFailed
from lambdadb.drivers.data_api.dbapi import InDoubt, InvocationClosed, StatementTimeout, UnitEnded
from lambdadb.drivers.endings import make_invocation_ended, make_out_of_time
from lambdadb.errors import CommitInDoubt, LambdaDBError, TransactionEnded
from lambdadb.faults import Fault

_PERMISSIONS = (
    "The function's role needs rds-data:ExecuteStatement, BatchExecuteStatement, BeginTransaction, "
    "CommitTransaction and RollbackTransaction on the cluster, and secretsmanager:GetSecretValue on the "
    "secret. docs/data-api.md has the policy."
)
_FAULTS = {
    "DatabaseResumingException": (Fault.RESUMING, None),
    "DatabaseUnavailableException": (Fault.RESUMING, None),
    "StatementTimeoutException": (Fault.RESUMING, None),
    "InternalServerErrorException": (Fault.UNREACHABLE, "The Data API had an error of its own."),
    "ServiceUnavailableError": (Fault.UNREACHABLE, "The Data API is not available at the moment."),
    "ThrottlingException": (Fault.EXHAUSTED, "AWS takes fewer requests a second from this account."),
    "TooManyRequestsException": (Fault.EXHAUSTED, "AWS takes fewer requests a second."),
    "HttpEndpointNotEnabledException": (
        Fault.MISCONFIGURED,
        "Enable the Data API of the cluster: aws rds enable-http-endpoint --resource-arn ARN.",
    ),
    "DatabaseNotFoundException": (Fault.MISCONFIGURED, "Check cluster_arn in the URL."),
    "NotFoundException": (Fault.MISCONFIGURED, "Check cluster_arn in the URL."),
    "InvalidResourceStateException": (Fault.MISCONFIGURED, "Is the cluster stopped?"),
    "InvalidSecretException": (Fault.CREDENTIALS, "Check secret_arn, and what the secret contains."),
    "SecretsErrorException": (Fault.CREDENTIALS, _PERMISSIONS),
    "AccessDeniedException": (Fault.CREDENTIALS, _PERMISSIONS),
    "ForbiddenException": (Fault.CREDENTIALS, _PERMISSIONS),
    "NoKeys": (Fault.LOGIN, ""),
    "Untrusted": (Fault.UNTRUSTED, None),
    **dict.fromkeys(
        (
            *("InvalidSignatureException", "IncompleteSignature", "UnrecognizedClientException"),
            *("MissingAuthenticationTokenException", "ExpiredTokenException"),
        ),
        (Fault.CREDENTIALS, "Check the AWS keys, and the region in cluster_arn."),
    ),
}
_STATE = re.compile(r"SQLState: (\w{5})\b")
_NUMBER = re.compile(r"Error code: (\d+); SQLState: \w{5}$")  # MySQL's
# The database's own errors at a login, by SQLSTATE: cannot_connect_now, too_many_connections, invalid
# authorization, invalid catalog.
_STATES = {
    "57P03": Fault.RESUMING,
    "53300": Fault.EXHAUSTED,
    "08004": Fault.EXHAUSTED,  # MySQL's ER_CON_COUNT_ERROR
    "28P01": Fault.CREDENTIALS,
    "28000": Fault.CREDENTIALS,
    "3D000": Fault.MISCONFIGURED,
}
TOO_LARGE = "allowed response size limit"


def find_state(text: str) -> str | None:
    """Return the SQLSTATE at the end of a database's error; None if there is none."""
    found = _STATE.findall(text)
    return found[-1] if found else None


def find_number(text: str) -> int | None:
    """Return the number at the end of an error of MySQL; None if there is none."""
    found = _NUMBER.search(text)
    return int(found[1]) if found else None


def diagnose(failure: CallFailed) -> AttemptFailed:
    """Return what the failure of a call means that has to reach the database first."""
    text = str(failure)
    if failure.code == "DatabaseErrorException":
        fault = _STATES.get(find_state(text) or "", Fault.MISCONFIGURED)
        return AttemptFailed(fault, text)
    if failure.code in _FAULTS:
        fault, remedy = _FAULTS[failure.code]
        return AttemptFailed(fault, text, remedy=remedy)
    if not failure.status:
        remedy = "No answer came from the Data API. Check the function's way to AWS's endpoints."
        refused = "ECONNREFUSED" in text
        return AttemptFailed(Fault.UNREACHABLE, text, refused=refused, remedy=remedy)
    if failure.status >= 500:
        return AttemptFailed(Fault.UNREACHABLE, text)
    return AttemptFailed(Fault.MISCONFIGURED, text)


def make_error(failure: CallFailed) -> dbapi.Error:
    """Return the DBAPI error for a failed call."""
    text, state = str(failure), None
    kind: type[dbapi.Error] = dbapi.OperationalError
    if failure.code == "DatabaseErrorException" or find_state(text):
        state = find_state(text)
        kind = dbapi.error_class(state)
        if TOO_LARGE in text:
            text += (
                ". The Data API returns 1 MiB a result and 64 KB a row. Select fewer columns or rows, "
                "or page through them with LIMIT and a condition on the key."
            )
    elif failure.code == "UnsupportedResultException":
        kind = dbapi.NotSupportedError
        text += ". Cast the column to text, and the text back in Python."
    elif failure.code in ("ValidationException", "BadRequestException", "RequestTooLarge"):
        kind = dbapi.ProgrammingError
    elif failure.effect == "unknown":
        text += ". It is not known whether it was carried out."
    error = kind(text)
    error.sqlstate, error.number = state, find_number(str(failure))
    return error


def translate(error: BaseException) -> LambdaDBError | None:
    """What an error is for lambdadb's callers; None if it is the server's or somebody else's."""
    if isinstance(error, LambdaDBError):
        return error
    if isinstance(error, InDoubt):
        return CommitInDoubt("", str(error))
    if isinstance(error, UnitEnded):
        return TransactionEnded(str(error))
    if isinstance(error, StatementTimeout):
        return make_out_of_time(str(error), sent=error.sent)
    return make_invocation_ended() if isinstance(error, InvocationClosed) else None
