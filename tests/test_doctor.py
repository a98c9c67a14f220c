"""`farthing doctor` against an AWS of ours: moto where it knows the service, and a server of ours where it does not.

Refusals are AWS's own answers in its own words. Amounts are worked out from published rates: Claude Sonnet 4.6 by
its global profile is $3 a million tokens in and $15 out, its cache $3.75 (5 minutes) or $6 (an hour) to write.
"""

import json
import threading
import urllib.request
from datetime import UTC, datetime, timedelta
from http.server import ThreadingHTTPServer

import boto3
import pytest

from farthing import aws, cli
from farthing.api import import_paths
from farthing.config import Account, Config
from farthing.doctor import STATUSES, sick
from farthing.doctor._money import logging_costs
from farthing.money import from_usd
from tests.accounts import ACCOUNT, BUCKET, PROFILE, QUERY, REGION, ROLE, Scripted, World, healthy, record


@pytest.fixture
def world(moto, monkeypatch, tmp_path):
    """An account that is set up, with calls of yesterday. Change `answers`, or `script` a service, to break it."""
    handler = type("Account", (Scripted,), {"answers": healthy(), "asked": [], "moto": moto})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    ours = f"http://127.0.0.1:{server.server_port}"
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "FARTHING_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    for service in ("BEDROCK", "BCM_DATA_EXPORTS", "COST_EXPLORER"):
        monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service}", ours)
    monkeypatch.chdir(tmp_path)
    aws._session.cache_clear()
    urllib.request.urlopen(f"{moto}/moto-api/reset", data=b"").close()
    made = World(handler, ours, monkeypatch, tmp_path)
    made.fill()
    yield made
    server.shutdown()
    server.server_close()
    thread.join()
    aws._session.cache_clear()


# --- in order ---------------------------------------------------------------------------------------

ASKED = {"credentials", "role", "clock", "bill_export", "cost_tags"}
OF_A_REGION = {
    "logging", "bodies", "large_bodies", "bucket", "kms", "delivery",
    "profiles", "cloudwatch", "mantle", "logging_cost",
}  # fmt: skip
LOCAL = {"config", "time_zone", "ledger", "last_import", "unpriced", "price_book"}


def test_an_account_that_is_set_up_hides_nothing(world):
    found = world.checks()
    assert {check.name for check in found} == LOCAL | ASKED | OF_A_REGION
    assert not sick(found)
    assert {check.name for check in found if check.status != "ok"} <= {"config", "role", "kms", "price_book"}
    assert {check.blinds for check in found if check.status == "ok"} == {0}
    places = {check.name: (check.account, check.region) for check in found}
    assert {places[name] for name in LOCAL} == {("", "")}
    assert {places[name] for name in ASKED} == {(ACCOUNT, "")}
    assert {places[name] for name in OF_A_REGION} == {(ACCOUNT, REGION)}


def test_only_reading_operations_are_asked_for(world):
    world.checks()
    assert {operation for operation, _ in world.asked} == set(healthy())
    assert ("ListInferenceProfiles", "GET") in world.asked


def test_without_configuration_the_account_of_the_credentials_is_examined(world):
    world.config = Config()
    found = world.checks()
    assert {check.account for check in found if check.name in OF_A_REGION} == {ACCOUNT}
    assert {check.region for check in found if check.name in OF_A_REGION} == {REGION}
    named = {check.region for check in world.checks(regions=["us-west-2"]) if check.name in OF_A_REGION}
    assert named == {"us-west-2"}


# --- gaps and what they hide ------------------------------------------------------------------------


def test_logging_off_hides_what_cloudwatch_counted_and_the_ledger_has_not(world):
    world.answers["GetModelInvocationLoggingConfiguration"] = {}
    world.count(
        at=world.hour - timedelta(days=2), InputTokenCount=500_000, OutputTokenCount=10_000, Invocations=7
    )
    check = world.check("logging")
    assert check.status == "missing"
    assert check.blinds == from_usd("1.65")  # 0.5 M at $3, 0.01 M at $15
    assert check.mend == f"farthing setup aws --print cli --account {ACCOUNT} --region {REGION}"


