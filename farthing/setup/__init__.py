"""What makes an AWS account known: a template to be read and applied by the account's owner. Nothing is applied here.

The templates are the files beside this one. What differs from one owner to the next stands in them as @NAME@.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from farthing.setup import _policies as policies

FORMS = {"terraform": "aws.tf", "cloudformation": "aws.yaml", "cli": "aws.sh"}
ROLE = "farthing-read"
TAG = "team"
MODEL = "anthropic.claude-sonnet-5-5"  # of the profiles, where none is named

# Columns of CUR 2.0: what a bill is reconciled by, and what tells who spent. Data Exports takes no `SELECT *`.
COLUMNS = (
    "identity_line_item_id", "identity_time_interval", "bill_bill_type", "bill_billing_entity",
    "bill_billing_period_start_date", "bill_billing_period_end_date", "bill_invoice_id", "bill_payer_account_id",
    "line_item_usage_account_id", "line_item_line_item_type", "line_item_usage_start_date",
    "line_item_usage_end_date", "line_item_product_code", "line_item_usage_type", "line_item_operation",
    "line_item_resource_id", "line_item_iam_principal", "line_item_usage_amount", "line_item_currency_code",
    "line_item_unblended_rate", "line_item_unblended_cost", "line_item_net_unblended_cost",
    "line_item_line_item_description", "line_item_legal_entity", "pricing_unit", "pricing_term",
    "pricing_public_on_demand_rate", "pricing_public_on_demand_cost", "product", "product_product_family",
    "product_region_code", "product_servicecode", "discount", "resource_tags", "tags",
)  # fmt: skip
# All of them: the API takes either none of a table's settings or each.
TABLE = {
    "BILLING_VIEW_ARN": "arn:{partition}:billing::{account}:billingview/primary",
    "INCLUDE_CAPACITY_RESERVATION_DATA": "FALSE",
    "INCLUDE_IAM_PRINCIPAL_DATA": "TRUE",
    "INCLUDE_MANUAL_DISCOUNT_COMPATIBILITY": "FALSE",
    "INCLUDE_RESOURCES": "TRUE",
    "INCLUDE_SPLIT_COST_ALLOCATION_DATA": "FALSE",
    "TIME_GRANULARITY": "HOURLY",
}
_GEOGRAPHIES = {  # the profiles of Bedrock that keep calls near a region; elsewhere only global is sure to be there
    "us-gov-": "us-gov",
    "us-": "us",
    "eu-": "eu",
    "ap-northeast-1": "jp",
    "ap-northeast-3": "jp",
    "ap-southeast-2": "au",
    "ap-southeast-4": "au",
}
_ROUTED = re.compile(r"(global|us-gov|us|eu|jp|au|apac|in|ca)\.")


class SetupError(ValueError):
    """A wish that cannot be printed: one line, with what can."""


@dataclass(frozen=True)
class Wanted:
    """What is to be set up. `bucket` is the beginning of bucket names; the bill is exported in the first account."""

    accounts: tuple[str, ...] = ()
    regions: tuple[str, ...] = ("us-east-1",)
    bucket: str = "farthing"
    prefix: str = "bedrock"
    trusted_account: str = ""
    external_id: str = ""
    teams: tuple[str, ...] = ()
    models: tuple[str, ...] = (MODEL,)
    bodies: bool = True
    kms: bool = False
    keep_days: int = 90

    def __post_init__(self) -> None:
        """Everything is checked before it comes near a template, so that no text can be more than a name there."""
        self._match("--account", self.accounts, r"\d{12}", "12 digits")
        self._match("--trusted-account", filter(None, [self.trusted_account]), r"\d{12}", "12 digits")
        self._match("--region", self.regions, r"[a-z]{2}(-[a-z]+)+-\d", "a name such as eu-central-1")
        self._match(
            "--external-id",
            filter(None, [self.external_id]),
            r"[\w+=,.@:/-]{2,1224}",
            "2 letters or more of those IAM takes",
        )
        self._match(
            "--prefix", filter(None, [self.prefix]), r"[\w.-]+(/[\w.-]+)*", "a path without slashes around"
        )
        self._match("--team", self.teams, r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,40}", "letters, digits, space . _ -")
        self._match("--model", self.models, r"[a-z0-9-]+\.[a-z0-9.:-]+", f"an id such as {MODEL}")
        room = 63 - len("--000000000000") - max(len(name) for name in (*self.regions, "bill"))
        self._match(
            "--bucket",
            [self.bucket],
            rf"[a-z0-9][a-z0-9-]{{1,{room - 1}}}",
            f"up to {room} of a-z, 0-9 and -: account and region are added",
        )
        if self.keep_days < 1:
            raise SetupError(f"--keep-days {self.keep_days}: at least 1")
        names = [profile.name for profile in self.profiles() if profile.region == self.regions[0]]
        if len(names) != len(set(names)):
            raise SetupError(
                "two teams or models come to one profile name: tell them apart by letters or digits"
            )
        if long := next((name for name in names if len(name) > 64), ""):
            raise SetupError(f"the profile name {long} is longer than 64: shorten the team")

    def _match(self, option: str, values: Any, pattern: str, says: str) -> None:
        for value in values:
            if not re.fullmatch(pattern, value, re.ASCII):
                raise SetupError(f"{option} {value!r}: write {says}")

    def profiles(self) -> list[Profile]:
        """An application inference profile per team, model and region, in that order."""
        return [
            Profile(_name(f"{team}-{model}"), region, _routed(model, region), team)
            for team in self.teams
            for model in self.models
            for region in self.regions
        ]


@dataclass(frozen=True)
class Profile:
    name: str
    region: str
    model: str  # the profile it is made from
    team: str


def render(form: str, wanted: Wanted) -> str:
    """The template in one of FORMS, filled in. The same wishes give the same text."""
    values = _shared(wanted) | {"terraform": _hcl, "cloudformation": _yaml, "cli": _shell}[form](wanted)
    template = Path(__file__).with_name(FORMS[form]).read_text(encoding="utf-8")
    return re.sub(r"@([A-Z_]+)@", lambda found: values[found[1]], template)


# --- what goes where ------------------------------------------------------------------------------


def _shared(wanted: Wanted) -> dict[str, str]:
    said = ", ".join(wanted.accounts)
    return {
        "ACCOUNTS_SAID": f": {said}" if said else "",
        "BODIES": str(wanted.bodies).lower(),
        "KMS": str(wanted.kms).lower(),
        "DAYS": str(wanted.keep_days),
        "HOME": json.dumps(wanted.regions[0]),
        "PAYER": json.dumps(wanted.accounts[0] if wanted.accounts else ""),
        "PREFIX": json.dumps(wanted.prefix),
        "PREFIX_BARE": wanted.prefix,
        "BILLING_REGION": policies.BILLING_REGION,
        "BILL_PREFIX": policies.BILL_PREFIX,
        "EXPORT": policies.EXPORT,
        "KEY_ALIAS": policies.KEY_ALIAS,
        "ROLE": ROLE,
        "TAG": TAG,
    }


def _filled(wanted: Wanted, fill: Callable[[str], str], show: Callable[[Any, int], str]) -> dict[str, str]:
    """Bucket names, policies and the export in a form's own way: `fill` puts its variables in, `show` prints."""
    bucket, prefix = wanted.bucket, wanted.prefix
    return {
        "LOG_BUCKET": fill(policies.log_bucket(bucket, "{region}")),
        "BILL_BUCKET": fill(policies.bill_bucket(bucket)),
        "LOG_BUCKET_POLICY": show(policies.log_bucket_policy(bucket, prefix), 8),
        "BILL_BUCKET_POLICY": show(policies.bill_bucket_policy(bucket), 8),
        "KEY_POLICY": show(policies.key_policy(), 8),
        "TRUST_POLICY": show(policies.trust_policy(wanted.trusted_account, wanted.external_id), 8),
        "READ_POLICY": show(policies.read_policy(bucket, prefix, wanted.regions), 12),
        "EXPORT_JSON": show(_export(bucket), 8),
    }


