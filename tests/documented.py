"""What the docs speak of, made up: ledger, bills, requests, buckets, an AWS. Each file has the name docs give it."""

import gzip
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import duckdb
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from farthing.cli import _showcase
from farthing.emulator import running
from tests import batches, prompts
from tests.price_lists import OPUS_4_6, OPUS_5, agreement, offer, written

ROOT = Path(__file__).resolve().parent.parent
CALLS = 1_500
ACCOUNT = "111122223333"
EU = "global.anthropic.claude-sonnet-4-6"
CONFIG = """
ledger = "ledger"
timezone = "UTC"

[[sources]]
path = "logs"

[[residency]]
allow = ["geo:us", "geo:eu", "global", "in_region"]

[teams.search]
owner = "Ada"
email = "ada@example.com"
cost_centre = "4711"
tags = ["team=search-rag", "team=search"]

[teams.agents]
owner = "Bea"
email = "bea@example.com"
cost_centre = "4712"
tags = ["team=coding-agents", "team=support-chat"]

[workloads.support]
owner = "Grace"
tags = ["team=support-chat"]
allow = ["global"]
cache = true

[workloads.nightly]
owner = "Ada"
tags = ["team=doc-nightly"]
allow = ["global"]
deadline = "24h"

[journal]
debit = "6100"
credit = "2100"
accrued = "2190"
cost_centre = "9000"

[smtp]
host = "localhost"
security = "none"
sender = "farthing@example.com"

[[budgets]]
name = "all, monthly"
usd = 300

[[budgets]]
name = "agents"
usd = 50
period = "day"
hold = "hard"
each = "key"
"""
OFFER = """
[[offers]]
name = "Example 2026"
accounts = ["111122223333"]
signed = 2026-08-20
starts = 2026-09-01

[[offers.rates]]
percent_off = "5"
"""
OVERLAY = """
[[claude-opus-5.price]]
from = 2026-09-11
platforms = ["bedrock"]
input = 5
output = 20
cache_read = 0.5
cache_write_5m = 6.25
cache_write_1h = 10
source = "X"
accessed = 2026-11-22
"""
TOPIC = "arn:aws:sns:us-east-1:123456789012:costs"
MORE = {  # what these pages say that farthing.toml has
    "docs/contracts.md": 'contracts = ["offers/2026.toml"]\n',
    "docs/watch.md": f'[[notify]]\nname = "topic"\nkind = "sns"\ntopic_arn = "{TOPIC}"\n',
}
WORKLOADS = """
[workloads.tickets]
requests = 1000
per = "day"
input_tokens = 5000
output_tokens = 300
model = ["claude-sonnet-4-6", "claude-haiku-4-5"]
"""


def build(folder: Path) -> None:
    """The files, once for all pages."""
    made = _showcase.build(folder, CALLS)
    made.config.write_text(CONFIG, encoding="utf-8")
    for name in ("exports", "bills", "cur"):
        (folder / name).mkdir()
        shutil.copy(made.bill, folder / name / "cur.csv")
    duckdb.sql(f"COPY (SELECT * FROM read_csv('{made.bill}', all_varchar = true)) TO '{folder}/cur.parquet'")
    (folder / "offers").mkdir()
    for name in ("offers.toml", "draft.toml", "offers/2026.toml"):
        (folder / name).write_text(OFFER)
    for name in ("overlay.toml", "prices-2026-11-20.toml"):
        (folder / name).write_text(OVERLAY)
    shutil.copytree(ROOT / "farthing" / "prices", folder / "prices-2026-12")
    (folder / "workloads.toml").write_text(WORKLOADS)
    _requests(folder)
    _lists(folder)
    _others(folder)
    _transcript(folder / "home")
    _certificate(folder)


def _requests(folder: Path) -> None:
    bodies = [prompts.body(f"Where is order {n}?") for n in range(3)]
    for name in ("requests", "base", "head"):
        (folder / name).mkdir()
        for n, body in enumerate(bodies):
            prompts.save(folder / name / f"{n}.json", body | ({"model": EU}))
    prompts.save(folder / "monday.json", prompts.body(system="Monday 08:15:01. " + prompts.SENTENCE * 60))
    prompts.save(folder / "tuesday.json", prompts.body(system="Tuesday 09:31:44. " + prompts.SENTENCE * 60))
    for n, name in enumerate(("settings.json", "new-settings.json")):
        said = {"model": "claude-sonnet-4-6", "env": {"ENABLE_PROMPT_CACHING_1H": str(n)}}
        (folder / name).write_text(json.dumps(said))
    log = next(path for path in sorted((folder / "logs").rglob("*.json.gz")) if "/data/" not in str(path))
    (folder / "bedrock-logs.jsonl.gz").write_bytes(gzip.compress(gzip.decompress(log.read_bytes())))
    for name in ("prompt.txt", "prompts.txt"):
        (folder / name).write_text(prompts.SENTENCE * 20)
    night = [batches.request(n) for n in range(20)]
    (folder / "night.jsonl").write_text("".join(json.dumps(each) + "\n" for each in night))
    (folder / "scores.csv").write_text("id,from,to\n" + "".join(f"{n},1,1\n" for n in range(400)))
    asked = ({"id": str(n), "prompt": f"{n} and {n}?", "expected": str(2 * n)} for n in range(6))
    (folder / "questions.jsonl").write_text("".join(json.dumps(each) + "\n" for each in asked))


