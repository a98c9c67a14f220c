"""What `farthing setup aws` prints, applied: the script and CloudFormation's function, to moto's AWS."""

import json
import os
import socketserver
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import boto3
import pytest
from botocore import xform_name
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from farthing import setup
from farthing.setup import Wanted, render
from farthing.setup import _policies as policies

# --- an AWS of ours, and an `aws` that asks it -------------------------------------------------------

ASKING = """
import json, socket, sys
with socket.create_connection(("127.0.0.1", {port})) as server:
    server.sendall(json.dumps(sys.argv[1:]).encode() + b"\\n")
    answer = json.loads(server.makefile().readline())
sys.stdout.write(answer["out"])
sys.stderr.write(answer["err"])
sys.exit(answer["code"])
"""


class Cli(socketserver.StreamRequestHandler):
    """`aws`, as far as the script asks it: words to a boto3 call, and the answer through --query."""

    calls: ClassVar[list] = []

    def handle(self):
        answer = {"out": "", "err": "", "code": 0}
        try:
            answer["out"] = self.ask(*json.loads(self.rfile.readline()))
        except ClientError as error:
            answer |= {"err": f"aws: {error}\n", "code": 254}
        except Exception as error:  # noqa: BLE001 - for the script's stderr, which the tests look at
            answer |= {"err": f"{type(error).__name__}: {error}\n", "code": 252}
        self.wfile.write(json.dumps(answer).encode() + b"\n")

    def ask(self, service, operation, *words):
        options = dict(zip([word[2:] for word in words[::2]], words[1::2], strict=True))
        region, query, _ = (options.pop(name, "") for name in ("region", "query", "output"))
        client = boto3.client({"s3api": "s3"}.get(service, service), region_name=region or "us-east-1")
        model = client.meta.service_model
        name = {xform_name(name, "-"): name for name in model.operation_names}[operation]
        shape = model.operation_model(name).input_shape
        members = {xform_name(name, "-"): name for name in (shape.members if shape else {})}
        said = {members[key]: self.plain(text, shape.members[members[key]]) for key, text in options.items()}
        if (answer := self.unknown(name)) is not None:
            stub = Stubber(client)  # it checks parameters and answer against the service's model
            stub.add_response(xform_name(name), answer, said)
            stub.activate()
        self.calls.append((name, region, said))
        answer = getattr(client, xform_name(name))(**said)
        answer.pop("ResponseMetadata", None)
        if not query:
            return json.dumps(answer, default=str) + "\n" if answer else ""
        found = pytest.importorskip("jmespath").search(query, answer)
        return ("\t".join(map(str, found)) if isinstance(found, list) else str(found)) + "\n"

    def plain(self, text, kind):
        if text.startswith("file://"):
            text = Path(text[7:]).read_text()
            return text if kind.type_name == "string" else json.loads(text)
        if kind.type_name == "structure":
            pairs = dict(pair.split("=", 1) for pair in text.split(","))
            return {key: self.plain(value, kind.members[key]) for key, value in pairs.items()}
        if kind.type_name == "list":
            return [self.plain(text, kind.member)]
        return {"true": True, "false": False}[text] if kind.type_name == "boolean" else text

    def unknown(self, operation):
        """Answers to what the emulator does not know."""
        exports = [said["Export"]["Name"] for name, _, said in self.calls if name == "CreateExport"]
        arn = "arn:aws:{}:us-east-1:123456789012:{}"
        profile = arn.format("bedrock", "application-inference-profile/abc")
        return {
            "CreateInferenceProfile": {"inferenceProfileArn": profile, "status": "ACTIVE"},
            "ListInferenceProfiles": {"inferenceProfileSummaries": []},
            "CreateExport": {},
            "UpdateCostAllocationTagsStatus": {},
            "ListExports": {
                "Exports": [
                    {
                        "ExportName": name,
                        "ExportArn": arn.format("bcm-data-exports", "export/x"),
                        "ExportStatus": {},
                    }
                    for name in exports
                ]
            },
        }.get(operation)


