"""`farthing profiles` with the real boto3, against a loopback server that answers as Bedrock documents it."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from farthing import cli

pytest.importorskip("boto3")

ARN = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/{}"
MODEL = "arn:aws:bedrock:{}::foundation-model/anthropic.claude-sonnet-4-6"


def profile(name, *regions):
    return {
        "inferenceProfileName": name,
        "createdAt": "2026-10-01T00:00:00Z",
        "updatedAt": "2026-10-01T00:00:00Z",
        "inferenceProfileArn": ARN.format(name),
        "inferenceProfileId": name,
        "models": [{"modelArn": MODEL.format(region)} for region in regions],
        "status": "ACTIVE",
        "type": "APPLICATION",
    }


class Bedrock(BaseHTTPRequestHandler):
    """ListInferenceProfiles, in two pages."""

    def do_GET(self):
        first = "nextToken" not in self.path
        found = (
            [profile("team-a", "us-east-1", "us-west-2")] if first else [profile("team-b", "us-east-1", "")]
        )
        body = json.dumps(
            {"inferenceProfileSummaries": found} | ({"nextToken": "more"} if first else {})
        ).encode()
        assert self.path.startswith("/inference-profiles")
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def bedrock(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    server = HTTPServer(("127.0.0.1", 0), Bedrock)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_account_s_profiles_become_a_map_that_rate_reads(bedrock, capsys, tmp_path):
    with pytest.raises(SystemExit) as ended:
        cli.main(["profiles", "--region", "us-east-1", "--endpoint-url", bedrock])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert json.loads(said) == {
        ARN.format("team-a"): "us.anthropic.claude-sonnet-4-6",
        ARN.format("team-b"): "global.anthropic.claude-sonnet-4-6",
    }
    (tmp_path / "profiles.json").write_text(said)
    words = ["rate", ARN.format("team-b"), "--at", "2026-06-01", "--input", "1000000"]
    with pytest.raises(SystemExit):
        cli.main([*words, "--profiles", str(tmp_path / "profiles.json")])
    assert "exactly $3)" in capsys.readouterr().out


def test_an_endpoint_that_does_not_answer_is_one_line(bedrock, capsys, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(SystemExit) as ended:
        cli.main(["profiles", "--region", "us-east-1", "--endpoint-url", "http://127.0.0.1:9"])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert "bedrock:ListInferenceProfiles" in error