def test_what_nothing_counted_is_unknown_and_not_zero(world):
    world.answers["GetModelInvocationLoggingConfiguration"] = {}
    refused = f"User: arn:aws:iam::{ACCOUNT}:user/x is not authorized to perform: cloudwatch:ListMetrics"
    world.script("CLOUDWATCH", "CloudWatch", (403, "AccessDenied", refused))
    found = {check.name: check for check in world.checks()}
    assert found["logging"].status == "missing"
    assert found["logging"].blinds is None
    assert found["cloudwatch"].status == "denied"
    assert "cloudwatch:ListMetrics" in found["cloudwatch"].mend
    assert found["logging"].as_json()["blinds_usd"] is None


def test_a_model_without_a_price_makes_the_amount_unknown(world):
    world.answers["GetModelInvocationLoggingConfiguration"] = {}
    world.count(model="anthropic.claude-unheard-of-9", InputTokenCount=500_000, Invocations=7)
    assert world.check("logging").blinds is None


def test_an_application_profile_is_priced_by_what_it_was_made_from(world):
    world.answers["GetModelInvocationLoggingConfiguration"] = {}
    made = {
        "inferenceProfileName": "search",
        "inferenceProfileArn": PROFILE + "abc123",
        "inferenceProfileId": "abc123",
        "models": [{"modelArn": "arn:aws:bedrock:::foundation-model/anthropic.claude-sonnet-4-6"}],
        "status": "ACTIVE",
        "type": "APPLICATION",
    }
    world.answers["ListInferenceProfiles"] = {"inferenceProfileSummaries": [made]}
    world.count(model=PROFILE + "abc123", InputTokenCount=1_000_000, Invocations=10)
    assert world.check("logging").blinds == from_usd("3")


def test_without_text_the_lives_of_cache_writes_are_hidden(world):
    world.answers["GetModelInvocationLoggingConfiguration"]["loggingConfig"]["textDataDeliveryEnabled"] = (
        False
    )
    world.import_log(record(world.hour, "r-2", input=10, write=1_000_000))
    check = world.check("bodies")
    assert check.status == "missing"
    assert check.blinds == from_usd("2.25")  # $6 less $3.75


def test_logs_that_only_go_to_cloudwatch_are_not_read_and_lose_large_bodies(world):
    group: dict = {"logGroupName": "calls", "roleArn": ROLE}
    world.answers["GetModelInvocationLoggingConfiguration"] = {"loggingConfig": {"cloudWatchConfig": group}}
    found = {check.name: check for check in world.checks()}
    assert found["logging"].status == "ok"
    assert found["bucket"].status == "missing"
    assert found["large_bodies"].status == "missing"
    assert found["large_bodies"].blinds is None
    group["largeDataDeliveryS3Config"] = {"bucketName": BUCKET}
    assert world.check("large_bodies").status == "ok"


def test_delivery_that_stopped_is_seen_by_the_calls_since(world):
    world.count(at=world.hour + timedelta(hours=5), InputTokenCount=2_000_000, Invocations=40)
    check = world.check("delivery")
    assert check.status == "missing"
    assert f"newest record of {world.hour:%Y-%m-%d %H} h UTC, and 40 calls since" in check.says
    assert check.blinds == from_usd("6")


def test_failures_of_delivery_are_told(world):
    now = datetime.now(UTC) - timedelta(hours=1)
    world.count(at=now, ModelInvocationLogsS3DeliveryFailure=12)
    check = world.check("delivery")
    assert check.status == "missing"
    assert "12 deliveries failed in a day" in check.says


def test_an_empty_bucket_is_no_fault_where_nothing_was_called(world):
    world.answers["GetModelInvocationLoggingConfiguration"]["loggingConfig"]["s3Config"]["keyPrefix"] = (
        "other"
    )
    found = {check.name: check for check in world.checks()}
    assert found["bucket"].status == "ok"
    assert found["kms"].status == "unknown"
    assert found["delivery"].status == "missing"  # for there was a call
    assert "no record yet, and 1 calls since" in found["delivery"].says


