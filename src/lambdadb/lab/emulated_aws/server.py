"""An HTTP server that answers as four services of AWS do, from what it was told happened."""

from __future__ import annotations

import json
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import mean
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from lambdadb.lab.emulated_aws import insights
from lambdadb.lab.emulated_aws.insights import LogLine

STATISTICS: Mapping[str, Callable[[list[float]], float]] = {"Average": mean, "Maximum": max}
# Values on a page of metrics, few so that a second page is common.
PAGE = 500
RDS_NAMESPACE = "http://rds.amazonaws.com/doc/2014-10-31/"
FUNCTIONS = "/2015-03-31/functions/"


class Refusal(Exception):
    """An error as AWS answers it: its code, and its text."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class FunctionFailed(Exception):
    """What a function call raises if the function failed: Lambda's answer is this JSON."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(error.get("errorMessage", ""))
        self.error = error


class EmulatedAWS:
    """
    Stands in for CloudWatch Logs, CloudWatch, RDS and Lambda at `endpoint`; a context manager.

    A request is neither authenticated nor authorised: who wants a refusal names the action.

    Attributes:
        denied: Actions that are refused, such as `logs:StartQuery`.
        requests: The actions of all requests so far.
    """

    def __init__(self) -> None:
        self.denied: set[str] = set()
        self.requests: list[str] = []
        self.groups: set[str] = set()
        self.lines: list[LogLine] = []
        self.values: dict[tuple[str, str], list[tuple[datetime, float]]] = defaultdict(list)
        self.events: list[tuple[str, datetime, str]] = []
        self.functions: dict[str, Callable[[], object]] = {}
        self.queries: dict[str, list[list[dict[str, str]]]] = {}
        self.looks: set[str] = set()
        self._server = Server(self)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def log(self, group: str, at: datetime, message: str) -> None:
        """A function wrote a line."""
        self.groups.add(group)
        self.lines.append(LogLine(group, at, message))

    def value(self, metric: str, cluster: str, at: datetime, value: float) -> None:
        """A cluster's metric had a value."""
        self.values[metric, cluster].append((at, value))

    def event(self, instance: str, at: datetime, text: str) -> None:
        """RDS reported something about an instance."""
        self.events.append((instance, at, text))

    def function(self, name: str, call: Callable[[], object]) -> None:
        """
        There is a function.

        Args:
            call: Invokes it and returns its answer, or raises `FunctionFailed`.
        """
        self.functions[name] = call

    @property
    def variables(self) -> dict[str, str]:
        """What makes boto3 ask here. Other services stay where they are."""
        services = ("CLOUDWATCH_LOGS", "CLOUDWATCH", "RDS", "LAMBDA")
        return {f"AWS_ENDPOINT_URL_{service}": self.endpoint for service in services}

    def __enter__(self) -> EmulatedAWS:
        threading.Thread(target=self._server.serve_forever, args=[0.05], daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def allow(self, action: str) -> None:
        """Note a request, and refuse it where it is denied."""
        self.requests.append(action)
        if action in self.denied:
            code = "AccessDenied" if action.startswith("rds:") else "AccessDeniedException"
            raise Refusal(code, f"User is not authorized to perform: {action}")

    def operate(self, action: str, asked: Mapping[str, Any]) -> object:
        """
        Answer a request.

        Raises:
            Refusal: It is denied, wrong, or not emulated.
        """
        self.allow(action)
        operations: dict[str, Callable[[Mapping[str, Any]], object]] = {
            "logs:StartQuery": self.start_query,
            "logs:GetQueryResults": self.get_query_results,
            "logs:StopQuery": self.stop_query,
            "cloudwatch:GetMetricData": self.get_metric_data,
            "rds:DescribeEvents": self.describe_events,
        }
        if action not in operations:
            raise Refusal("InvalidAction", f"{action} is not emulated")
        return operations[action](asked)

    def find_function(self, name: str) -> Callable[[], object]:
        """
        The call of a function.

        Raises:
            Refusal: It is denied, or there is none of that name.
        """
        self.allow("lambda:InvokeFunction")
        if name not in self.functions:
            raise Refusal("ResourceNotFoundException", f"Function not found: {name}")
        return self.functions[name]

    def start_query(self, asked: Mapping[str, Any]) -> object:
        missing = set(asked["logGroupNames"]) - self.groups
        if missing:
            raise Refusal("ResourceNotFoundException", f"Log group '{min(missing)}' does not exist")
        try:
            query = insights.parse(asked["queryString"])
        except insights.MalformedQuery as error:
            raise Refusal("MalformedQueryException", str(error)) from error
        lines = [line for line in tuple(self.lines) if line.group in asked["logGroupNames"]]
        number = str(uuid.uuid4())
        self.queries[number] = insights.run(query, lines, asked["startTime"], asked["endTime"])
        return {"queryId": number}

    def get_query_results(self, asked: Mapping[str, Any]) -> object:
        number = asked["queryId"]
        if number not in self.looks:  # a query takes a moment
            self.looks.add(number)
            return {"status": "Running", "results": []}
        return {"status": "Complete", "results": self.queries[number]}

    def stop_query(self, asked: Mapping[str, Any]) -> object:
        return {"success": asked["queryId"] in self.queries}

    def get_metric_data(self, asked: Mapping[str, Any]) -> object:
        results, more = [], False
        first = int(asked.get("NextToken", 0))
        for one in asked["MetricDataQueries"]:
            minutes = self.minutes_of(one["MetricStat"], asked["StartTime"], asked["EndTime"])
            page = minutes[first : first + PAGE]
            more = more or len(minutes) > first + PAGE
            results.append(
                {
                    "Id": one["Id"],
                    "Timestamps": [at.timestamp() for at, _ in page],
                    "Values": [value for _, value in page],
                    "StatusCode": "Complete",
                }
            )
        return {
            "MetricDataResults": results,
            **({"NextToken": str(first + PAGE)} if more else {}),
        }

    def minutes_of(
        self, asked: Mapping[str, Any], begin: float, end: float
    ) -> list[tuple[datetime, float]]:
        """Each minute that has values, and what the statistic makes of them."""
        metric = asked["Metric"]
        (dimension,) = metric["Dimensions"]
        minutes: dict[datetime, list[float]] = defaultdict(list)
        for at, value in tuple(self.values[metric["MetricName"], dimension["Value"]]):
            minutes[at.replace(second=0, microsecond=0)].append(value)
        of_minute = STATISTICS[asked["Stat"]]
        return [
            (at, of_minute(values))
            for at, values in sorted(minutes.items())
            if begin <= at.timestamp() < end
        ]

    def describe_events(self, asked: Mapping[str, str]) -> str:
        begin, end = (datetime.fromisoformat(asked[name][:19]) for name in ("StartTime", "EndTime"))
        found = [
            f"<Event><SourceIdentifier>{escape(source)}</SourceIdentifier>"
            f"<SourceType>db-instance</SourceType><Message>{escape(text)}</Message>"
            f"<Date>{at.astimezone(timezone.utc):%Y-%m-%dT%H:%M:%S.%fZ}</Date></Event>"
            for source, at, text in sorted(self.events, key=lambda event: event[1])
            if source == asked["SourceIdentifier"]
            and begin <= at.astimezone(timezone.utc).replace(tzinfo=None) <= end + timedelta(seconds=1)
        ]
        return (
            f'<DescribeEventsResponse xmlns="{RDS_NAMESPACE}"><DescribeEventsResult>'
            f"<Events>{''.join(found)}</Events></DescribeEventsResult></DescribeEventsResponse>"
        )


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, aws: EmulatedAWS) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.aws = aws