def _hcl(wanted: Wanted) -> dict[str, str]:
    fill = _filler("${local.account}", "${local.partition}", "${each.key}")

    profiles = {f"{profile.name}/{profile.region}": vars(profile) for profile in wanted.profiles()}
    provider: dict[str, Any] = {"region": wanted.regions[0]}
    if wanted.accounts:
        provider["allowed_account_ids"] = list(wanted.accounts)
    return _filled(wanted, fill, lambda value, _: fill(_hcl_value(value, 1))) | {
        "REGIONS": json.dumps(wanted.regions),
        "PROVIDER": _hcl_value(provider),
        "PROFILES": _hcl_value(profiles, 1),
        "QUERY": json.dumps(_query()),
        "TABLE": fill(_hcl_value(TABLE, 4)),
    }


def _hcl_value(value: Any, depth: int = 0) -> str:
    """A value as Terraform writes it and `terraform fmt` leaves it: the = of lines that follow each other in line.

    >>> print(_hcl_value({"Sid": "Read", "Resource": "*", "Condition": {"Bool": {"aws:SecureTransport": "true"}}}))
    {
      Sid      = "Read"
      Resource = "*"
      Condition = {
        Bool = {
          "aws:SecureTransport" = "true"
        }
      }
    }
    """
    inner, end = "  " * (depth + 1), "  " * depth
    if isinstance(value, list) and len(json.dumps(value)) > 90:
        return "\n".join(["[", *(f"{inner}{_hcl_value(item, depth + 1)}," for item in value), f"{end}]"])
    if not value or not isinstance(value, dict):
        return json.dumps(value)
    rows = [
        (key if re.fullmatch(r"[A-Za-z_]\w*", key) else json.dumps(key), _hcl_value(said, depth + 1))
        for key, said in value.items()
    ]
    lines = []
    for whole, group in groupby(rows, lambda row: "\n" in row[1]):
        pairs = list(group)
        width = 0 if whole else max(len(key) for key, _ in pairs)
        lines += [f"{inner}{key:<{width}} = {said}" for key, said in pairs]
    return "\n".join(["{", *lines, end + "}"])