@pytest.mark.parametrize(
    ("table", "query", "says"),
    [
        ({"INCLUDE_RESOURCES": "FALSE"}, QUERY, "farthing has no resource ids"),
        ({"INCLUDE_IAM_PRINCIPAL_DATA": "FALSE"}, QUERY, "farthing has no IAM principals"),
        ({}, "SELECT line_item_resource_id FROM COST_AND_USAGE_REPORT", "farthing has no IAM principals"),
    ],
)
def test_a_bill_without_resources_or_principals_proves_too_little(world, table, query, says):
    data = world.answers["GetExport"]["Export"]["DataQuery"]
    data["TableConfigurations"]["COST_AND_USAGE_REPORT"] |= table
    data["QueryStatement"] = query
    check = world.check("bill_export")
    assert (check.status, check.says) == ("missing", says)
    assert check.blinds == from_usd("4.5")  # all of the ledger: nothing proves it


def test_no_export_and_one_that_fails_are_missing(world):
    world.answers["ListExports"]["Exports"][0]["ExportStatus"] = {
        "StatusCode": "UNHEALTHY",
        "StatusReason": "INSUFFICIENT_PERMISSION",
    }
    assert "INSUFFICIENT_PERMISSION" in world.check("bill_export").says
    world.answers["ListExports"] = {"Exports": []}
    check = world.check("bill_export")
    assert (check.status, check.says) == ("missing", "no CUR 2.0 export")
    assert check.mend.startswith(f"farthing setup aws --print cli --account {ACCOUNT}")


def test_a_tag_that_is_not_active_is_given_as_a_command(world):
    world.answers["ListCostAllocationTags"]["CostAllocationTags"][0]["Status"] = "Inactive"
    check = world.check("cost_tags")
    assert check.status == "missing"
    assert check.mend.endswith("--cost-allocation-tags-status TagKey=team,Status=Active")
    assert check.blinds == from_usd("4.5")


def test_calls_by_mantle_are_told_for_they_are_never_logged(world):
    world.count(
        model="anthropic.claude-sonnet-4-6",
        namespace="AWS/BedrockMantle",
        dimension="Model",
        Inferences=20,
        TotalInputTokens=1_000_000,
        TotalOutputTokens=100_000,
    )
    world.count(
        model="proj-1", namespace="AWS/BedrockMantle", dimension="Project", Inferences=20, TotalInputTokens=9
    )
    check = world.check("mantle")
    assert check.status == "missing"
    assert "20 calls by bedrock-mantle" in check.says
    assert check.blinds == from_usd("4.95")  # in the region: a tenth dearer than $4.50


def test_calls_of_unknown_profiles_have_no_amount(world):
    calls = [record(world.hour, f"opaque-{i}", model=PROFILE + "zzz", input=5) for i in range(3)]
    path = world.folder / "more.json"
    path.write_text("\n".join(map(json.dumps, calls)))
    import_paths(world.ledger, [path], now=datetime.now(UTC))
    found = {check.name: check for check in world.checks()}
    assert found["profiles"].status == "missing"
    assert found["profiles"].says.startswith("3 calls")
    assert found["profiles"].blinds is None
    assert found["unpriced"].says.startswith("3 of 4 calls")


# --- refusals, in AWS's own words -------------------------------------------------------------------

USER = f"arn:aws:sts::{ACCOUNT}:assumed-role/dev/ada"


def refused(action, resource=""):
    on = f" on resource: {resource}" if resource else ""
    because = " because no identity-based policy allows the action" if resource else ""
    return f"User: {USER} is not authorized to perform: {action}{on}{because}"


@pytest.mark.parametrize(
    ("operation", "action", "name"),
    [
        (
            "GetModelInvocationLoggingConfiguration",
            "bedrock:GetModelInvocationLoggingConfiguration",
            "logging",
        ),
        ("ListInferenceProfiles", "bedrock:ListInferenceProfiles", "profiles"),
        ("ListExports", "bcm-data-exports:ListExports", "bill_export"),
        ("GetExport", "bcm-data-exports:GetExport", "bill_export"),
        ("ListCostAllocationTags", "ce:ListCostAllocationTags", "cost_tags"),
    ],
)
def test_what_is_denied_names_the_action_and_the_rest_goes_on(world, operation, action, name):
    world.answers[operation] = (403, "AccessDeniedException", refused(action, "*"))
    found = world.checks()
    assert {check.name: check.status for check in found}[name] == "denied"
    assert action in {check.name: check.mend for check in found}[name]
    assert sum(check.status == "denied" for check in found) == 1
    assert len(found) == len(LOCAL | ASKED | OF_A_REGION)


