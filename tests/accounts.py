"""An AWS account of ours for the doctor to examine: moto where it knows the service, and a server where it does not."""

import gzip
import json
import urllib.request
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any

import boto3

from farthing.api import import_paths
from farthing.config import Account, Config
from farthing.doctor import STATUSES, examine
from farthing.ledger import Ledger

ACCOUNT = "123456789012"
REGION = "eu-central-1"
BUCKET = f"farthing-{ACCOUNT}-{REGION}"
MODEL = "global.anthropic.claude-sonnet-4-6"
PROFILE = f"arn:aws:bedrock:{REGION}:{ACCOUNT}:application-inference-profile/"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/farthing-read"
LOGGING = {
    "s3Config": {"bucketName": BUCKET, "keyPrefix": "bedrock"},
    "textDataDeliveryEnabled": True,
    "imageDataDeliveryEnabled": False,
}
EXPORT = f"arn:aws:bcm-data-exports:us-east-1:{ACCOUNT}:export/farthing"
TABLE = {"INCLUDE_RESOURCES": "TRUE", "INCLUDE_IAM_PRINCIPAL_DATA": "TRUE", "TIME_GRANULARITY": "HOURLY"}
QUERY = "SELECT line_item_resource_id, line_item_iam_principal FROM COST_AND_USAGE_REPORT"


def healthy() -> dict[str, Any]:
    """What an account answers that is set up: operation -> answer, or (status, error code, message)."""
    query = {"QueryStatement": QUERY, "TableConfigurations": {"COST_AND_USAGE_REPORT": dict(TABLE)}}
    return {
        "GetModelInvocationLoggingConfiguration": {"loggingConfig": json.loads(json.dumps(LOGGING))},
        "ListInferenceProfiles": {"inferenceProfileSummaries": []},
        "ListExports": {
            "Exports": [
                {"ExportArn": EXPORT, "ExportName": "farthing", "ExportStatus": {"StatusCode": "HEALTHY"}}
            ]
        },
        "GetExport": {"Export": {"Name": "farthing", "DataQuery": query}},
        "ListCostAllocationTags": {
            "CostAllocationTags": [{"TagKey": "team", "Type": "UserDefined", "Status": "Active"}]
        },
    }


class Scripted(BaseHTTPRequestHandler):
    """Answers an operation as `answers` say; S3's and STS's refusals are XML, the rest JSON."""

    answers: dict
    asked: list
    moto: str

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        operation = self.operation()
        self.asked.append((operation, self.command))
        if operation == "List" and operation not in self.answers:
            with urllib.request.urlopen(self.moto + self.path) as listing:
                return self.answer(200, listing.read(), "text/xml")
        answer = self.answers[operation]
        if isinstance(answer, dict):
            return self.answer(200, json.dumps(answer).encode(), "application/json")
        status, code, message = answer
        body = json.dumps({"__type": code, "Message": message, "message": message})
        if operation in ("STS", "List", "Object"):
            body = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
        if operation == "STS":
            body = f"<ErrorResponse>{body}</ErrorResponse>"
        kind = "text/xml" if body.startswith("<") else "application/json"
        return self.answer(status, body.encode(), kind, code)

    do_POST = do_GET  # noqa: N815

    def operation(self):
        target = self.headers.get("X-Amz-Target", "")
        if "Granite" in target or "Granite" in self.path:
            return "CloudWatch"
        path, _, query = self.path.partition("?")
        rest = {
            "/logging/modelinvocations": "GetModelInvocationLoggingConfiguration",
            "/inference-profiles": "ListInferenceProfiles",
            "/": "STS",
        }
        return target.rpartition(".")[2] or rest.get(path) or ("List" if "list-type" in query else "Object")

    def answer(self, status, body, kind, code=""):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if code:
            self.send_header("x-amzn-ErrorType", code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class World:
    """The account, its ledger, and the hour its calls were made in."""

    def __init__(self, handler, url, monkeypatch, folder):
        self.answers, self.asked = handler.answers, handler.asked
        self.url, self.monkeypatch, self.folder = url, monkeypatch, folder
        self.hour = (datetime.now(UTC) - timedelta(days=1)).replace(minute=0, second=0, microsecond=0)
        self.ledger = Ledger(folder / "ledger")
        self.config = Config(accounts={ACCOUNT: Account(regions=(REGION,))})

    @property
    def key(self):
        return f"bedrock/AWSLogs/{ACCOUNT}/BedrockModelInvocationLogs/{REGION}/{self.hour:%Y/%m/%d/%H}/records.json.gz"

    def fill(self):
        s3 = boto3.client("s3", region_name=REGION)
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        self.import_log(record(self.hour, input=1_000_000, output=100_000))
        s3.put_object(Bucket=BUCKET, Key=self.key, Body=(self.folder / self.key).read_bytes())
        s3.put_object(Bucket=BUCKET, Key=f"{self.key.rsplit('/', 1)[0]}/data/1_input.json.gz", Body=b"a body")
        self.count(InputTokenCount=1_000_000, OutputTokenCount=100_000, Invocations=1)

    def import_log(self, *records):
        path = self.folder / self.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress("\n".join(map(json.dumps, records)).encode()))
        done = import_paths(self.ledger, [path], now=datetime.now(UTC))
        assert (done.rejected, done.unpriced) == (0, 0)

    def count(self, at=None, model=MODEL, namespace="AWS/Bedrock", dimension="ModelId", **metrics):
        data = [
            {
                "MetricName": name,
                "Dimensions": [{"Name": dimension, "Value": model}],
                "Timestamp": at or self.hour,
                "Value": value,
            }
            for name, value in metrics.items()
        ]
        boto3.client("cloudwatch", region_name=REGION).put_metric_data(Namespace=namespace, MetricData=data)

    def script(self, service, operation, answer):
        self.answers[operation] = answer
        self.monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service}", self.url)

    def checks(self, **options):
        found = list(examine(self.config, self.ledger, **options))
        assert {check.status for check in found} <= set(STATUSES)
        assert all("\n" not in check.mend + check.says for check in found)
        names = [(check.account, check.region, check.name) for check in found]
        assert len(names) == len(set(names))
        return found

    def check(self, name, **options):
        (found,) = [check for check in self.checks(**options) if check.name == name]
        return found


def record(at, request_id="r-1", model=MODEL, **counts):
    """An invocation log record as Bedrock writes it, without bodies unless a `body` is given."""
    body = counts.pop("body", None)
    return {
        "schemaType": "ModelInvocationLog",
        "schemaVersion": "1.0",
        "timestamp": f"{at:%Y-%m-%dT%H:%M:%SZ}",
        "accountId": ACCOUNT,
        "identity": {"arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/app/ada"},
        "region": REGION,
        "requestId": request_id,
        "operation": "InvokeModel",
        "modelId": model,
        "input": {
            "inputTokenCount": counts.get("input", 0),
            "cacheReadInputTokenCount": counts.get("read", 0),
            "cacheWriteInputTokenCount": counts.get("write", 0),
        },
        "output": {"outputTokenCount": counts.get("output", 0)} | ({"outputBodyJson": body} if body else {}),
    }