def _yaml(wanted: Wanted) -> dict[str, str]:
    fill = _filler("${AWS::AccountId}", "${AWS::Partition}", "${AWS::Region}")

    def show(value: Any, indent: int) -> str:
        """As JSON, which is YAML too; text with a variable in it is marked for CloudFormation to fill."""
        lines = re.sub(r'("[^"]*\$\{[^"]*")', r"!Sub \1", fill(json.dumps(value, indent=2)))
        return textwrap.indent(lines, " " * indent)

    billing = policies.BILLING_REGION
    return _filled(wanted, fill, show) | {
        "REGIONS_SAID": ", ".join(wanted.regions),
        "BILLING_SAID": "" if billing in wanted.regions else f", and in {billing} for the bill",
        "IN_REGIONS": _any_of([f"!Equals [!Ref AWS::Region, {region}]" for region in wanted.regions]),
        "MAPPINGS": _yaml_mappings(wanted),
        "PROFILES": _yaml_profiles(wanted),
    }


def _shell(wanted: Wanted) -> dict[str, str]:
    fill = _filler("${account}", "${partition}", "${region}")
    calls = [f'make_profile {p.name} {p.region} {p.model} "{p.team}"\n' for p in wanted.profiles()]
    return _filled(wanted, fill, lambda value, _: fill(json.dumps(value, indent=2))) | {
        "REGIONS": " ".join(wanted.regions),
        "ACCOUNTS": " ".join(wanted.accounts),
        "PROFILES": "".join(calls),
    }


def _filler(account: str, partition: str, region: str) -> Callable[[str], str]:
    """Puts a form's variables where policies have braces."""
    variables = {"{account}": account, "{partition}": partition, "{region}": region}
    return lambda text: re.sub(r"\{(account|partition|region)\}", lambda found: variables[found[0]], text)


# --- pieces ---------------------------------------------------------------------------------------


def _query() -> str:
    return f"SELECT {', '.join(COLUMNS)} FROM COST_AND_USAGE_REPORT"