def test_a_bucket_that_may_not_be_listed(world):
    world.script("S3", "List", (403, "AccessDenied", refused("s3:ListBucket", f'"arn:aws:s3:::{BUCKET}"')))
    world.count(at=world.hour - timedelta(days=3), InputTokenCount=1_000_000, Invocations=1)
    found = {check.name: check for check in world.checks()}
    assert found["bucket"].status == "denied"
    assert found["bucket"].mend == f"access denied: allow s3:ListBucket on arn:aws:s3:::{BUCKET}"
    assert found["bucket"].blinds == from_usd("3")
    assert found["delivery"].status == "unknown"


def test_records_that_may_not_be_read(world):
    world.script("S3", "Object", (403, "AccessDenied", "Access Denied"))
    found = {check.name: check for check in world.checks()}
    assert (found["bucket"].status, found["kms"].status) == ("denied", "unknown")
    assert found["bucket"].mend == f"access denied: allow s3:GetObject on arn:aws:s3:::{BUCKET}/*"


def test_records_whose_key_does_not_open(world):
    key = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1234"
    world.script("S3", "Object", (403, "AccessDenied", refused("kms:Decrypt", key)))
    found = {check.name: check for check in world.checks()}
    assert (found["bucket"].status, found["kms"].status) == ("ok", "denied")
    assert found["kms"].mend == f"access denied: allow kms:Decrypt on {key}"


def test_the_newest_record_is_found_and_bodies_are_not_looked_into(world):
    s3 = boto3.client("s3", region_name=REGION)
    folder = world.key.rsplit("/", 5)[0]
    s3.put_object(Bucket=BUCKET, Key=f"{folder}/2020/01/02/03/old.json.gz", Body=b"x")
    s3.put_object(Bucket=BUCKET, Key=f"{folder}/amazon-bedrock-logs-permission-check", Body=b"x")
    assert f"newest record of {world.hour:%Y-%m-%d %H} h" in world.check("delivery").says


def test_a_role_that_cannot_be_assumed_is_one_line_and_other_accounts_go_on(world):
    world.config = Config(
        accounts={
            "999988887777": Account(
                regions=(REGION,), role_arn="arn:aws:iam::999988887777:role/farthing-read"
            ),
            ACCOUNT: Account(regions=(REGION,)),
        }
    )
    message = refused("sts:AssumeRole", "arn:aws:iam::999988887777:role/farthing-read")
    world.script("STS", "STS", (403, "AccessDenied", message))
    found = [check for check in world.checks() if check.account == "999988887777"]
    (check,) = found
    assert (check.name, check.status) == ("role", "denied")
    assert "sts:AssumeRole" in check.mend
    assert check.blinds is None


def test_a_role_that_is_assumed(world):
    world.config = Config(
        accounts={ACCOUNT: Account(regions=(REGION,), role_arn=ROLE, external_id="farthing-7")}
    )
    found = {check.name: check for check in world.checks()}
    assert found["role"].status == "ok"
    assert "assumed-role/farthing-read" in found["credentials"].says
    assert found["logging"].status == "ok"


def test_credentials_of_another_account_are_not_taken_for_the_one_named(world):
    world.config = Config(accounts={"999988887777": Account(regions=(REGION,))})
    found = [check for check in world.checks() if check.account]
    assert {check.name: check.status for check in found}["role"] == "missing"
    assert not OF_A_REGION & {check.name for check in found}


def test_no_credentials_is_said_once_and_the_rest_is_still_checked(world):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        world.monkeypatch.delenv(name)
    aws._session.cache_clear()
    world.config = Config(accounts={ACCOUNT: Account(regions=(REGION,)), "999988887777": Account()})
    found = world.checks()
    assert {check.name for check in found} == LOCAL | {"credentials"}
    (check,) = [check for check in found if check.name == "credentials"]
    assert check.status == "missing"
    assert "no AWS credentials" in check.mend


def test_expired_credentials_are_unknown_not_a_gap(world):
    world.script("STS", "STS", (403, "ExpiredToken", "The security token included in the request is expired"))
    (check,) = [check for check in world.checks() if check.name == "credentials"]
    assert check.status == "unknown"
    assert "expired" in check.mend