@pytest.fixture
def aws(monkeypatch, tmp_path):
    """An AWS on this machine: moto's server, ended by its own handle."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    boto3.setup_default_session()
    urllib.request.urlopen(f"http://{host}:{port}/moto-api/reset", data=b"").close()
    yield f"http://{host}:{port}"
    server.stop()
    boto3.setup_default_session()


@pytest.fixture
def script(aws, tmp_path):
    """Runs the script with an `aws` of ours: how it ended and what it said, and the calls that it made."""
    handler: Any = type("Calls", (Cli,), {"calls": []})
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    (tmp_path / "bin").mkdir()
    (tmp_path / "ask.py").write_text(ASKING.format(port=server.server_address[1]))
    program = tmp_path / "bin" / "aws"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {tmp_path / "ask.py"} "$@"\n')
    program.chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"

    def run(wanted):
        before = len(handler.calls)
        text = render("cli", wanted)
        environment = {**os.environ, "PATH": path}
        done = subprocess.run(
            ["bash"], input=text, text=True, capture_output=True, check=False, env=environment
        )
        return done, handler.calls[before:]

    yield run
    server.shutdown()
    server.server_close()
    thread.join()


HERE = Wanted(
    accounts=("123456789012",), regions=("us-east-1", "eu-central-1"), teams=("data science",), kms=True
)


def test_script_sets_an_account_up(script):
    done, calls = script(HERE)
    assert done.stderr == ""
    assert done.returncode == 0
    for region in HERE.regions:
        bucket = f"farthing-123456789012-{region}"
        config = boto3.client("bedrock", region_name=region).get_model_invocation_logging_configuration()
        assert config["loggingConfig"]["s3Config"] == {"bucketName": bucket, "keyPrefix": "bedrock"}
        assert config["loggingConfig"]["textDataDeliveryEnabled"] is True
        s3 = boto3.client("s3", region_name=region)
        assert (s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] or "us-east-1") == region
        assert s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"][
            "BlockPublicPolicy"
        ]
        assert s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"][0]["Expiration"]["Days"] == 90
        (rule,) = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
        key = rule["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"]
        aliases = boto3.client("kms", region_name=region).list_aliases(KeyId=key)["Aliases"]
        assert [alias["AliasName"] for alias in aliases] == [policies.KEY_ALIAS]
        policy = s3.get_bucket_policy(Bucket=bucket)["Policy"]
        assert f"arn:aws:bedrock:{region}:123456789012:*" in policy
    iam = boto3.client("iam")
    role = iam.get_role_policy(RoleName=setup.ROLE, PolicyName="read")["PolicyDocument"]
    text = json.dumps(policies.read_policy(HERE.bucket, HERE.prefix, HERE.regions))
    assert role == json.loads(text.replace("{account}", "123456789012").replace("{partition}", "aws"))
    (export,) = [said["Export"] for operation, _, said in calls if operation == "CreateExport"]
    table = export["DataQuery"]["TableConfigurations"]["COST_AND_USAGE_REPORT"]
    assert table["INCLUDE_RESOURCES"] == table["INCLUDE_IAM_PRINCIPAL_DATA"] == "TRUE"
    assert table["TIME_GRANULARITY"] == "HOURLY"
    output = export["DestinationConfigurations"]["S3Destination"]["S3OutputConfigurations"]
    assert (output["Format"], output["Overwrite"]) == ("PARQUET", "OVERWRITE_REPORT")
    made = [said for operation, _, said in calls if operation == "CreateInferenceProfile"]
    assert [profile["tags"] for profile in made] == [[{"key": "team", "value": "data science"}]] * 2
    assert ":inference-profile/eu.anthropic." in made[1]["modelSource"]["copyFrom"]


def test_script_run_twice_makes_nothing_anew(script):
    script(HERE)
    done, calls = script(HERE)
    assert (done.returncode, done.stderr) == (0, "")
    made = {operation for operation, _, _ in calls if operation.startswith("Create")}
    assert made <= {"CreateInferenceProfile"}  # which the emulator does not remember


def test_script_leaves_other_logging_alone(script):
    boto3.client("s3").create_bucket(Bucket="theirs")
    theirs = {"s3Config": {"bucketName": "theirs", "keyPrefix": ""}, "textDataDeliveryEnabled": True}
    bedrock = boto3.client("bedrock", region_name="us-east-1")
    bedrock.put_model_invocation_logging_configuration(loggingConfig=theirs)
    done, _ = script(HERE)
    assert done.returncode == 1
    assert "us-east-1: invocation logging is on already, to theirs" in done.stderr
    now = bedrock.get_model_invocation_logging_configuration()["loggingConfig"]
    assert now["s3Config"]["bucketName"] == "theirs"


def test_script_stops_at_credentials_of_another_account(script):
    done, calls = script(Wanted(accounts=("111122223333",)))
    assert done.returncode == 1
    assert "credentials of 123456789012" in done.stderr
    assert {operation for operation, _, _ in calls} == {"GetCallerIdentity"}


def test_the_bill_is_exported_where_it_is_paid(script):
    wanted = Wanted(accounts=("111122223333", "123456789012"))
    _, calls = script(wanted)
    assert "CreateExport" not in {operation for operation, _, _ in calls}
    assert "PutRolePolicy" in {operation for operation, _, _ in calls}


# --- CloudFormation's function ---------------------------------------------------------------------


@pytest.fixture
def function(monkeypatch):
    """The template's function, its answers to CloudFormation, and the Bedrock that it configures."""
    answers = []
    found, _ = pytest.importorskip("cfnlint.decode").decode_str(render("cloudformation", Wanted()))
    source = found["Resources"]["LoggingFunction"]["Properties"]["Code"]["ZipFile"]
    assert len(source) < 4096  # CloudFormation takes no more inline

    def send(event, context, status, data, physical_id, reason=""):
        answers.append((status, reason))

    module = SimpleNamespace(SUCCESS="SUCCESS", FAILED="FAILED", send=send)
    monkeypatch.setitem(sys.modules, "cfnresponse", module)
    names: dict = {}
    exec(compile(source, "index.py", "exec"), names)
    return names["handler"], answers


def test_cloudformation_turns_logging_on_and_leaves_other_logging_alone(function, aws):
    handler, answers = function
    bedrock = boto3.client("bedrock", region_name="us-east-1")

    def ask(request, bucket, bodies="true"):
        wanted = {"Bucket": bucket, "Prefix": "bedrock", "Bodies": bodies}
        handler({"RequestType": request, "ResourceProperties": wanted}, None)
        return answers[-1]

    def now():
        return bedrock.get_model_invocation_logging_configuration().get("loggingConfig")

    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="ours")
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="theirs")
    assert ask("Create", "ours", bodies="false")[0] == "SUCCESS"
    assert now()["s3Config"] == {"bucketName": "ours", "keyPrefix": "bedrock"}
    assert now()["textDataDeliveryEnabled"] is False
    assert ask("Update", "ours")[0] == "SUCCESS"
    assert now()["textDataDeliveryEnabled"] is True
    status, reason = ask("Create", "theirs")
    assert status == "FAILED"
    assert "on already" in reason
    assert ask("Delete", "theirs")[0] == "SUCCESS"
    assert now()["s3Config"]["bucketName"] == "ours"
    assert ask("Delete", "ours")[0] == "SUCCESS"
    assert not now()