def _export(bucket: str) -> dict[str, Any]:
    return {
        "Name": policies.EXPORT,
        "Description": "CUR 2.0 with resources and IAM principals, read by farthing",
        "DataQuery": {"QueryStatement": _query(), "TableConfigurations": {"COST_AND_USAGE_REPORT": TABLE}},
        "DestinationConfigurations": {
            "S3Destination": {
                "S3Bucket": policies.bill_bucket(bucket),
                "S3Prefix": policies.BILL_PREFIX,
                "S3Region": policies.BILLING_REGION,
                "S3OutputConfigurations": {
                    "OutputType": "CUSTOM",
                    "Format": "PARQUET",
                    "Compression": "PARQUET",
                    "Overwrite": "OVERWRITE_REPORT",
                },
            }
        },
        "RefreshCadence": {"Frequency": "SYNCHRONOUS"},
    }


def _name(text: str) -> str:
    """A profile's name: letters, digits and single hyphens.

    >>> _name("Data Science-eu.anthropic.claude-haiku-4-5-20251001-v1:0")
    'Data-Science-eu-claude-haiku-4-5-20251001-v1-0'
    """
    return re.sub(r"[^A-Za-z0-9]+", "-", text.replace("anthropic.", "")).strip("-")


def _routed(model: str, region: str) -> str:
    """The profile of Bedrock to copy: as named, else the one that keeps calls within the region's geography.

    >>> _routed("anthropic.claude-opus-5", "eu-central-1"), _routed("global.anthropic.claude-opus-5", "eu-central-1")
    ('eu.anthropic.claude-opus-5', 'global.anthropic.claude-opus-5')
    """
    if _ROUTED.match(model):
        return model
    return f"{next((to for start, to in _GEOGRAPHIES.items() if region.startswith(start)), 'global')}.{model}"


def _any_of(conditions: Sequence[str]) -> str:
    """CloudFormation's !Or takes two to ten conditions."""
    if len(conditions) == 1:
        return conditions[0]
    if len(conditions) <= 10:
        return f"!Or [{', '.join(conditions)}]"
    return _any_of([_any_of(conditions[i : i + 10]) for i in range(0, len(conditions), 10)])


def _yaml_mappings(wanted: Wanted) -> str:
    """What each team's profiles are made from, by region; with the billing region, where a stack may be as well."""
    regions = dict.fromkeys((*wanted.regions, policies.BILLING_REGION))
    rows = [
        f"    {region}:\n" + "".join(f"      {_logical(m)}: {_routed(m, region)}\n" for m in wanted.models)
        for region in regions
    ]
    return "\nMappings:\n  Models:\n" + "".join(rows) if wanted.teams else ""


def _yaml_profiles(wanted: Wanted) -> str:
    head = (
        "\n  # --- who spends: a tagged profile per team, to be called instead of the model "
        + "-" * 37
        + "\n  # The only way a call gets a tag on the bill.\n"
    )
    rows = [
        _YAML_PROFILE.format(
            logical=_logical(f"{team}-{model}"),
            name=_name(f"{team}-{model}"),
            model=_logical(model),
            tag=TAG,
            team=json.dumps(team),
        )
        for team in wanted.teams
        for model in wanted.models
    ]
    return head + "".join(rows) if rows else ""


_YAML_PROFILE = """
  Profile{logical}:
    Type: AWS::Bedrock::ApplicationInferenceProfile
    Condition: Logs
    Properties:
      InferenceProfileName: {name}
      ModelSource:
        CopyFrom: !Sub
          - "arn:${{AWS::Partition}}:bedrock:${{AWS::Region}}:${{AWS::AccountId}}:inference-profile/${{Model}}"
          - Model: !FindInMap [Models, !Ref AWS::Region, {model}]
      Tags:
        - Key: {tag}
          Value: {team}
"""


def _logical(text: str) -> str:
    """A name of CloudFormation's: letters and digits."""
    return "".join(word[:1].upper() + word[1:] for word in _name(text).split("-"))


def mend(form: str = "cli", **wanted: str) -> str:
    """The command that prints what mends a gap."""
    options = "".join(f" --{name.replace('_', '-')} {value}" for name, value in wanted.items() if value)
    return f"farthing setup aws --print {form}{options}"