def test_a_clock_that_is_wrong_is_told(world):
    assert world.check("clock").status == "ok"
    late = world.check("clock", clock=lambda: datetime.now(UTC) - timedelta(minutes=7))
    assert late.status == "missing"
    assert 400 < int(late.says.split()[0]) < 440


# --- what asks nobody -------------------------------------------------------------------------------


def test_offline_asks_nobody(world, monkeypatch):
    for service in ("STS", "S3", "CLOUDWATCH", "BEDROCK"):
        monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service}", "http://127.0.0.1:9")
    found = world.checks(offline=True)
    assert {check.name for check in found} == LOCAL | {"credentials"}
    assert world.asked == []
    assert {check.name: check.status for check in found}["credentials"] == "not_asked"


def test_an_old_import_and_old_prices(world):
    later = lambda: datetime.now(UTC) + timedelta(days=400)  # noqa: E731
    found = {check.name: check for check in world.checks(offline=True, clock=later)}
    assert (found["last_import"].status, found["last_import"].mend) == ("missing", "farthing sync")
    assert found["price_book"].status == "unknown"


def test_an_unknown_time_zone(world):
    world.config = Config(timezone="Mars/Olympus")
    assert world.check("time_zone", offline=True).status == "missing"


def test_a_ledger_that_does_not_open_is_told(world, tmp_path, capsys):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "farthing.json").write_text("{")
    code, said, _ = run(capsys, "--offline", "--json", "--ledger", str(tmp_path / "broken"))
    (check,) = [check for check in json.loads(said)["checks"] if check["name"] == "ledger"]
    assert code == 1
    assert (check["status"], check["blinds_usd"]) == ("missing", None)
    assert "damaged" in check["says"]


def test_logging_itself_costs_what_its_objects_and_bytes_cost(world):
    size = (world.folder / world.key).stat().st_size
    check = world.check("logging_cost")
    assert (
        check.costs == 5_000_000 + size * 23_000_000_000 // 2**30
    )  # $0.005 a thousand PUTs, $0.023 a GB and month
    assert "estimate" in check.says
    assert check.as_json()["costs_usd_estimate"].startswith("0.000005")
    assert logging_costs(1000, 2**30, cloudwatch=True) == from_usd("0.528")


# --- the command ------------------------------------------------------------------------------------


def run(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor", *words])
    said = capsys.readouterr()
    return ended.value.code, said.out, said.err


def test_command_keeps_its_contract(world, capsys):
    code, out, err = run(capsys, "--json", "--ledger", str(world.folder / "ledger"))
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert list(found) == ["checks"]
    for check in found["checks"]:
        assert list(check)[:6] == ["account", "region", "name", "status", "blinds_usd", "mend"]
        assert check["status"] in STATUSES
        assert check["blinds_usd"] is None or isinstance(check["blinds_usd"], str)


def test_command_exits_1_where_something_is_missing(world, capsys):
    world.answers["GetModelInvocationLoggingConfiguration"] = {}
    world.count(at=world.hour - timedelta(days=3), InputTokenCount=1_000_000, Invocations=1)
    code, out, _ = run(capsys, "--ledger", str(world.folder / "ledger"))
    assert code == 1
    assert f"MISSING  logging       {ACCOUNT} {REGION}  invocation logging is off  hides $3.00\n" in out
    assert f"mend: farthing setup aws --print cli --account {ACCOUNT} --region {REGION}\n" in out


def test_command_reads_farthing_toml(world, capsys):
    (world.folder / "farthing.toml").write_text(
        f'ledger = "{world.folder / "ledger"}"\n[accounts.{ACCOUNT}]\nregions = ["{REGION}"]\n'
    )
    code, out, _ = run(capsys, "--json")
    assert code == 0
    assert {"account": "", "name": "config", "status": "ok"}.items() <= json.loads(out)["checks"][0].items()


@pytest.mark.parametrize(
    ("words", "says"),
    [(["--region", "Mars"], "unknown region 'Mars'"), (["--config", "nowhere.toml"], "nowhere.toml")],
)
def test_command_refuses_bad_input_in_one_line(world, capsys, words, says):
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert says in err
    assert len(err.splitlines()) == 1
