"""The checks that ask AWS, each by one or two reading calls. What is denied names the action that lacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any

from farthing import setup
from farthing.aws import Access, AwsError, explained, session
from farthing.doctor import _metrics as metrics
from farthing.doctor._check import DENIED, MISSING, NOT_ASKED, OK, UNKNOWN, Check, fine
from farthing.doctor._money import DAYS, Place, Seen, logging_costs
from farthing.profiles import from_answers

DENIALS = {
    "AccessDenied",
    "AccessDeniedException",
    "403",
    "Forbidden",
    "UnauthorizedOperation",
    "AllAccessDisabled",
}
LOST = "NoCredentialsError"
MOST_SKEW_SECONDS = 60  # AWS refuses requests five minutes off, and hours of usage go astray before
DELIVERY_HOURS = 3  # an object may be this late before it counts as missing
_SERVICES = {"bcm-data-exports": "us-east-1", "ce": "us-east-1"}  # these live in one region
_TRUE = "TRUE"


@dataclass
class Account:
    """An account as farthing reaches it. `id` is what the configuration calls it; AWS is asked who it really is."""

    id: str
    access: Access
    regions: tuple[str, ...]
    found: Seen
    now: datetime
    clock: Callable[[], datetime]
    tags: tuple[str, ...] = (setup.TAG,)
    skew_seconds: float | None = None
    _cache: dict[str, Any] = field(default_factory=dict)

    def ask(self, service: str, operation: str, action: str, region: str = "", **said: Any) -> Any:
        """An answer of AWS, or AwsError. Only reading operations are asked for here."""
        try:
            return getattr(self.client(service, region), operation)(**said)
        except Exception as error:  # noqa: BLE001 - `told` raises again what is not of botocore
            raise self.told(error, action, said.get("Bucket", "")) from None

    def client(self, service: str, region: str = "") -> Any:
        from botocore.config import Config

        region = _SERVICES.get(service) or region or "us-east-1"
        key = f"{service} {region}"
        if key not in self._cache:
            config = Config(connect_timeout=10, read_timeout=20, retries={"total_max_attempts": 3})
            endpoint = self.access.endpoint_url or None
            made = session(self.access)
            self._cache[key] = made.client(service, region_name=region, endpoint_url=endpoint, config=config)
        return self._cache[key]

    def told(self, error: Exception, action: str, resource: str = "") -> AwsError:
        if type(error).__module__.partition(".")[0] not in ("boto3", "botocore", "farthing", "s3transfer"):
            raise error
        return explained(error, action, resource or "*", self.access)


def status_of(error: AwsError) -> str:
    """Denied, or merely not known: a network that is down says nothing of an account."""
    return DENIED if error.code in DENIALS else UNKNOWN


def failed(name: str, error: AwsError, blinds: int | None = None) -> Check:
    return Check(name, status_of(error), "AWS was asked and did not answer", str(error), blinds)


# --- who asks ---------------------------------------------------------------------------------------


def identify(account: Account) -> Iterator[Check]:
    """Credentials, the role and the clock; the account's id where none was configured."""
    try:
        answer = account.ask("sts", "get_caller_identity", "sts:GetCallerIdentity", _home(account))
    except AwsError as error:
        yield from _no_identity(account, error)
        return
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date", "")
    account.skew_seconds = (
        abs((account.clock() - parsedate_to_datetime(date)).total_seconds()) if date else None
    )
    yield fine("credentials", answer["Arn"])
    if account.id and account.id != answer["Account"]:
        yield Check(
            "role",
            MISSING,
            f"these credentials are of account {answer['Account']}",
            f"accounts.{account.id}: give it a role_arn or profile of that account in farthing.toml",
        )
    elif account.access.role_arn:
        yield fine("role", account.access.role_arn)
    else:
        yield Check("role", NOT_ASKED, "no role_arn: asked with the credentials themselves", blinds=0)
    account.id = account.id or answer["Account"]
    yield _clock(account)


def _home(account: Account) -> str:
    return account.regions[0] if account.regions else ""