class Request(BaseHTTPRequestHandler):
    """One request, in the protocol of its service."""

    server: Server
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # an answer in one packet: a second one would wait for the client's receipt

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        target = self.headers.get("X-Amz-Target", "")
        if self.path.startswith(FUNCTIONS):
            self.invoke(self.path.removeprefix(FUNCTIONS).partition("/")[0])
        elif target:
            self.answer_json(target, json.loads(body))
        else:
            self.answer_query({name: values[0] for name, values in parse_qs(body.decode()).items()})

    def answer_json(self, target: str, asked: Mapping[str, Any]) -> None:
        """The JSON protocol: CloudWatch Logs and CloudWatch."""
        service, _, operation = target.partition(".")
        action = f"{'logs' if service.startswith('Logs') else 'cloudwatch'}:{operation}"
        try:
            self.send(200, json.dumps(self.server.aws.operate(action, asked)))
        except Refusal as error:
            self.send(400, json.dumps({"__type": error.code, "message": str(error)}))

    def answer_query(self, asked: Mapping[str, str]) -> None:
        """The query protocol: RDS."""
        try:
            self.send(200, str(self.server.aws.operate(f"rds:{asked['Action']}", asked)))
        except Refusal as error:
            text = f"<Error><Code>{error.code}</Code><Message>{escape(str(error))}</Message></Error>"
            self.send(403, f'<ErrorResponse xmlns="{RDS_NAMESPACE}">{text}</ErrorResponse>')

    def invoke(self, name: str) -> None:
        """The REST-JSON protocol: Lambda."""
        try:
            call = self.server.aws.find_function(name)
            if self.headers.get("X-Amz-Invocation-Type") == "DryRun":
                self.send(204, "")
            else:
                self.send(200, json.dumps(call()))
        except FunctionFailed as failed:
            self.send(200, json.dumps(failed.error), {"X-Amz-Function-Error": "Unhandled"})
        except Refusal as error:
            status = 404 if error.code.startswith("ResourceNotFound") else 403
            body = json.dumps({"Message": str(error), "Type": "User"})
            self.send(status, body, {"x-amzn-ErrorType": error.code})

    def send(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        """Send an answer."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing on standard error."""