def _lists(folder: Path) -> None:
    written(folder / "index.json", offer(OPUS_5))
    written(folder / "index2.json", offer(OPUS_4_6))
    written(folder / "answers.json", agreement("anthropic.claude-opus-5", OPUS_5))
    litellm = {
        "claude-opus-5": {"litellm_provider": "anthropic", "mode": "chat", "input_cost_per_token": 5e-6}
    }
    written(folder / "model_prices_and_context_window.json", litellm)
    prices = {"input": 3e-6, "output": 1.5e-5}
    row = {"modelName": "claude-sonnet-4-6", "matchPattern": "(?i)^(claude-sonnet-4-6)$", "prices": prices}
    written(folder / "default-model-prices.json", [row])


def _others(folder: Path) -> None:
    samples = ROOT / "tests" / "importers"
    shutil.copy(samples / "uses.month.jsonl", folder / "uses.jsonl")
    shutil.copy(samples / "cloudwatch.metric_data.json", folder / "metrics.json")


def _transcript(home: Path) -> None:
    project = home / ".claude" / "projects" / "-srv-shop"
    project.mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "importers" / "claude_code.session.jsonl", project / "s.jsonl")


def _certificate(folder: Path) -> None:
    """Of this machine alone, for an hour."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(hours=1))
    (folder / "cert.pem").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "key.pem").write_bytes(secret)


# --- where a page's commands run ----------------------------------------------------------------------


def sandbox(world: Path, folder: Path, page: str, *, empty: bool = False) -> None:
    """Files of a page's own, so that pages may write what they like; what nobody writes to is linked."""
    for found in () if empty else world.iterdir():
        if found.name in ("logs", "prices-2026-12"):
            (folder / found.name).symlink_to(found)
        elif found.is_dir():
            shutil.copytree(found, folder / found.name)
        else:
            shutil.copy(found, folder / found.name)
    if page in MORE:
        (folder / "farthing.toml").write_text(_joined(MORE[page]), encoding="utf-8")
    (folder / "aws").mkdir()
    profiles = "".join(f"[profile {name}]\nregion = us-east-1\n" for name in ("prod", "audit", "production"))
    (folder / "aws" / "config").write_text(profiles)
    keys = "aws_access_key_id = EMULATED\naws_secret_access_key = made-up\n"
    (folder / "aws" / "credentials").write_text(
        "".join(f"[{name}]\n{keys}" for name in ("default", "prod", "audit", "production"))
    )


def _joined(more: str) -> str:
    """Settings before tables: a table that is added comes last."""
    return CONFIG + more if more.startswith("[") else more + CONFIG


def environment(folder: Path, moto: str, bedrock: str) -> dict[str, str]:
    """Nobody's settings but these; AWS is on this machine."""
    return {
        "HOME": str(folder / "home"),
        "XDG_CACHE_HOME": str(folder / "home/.cache"),
        "XDG_CONFIG_HOME": str(folder / "home/.config"),
        "XDG_DATA_HOME": str(folder / "home/.local/share"),
        "AWS_ACCESS_KEY_ID": "EMULATED",
        "AWS_SECRET_ACCESS_KEY": "made-up",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(folder / "aws/config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "aws/credentials"),
        "AWS_ENDPOINT_URL": moto,
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": bedrock,
        "ANTHROPIC_API_KEY": "made-up",
        "ANTHROPIC_BASE_URL": bedrock,
        "COLUMNS": "80",
        "TZ": "UTC",
    }


def fill(moto: str, world: Path) -> None:
    """The buckets that docs name, with a few objects of the logs each, a bill, and a ledger."""
    s3 = boto3.client(
        "s3", endpoint_url=moto, aws_access_key_id="EMULATED", aws_secret_access_key="x", region_name="us-east-1"
    )  # fmt: skip
    by_region = (world / "logs").glob("AWSLogs/*/BedrockModelInvocationLogs/*-*-[0-9]")
    some = [next(p for p in sorted(place.rglob("*.json.gz")) if "data" not in p.parts) for place in by_region]
    boto3.client(
        "sns", endpoint_url=moto, aws_access_key_id="EMULATED", aws_secret_access_key="x", region_name="us-east-1"
    ).create_topic(Name="costs")  # fmt: skip
    for bucket, prefix in (("logs", ""), ("logs", "bedrock/"), ("logs-eu", "")):
        s3.create_bucket(Bucket=bucket)
        for path in some:
            s3.upload_file(str(path), bucket, f"{prefix}{path.relative_to(world / 'logs')}")
    s3.create_bucket(Bucket="bills")
    s3.upload_file(str(world / "cur.parquet"), "bills", "cur/cur.parquet")
    for bucket in ("costs", "BUCKET", "example-claude-code-telemetry"):
        s3.create_bucket(Bucket=bucket.lower())
    for path in sorted(found for found in (world / "ledger").rglob("*") if found.is_file()):
        s3.upload_file(str(path), "costs", str(path.relative_to(world)))


@contextmanager
def bedrock() -> Iterator[str]:
    """A Bedrock and an Anthropic API to ask."""
    with running() as emulator:
        yield emulator.url