def _no_identity(account: Account, error: AwsError) -> Iterator[Check]:
    if account.access.role_arn and error.code != LOST and "sts:AssumeRole" in str(error):
        yield Check("role", status_of(error), "the role does not let farthing in", str(error))
        return
    status = MISSING if error.code == LOST else status_of(error)
    yield Check("credentials", status, "AWS does not know who asks", str(error))


def _clock(account: Account) -> Check:
    if account.skew_seconds is None:
        return Check("clock", UNKNOWN, "AWS sent no date")
    says = f"{account.skew_seconds:.0f} s from AWS's clock"
    if account.skew_seconds <= MOST_SKEW_SECONDS:
        return fine("clock", says)
    return Check("clock", MISSING, says, "set this machine's clock by the network: timedatectl set-ntp true")


# --- the bill ---------------------------------------------------------------------------------------


def bill(account: Account) -> Iterator[Check]:
    """What proves the ledger: an export with resources and principals, and tags that reach it."""
    unproved = account.found.of_account(account.id)
    try:
        yield _export(account, unproved)
    except AwsError as error:
        yield failed("bill_export", error, unproved)
    try:
        yield _tags(account, unproved)
    except AwsError as error:
        yield failed("cost_tags", error, unproved)


def _export(account: Account, unproved: int | None) -> Check:
    exports: list[dict[str, Any]] = []
    said: dict[str, str] = {}
    while True:
        page = account.ask("bcm-data-exports", "list_exports", "bcm-data-exports:ListExports", **said)
        exports += page.get("Exports", ())
        if not page.get("NextToken"):
            break
        said = {"NextToken": page["NextToken"]}
    faults = []
    for export in exports:
        arn = export["ExportArn"]
        got = account.ask("bcm-data-exports", "get_export", "bcm-data-exports:GetExport", ExportArn=arn)[
            "Export"
        ]
        table = got["DataQuery"].get("TableConfigurations", {}).get("COST_AND_USAGE_REPORT")
        if table is None:
            continue
        lacks = _lacks(got["DataQuery"]["QueryStatement"], table, export.get("ExportStatus", {}))
        if not lacks:
            return fine("bill_export", f"{export['ExportName']}: CUR 2.0 with resources and principals")
        faults.append(f"{export['ExportName']} {', '.join(lacks)}")
    says = "; ".join(faults) or "no CUR 2.0 export"
    return Check(
        "bill_export", MISSING, says, _set_up(account, "for the export, in the account that pays"), unproved
    )


def _lacks(query: str, table: Mapping[str, str], status: Mapping[str, str]) -> list[str]:
    """What keeps an export from telling which profile and principal spent."""
    lacks = [
        f"has no {what}"
        for setting, column, what in (
            ("INCLUDE_RESOURCES", "line_item_resource_id", "resource ids"),
            ("INCLUDE_IAM_PRINCIPAL_DATA", "line_item_iam_principal", "IAM principals"),
        )
        if table.get(setting) != _TRUE or column not in query
    ]
    if status.get("StatusCode") == "UNHEALTHY":
        lacks.append(f"is unhealthy ({status.get('StatusReason', 'no reason given')})")
    return lacks


def _tags(account: Account, unproved: int | None) -> Check:
    answer = account.ask(
        "ce", "list_cost_allocation_tags", "ce:ListCostAllocationTags", TagKeys=list(account.tags)
    )
    active = {tag["TagKey"] for tag in answer.get("CostAllocationTags", ()) if tag["Status"] == "Active"}
    lacking = [tag for tag in account.tags if tag not in active]
    if not lacking:
        return fine("cost_tags", f"active: {', '.join(account.tags)}")
    asked = " ".join(f"TagKey={tag},Status=Active" for tag in lacking)
    return Check(
        "cost_tags",
        MISSING,
        f"not active: {', '.join(lacking)}",
        f"in the account that pays: aws ce update-cost-allocation-tags-status --cost-allocation-tags-status {asked}",
        unproved,
    )


def _set_up(account: Account, what: str = "", region: str = "") -> str:
    command = setup.mend(account=account.id, region=region)
    return f"{command}  ({what})" if what else command


# --- a region ---------------------------------------------------------------------------------------


@dataclass
class Region:
    """A region of an account. What several checks need is asked for once."""

    account: Account
    name: str

    @property
    def place(self) -> Place:
        return self.account.id, self.name

    @property
    def since(self) -> datetime:
        return (self.account.now - timedelta(days=DAYS)).replace(hour=0, minute=0, second=0, microsecond=0)

    def ask(self, service: str, operation: str, action: str, **said: Any) -> Any:
        return self.account.ask(service, operation, action, self.name, **said)

    @cached_property
    def config(self) -> dict[str, Any] | AwsError:
        """Of invocation logging; empty where it is off."""
        action = "bedrock:GetModelInvocationLoggingConfiguration"
        try:
            answer = self.ask("bedrock", "get_model_invocation_logging_configuration", action)
        except AwsError as error:
            return error
        return answer.get("loggingConfig") or {}

    @cached_property
    def profiles(self) -> dict[str, str] | AwsError:
        """Application inference profiles, by ARN and by id."""
        try:
            pages = self.account.client("bedrock", self.name).get_paginator("list_inference_profiles")
            found = from_answers(
                summary
                for page in pages.paginate(typeEquals="APPLICATION")
                for summary in page["inferenceProfileSummaries"]
            )
        except Exception as error:  # noqa: BLE001 - `told` raises again what is not of botocore
            return self.account.told(error, "bedrock:ListInferenceProfiles")
        return found | {arn.rsplit("/", 1)[-1]: model for arn, model in found.items()}

    @cached_property
    def daily(self) -> metrics.Daily | AwsError:
        found: metrics.Daily | AwsError = self.measure(
            lambda watch: metrics.used(watch, self.since, self.account.now)
        )
        return found

    def measure(self, question: Callable[[Any], Any]) -> Any:
        """An answer of CloudWatch, or why there is none."""
        try:
            return question(self.account.client("cloudwatch", self.name))
        except Exception as error:  # noqa: BLE001
            return self.account.told(error, "cloudwatch:GetMetricData")

    @cached_property
    def unseen(self) -> int | None:
        """Dollars spent here that the ledger does not have, as far as CloudWatch or a control total tells."""
        worth = None
        if not isinstance(self.daily, AwsError):
            known = {} if isinstance(self.profiles, AwsError) else self.profiles
            worth = metrics.worth(self.daily, self.name, self.since, known)
        return self.account.found.unseen(self.place, worth)

    @property
    def bucket(self) -> tuple[str, str]:
        """Where records are delivered, and under which prefix; ("", "") if not to S3."""
        said = {} if isinstance(self.config, AwsError) else self.config.get("s3Config", {})
        prefix = said.get("keyPrefix", "")
        path = f"AWSLogs/{self.account.id}/BedrockModelInvocationLogs/{self.name}/"
        return said.get("bucketName", ""), f"{prefix}/{path}" if prefix else path


def region(account: Account, name: str) -> Iterator[Check]:
    """Every check of one region."""
    here = Region(account, name)
    for check in (_logging, _bodies, _large_bodies, _files, _profiles, _cloudwatch, _mantle, _costs):
        for found in check(here):
            yield replace(found, region=name)


def _logging(here: Region) -> Iterator[Check]:
    if isinstance(here.config, AwsError):
        yield failed("logging", here.config)
    elif not here.config:
        says = "invocation logging is off"
        yield Check("logging", MISSING, says, _set_up(here.account, region=here.name), here.unseen)
    else:
        places = [
            here.bucket[0] and f"s3://{here.bucket[0]}",
            here.config.get("cloudWatchConfig", {}).get("logGroupName"),
        ]
        yield fine("logging", f"on, to {' and '.join(filter(None, places))}")


def _bodies(here: Region) -> Iterator[Check]:
    """Only bodies tell how long cache writes live."""
    if isinstance(here.config, AwsError) or not here.config:
        yield Check("bodies", UNKNOWN, "no logging to look at")
    elif here.config.get("textDataDeliveryEnabled", True):
        yield fine("bodies", "text is logged: cache writes tell their lives")
    else:
        yield Check(
            "bodies",
            MISSING,
            "text is not logged: cache writes may be of 5 minutes or 1 hour",
            "log text, send calls through the gateway, or reports take --assume ttl=1h",
            here.account.found.ttl_spread.get(here.place, 0) if here.account.found.calls else None,
        )


def _large_bodies(here: Region) -> Iterator[Check]:
    if isinstance(here.config, AwsError) or not here.config:
        yield Check("large_bodies", UNKNOWN, "no logging to look at")
    elif here.bucket[0] or here.config["cloudWatchConfig"].get("largeDataDeliveryS3Config"):
        yield fine("large_bodies", "bodies over 100 kB have a bucket")
    else:
        yield Check(
            "large_bodies",
            MISSING,
            "bodies over 100 kB are lost: CloudWatch takes no more",
            "add largeDataDeliveryS3Config to the logging configuration, or log to S3",
        )


# --- files of logs ----------------------------------------------------------------------------------


def _files(here: Region) -> Iterator[Check]:
    """bucket, kms, delivery: found by walking down to the newest hour, with five listings whatever there is."""
    bucket, prefix = here.bucket
    if not bucket:
        off = isinstance(here.config, AwsError) or not here.config
        if not off:
            says = "logs go to CloudWatch only, which farthing does not read"
            yield Check("bucket", MISSING, says, _set_up(here.account, region=here.name), here.unseen)
        for name in ("kms", "delivery") if not off else ("bucket", "kms", "delivery"):
            yield Check(name, NOT_ASKED, "no bucket to look at")
        return
    try:
        key = _newest(here, bucket, prefix)
    except AwsError as error:
        yield failed("bucket", error, here.unseen)
        yield Check("kms", NOT_ASKED, "the bucket cannot be listed")
        yield Check("delivery", UNKNOWN, "the bucket cannot be listed")
        return
    yield from _readable(here, bucket, key)
    yield _delivery(here, key)


def _newest(here: Region, bucket: str, prefix: str) -> str:
    """The newest record file; "" if there is none. Bodies lie in data/ below an hour, and are not looked into."""
    for _ in ("year", "month", "day", "hour"):
        below = [
            found["Prefix"]
            for page in _list(here, bucket, prefix)
            for found in page.get("CommonPrefixes", ())
        ]
        below = [found for found in below if found.removeprefix(prefix).strip("/").isdigit()]
        if not below:
            return ""
        prefix = max(below)
    keys = [found["Key"] for page in _list(here, bucket, prefix) for found in page.get("Contents", ())]
    return max(keys, default="")


def _list(here: Region, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
    said: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix, "Delimiter": "/"}
    while True:
        page = here.ask("s3", "list_objects_v2", "s3:ListBucket", **said)
        yield page
        if not page.get("IsTruncated"):
            return
        said["ContinuationToken"] = page["NextContinuationToken"]


def _readable(here: Region, bucket: str, key: str) -> Iterator[Check]:
    """One byte is read: enough to know that the object and its key open."""
    if not key:
        yield fine("bucket", f"s3://{bucket} can be listed; no record in it yet")
        yield Check("kms", UNKNOWN, "no record to try it on")
        return
    try:
        answer = here.ask("s3", "get_object", "s3:GetObject", Bucket=bucket, Key=key, Range="bytes=0-0")
        answer["Body"].close()
    except AwsError as error:
        if "kms:Decrypt" in str(error) or error.code.startswith("KMS."):
            yield fine("bucket", f"s3://{bucket}")
            yield Check(
                "kms", DENIED, "records are encrypted with a key that does not open", str(error), here.unseen
            )
        else:
            yield failed("bucket", error, here.unseen)
            yield Check("kms", UNKNOWN, "no record can be read")
        return
    yield fine("bucket", f"s3://{bucket}")
    key_arn = answer.get("SSEKMSKeyId")
    yield (
        fine("kms", f"opens {key_arn}")
        if key_arn
        else Check("kms", NOT_ASKED, "no key of yours is used", blinds=0)
    )


def _delivery(here: Region, key: str) -> Check:
    """The newest record against what CloudWatch counted since."""
    now = here.account.now
    year, month, day, hour = map(int, key.rsplit("/", 5)[1:5]) if key else (0, 0, 0, 0)
    last = datetime(year, month, day, hour, tzinfo=UTC) + timedelta(hours=1) if key else here.since
    until = (now - timedelta(hours=DELIVERY_HOURS)).replace(minute=0, second=0, microsecond=0)
    says = f"newest record of {last - timedelta(hours=1):%Y-%m-%d %H} h UTC" if key else "no record yet"
    start = max(last, here.since)
    calls = (
        here.measure(lambda watch: metrics.total(watch, "Invocations", start, until)) if start < until else 0
    )
    yesterday = until - timedelta(days=1)
    failures = here.measure(lambda watch: metrics.total(watch, metrics.FAILURES, yesterday, now))
    if not isinstance(failures, AwsError) and failures:
        mend = _set_up(here.account, "its bucket policy lets Bedrock write", here.name)
        return Check(
            "delivery", MISSING, f"{failures:,} deliveries failed in a day; {says}", mend, here.unseen
        )
    if isinstance(calls, AwsError):
        return Check(
            "delivery",
            OK if key and start >= until else UNKNOWN,
            f"{says}; CloudWatch does not tell calls",
            str(calls),
        )
    if calls:
        mend = _set_up(here.account, "check prefix and bucket policy", here.name)
        return Check("delivery", MISSING, f"{says}, and {calls:,} calls since", mend, here.unseen)
    return fine("delivery", f"{says}; no call since")


# --- the rest of a region ---------------------------------------------------------------------------


def _profiles(here: Region) -> Iterator[Check]:
    if isinstance(here.profiles, AwsError):
        yield failed("profiles", here.profiles)
        return
    number = sum(arn.startswith("arn:") for arn in here.profiles)
    opaque = here.account.found.opaque.get(here.place, 0)
    if opaque:
        yield Check(
            "profiles",
            MISSING,
            f"{opaque:,} calls of application profiles have no price, since nothing says what these were made from",
            f"farthing profiles --region {here.name} > profiles.json; then reports with --profiles profiles.json",
        )
    else:
        yield fine("profiles", f"{number} application profiles, all known")


def _cloudwatch(here: Region) -> Iterator[Check]:
    if isinstance(here.daily, AwsError):
        yield failed("cloudwatch", here.daily)
    else:
        yield fine("cloudwatch", f"{metrics.calls(here.daily):,} calls in {DAYS} days")


def _mantle(here: Region) -> Iterator[Check]:
    """Calls of bedrock-mantle are in no log: only the gateway, the bill and CloudWatch know them."""
    daily = here.measure(lambda watch: metrics.used_by_mantle(watch, here.since, here.account.now))
    if isinstance(daily, AwsError):
        yield failed("mantle", daily)
    elif not (number := metrics.calls(daily, "Inferences")):
        yield fine("mantle", "no call by bedrock-mantle")
    else:
        yield Check(
            "mantle",
            MISSING,
            f"{number:,} calls by bedrock-mantle, which are never logged; priced as if nothing was cached",
            "send them through the gateway, or reconcile them with the bill",
            metrics.worth_of_mantle(daily, here.name, here.since),
        )


def _costs(here: Region) -> Iterator[Check]:
    """What logging costs itself, by the objects that were imported."""
    logs = here.account.found.logs.get(here.place)
    if logs is None:
        yield Check(
            "logging_cost",
            UNKNOWN,
            f"no log of the last {DAYS} days was imported from S3 paths",
            "farthing sync",
        )
        return
    also = not isinstance(here.config, AwsError) and bool(here.config.get("cloudWatchConfig"))
    says = f"estimate at us-east-1 rates: {logs[0]:,} objects, {logs[1]:,} bytes in {DAYS} days"
    if also:
        says += "; in CloudWatch at least, since bytes are counted compressed"
    yield replace(fine("logging_cost", says), costs=logging_costs(*logs, cloudwatch=also))
