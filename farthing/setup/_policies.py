"""The IAM policies of a set-up, once, for every form that it is printed in.

Text in braces is for the form to fill: `{account}` the account the template is applied in, `{partition}` its
partition (aws, aws-us-gov), `{region}` the region of a bucket or key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

BILLING_REGION = "us-east-1"  # where Data Exports live, whatever is exported
KEY_ALIAS = "alias/farthing-logs"
BILL_PREFIX = "cur"
EXPORT = "farthing"

Policy = dict[str, Any]

# What farthing asks for, and where IAM lets no resource be named for it. The rest is bound to names.
NO_RESOURCE = (  # the service authorization reference gives these no resource type
    "bedrock:GetModelInvocationLoggingConfiguration",
    "bedrock:ListFoundationModelAgreementOffers",
    "bedrock:ListInferenceProfiles",
    "bedrock:ListModelInvocationJobs",
    "bcm-data-exports:ListExports",
    "ce:GetCostAndUsage",
    "ce:ListCostAllocationTags",
    "cloudwatch:GetMetricData",
    "cloudwatch:ListMetrics",
)


def log_bucket(bucket: str, region: str) -> str:
    """A log bucket must be of the account and region whose calls are logged: a bucket each."""
    return f"{bucket}-{{account}}-{region}"


def bill_bucket(bucket: str) -> str:
    return f"{bucket}-{{account}}-bill"


def log_path(prefix: str) -> str:
    """Where Bedrock puts records under a prefix, and a probe of its permission when logging is turned on."""
    return f"{prefix}/AWSLogs/{{account}}/BedrockModelInvocationLogs".lstrip("/")


def trust_policy(trusted: str, external_id: str) -> Policy:
    """Who may take the reading role: one account, if it knows the external id."""
    allow: Policy = {
        "Sid": "FarthingMayReadAs",
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:{{partition}}:iam::{trusted or '{account}'}:root"},
        "Action": "sts:AssumeRole",
    }
    if external_id:
        allow["Condition"] = {"StringEquals": {"sts:ExternalId": external_id}}
    return _policy(allow)


def read_policy(bucket: str, prefix: str, regions: Sequence[str]) -> Policy:
    """All that farthing reads, and nothing that it does not: no action writes, and no body of a call is readable."""
    logs = [f"arn:{{partition}}:s3:::{log_bucket(bucket, region)}" for region in regions]
    bill = f"arn:{{partition}}:s3:::{bill_bucket(bucket)}"
    records = [f"{arn}/{log_path(prefix)}/*" for arn in logs]
    return _policy(
        {
            "Sid": "FindFiles",
            "Effect": "Allow",
            "Action": ["s3:GetBucketLocation", "s3:ListBucket"],
            "Resource": [*logs, bill],
        },
        {
            "Sid": "ReadLogsAndBill",
            "Effect": "Allow",
            "Action": "s3:GetObject",
            "Resource": [*records, f"{bill}/{BILL_PREFIX}/*"],
        },
        {  # bodies over 100 kB and media lie in data/, apart from the records that farthing counts
            "Sid": "NeverLargeBodies",
            "Effect": "Deny",
            "Action": "s3:GetObject",
            "Resource": [f"{arn}/{log_path(prefix)}/*/data/*" for arn in logs],
        },
        {
            "Sid": "DecryptLogs",
            "Effect": "Allow",
            "Action": "kms:Decrypt",
            "Resource": [f"arn:{{partition}}:kms:{region}:{{account}}:key/*" for region in regions],
            "Condition": {
                "ForAnyValue:StringEquals": {"kms:ResourceAliases": KEY_ALIAS},
                "StringEquals": {"kms:ViaService": [f"s3.{region}.amazonaws.com" for region in regions]},
            },
        },
        {
            "Sid": "KnowProfilesAndJobs",
            "Effect": "Allow",
            "Action": [
                "bedrock:GetInferenceProfile",
                "bedrock:GetModelInvocationJob",
                "bedrock:ListTagsForResource",
            ],
            "Resource": [
                f"arn:{{partition}}:bedrock:{region}:{{account}}:{kind}/*"
                for region in regions
                for kind in ("application-inference-profile", "model-invocation-job")
            ],
        },
        {
            "Sid": "KnowExport",
            "Effect": "Allow",
            "Action": "bcm-data-exports:GetExport",
            "Resource": f"arn:{{partition}}:bcm-data-exports:{BILLING_REGION}:{{account}}:export/*",
        },
        {"Sid": "AskWhatHasNoResource", "Effect": "Allow", "Action": list(NO_RESOURCE), "Resource": "*"},
    )


def log_bucket_policy(bucket: str, prefix: str) -> Policy:
    """Bedrock of this account and region may write records, nobody may come without TLS. For `{region}`."""
    arn = f"arn:{{partition}}:s3:::{log_bucket(bucket, '{region}')}"
    return _policy(
        {
            "Sid": "BedrockDeliversLogs",
            "Effect": "Allow",
            "Principal": {"Service": "bedrock.amazonaws.com"},
            "Action": "s3:PutObject",
            "Resource": f"{arn}/{log_path(prefix)}/*",
            "Condition": _for_bedrock(),
        },
        _tls_only(arn),
    )


def bill_bucket_policy(bucket: str) -> Policy:
    """Data Exports may write; anywhere in the bucket, since they first put a test object at its root."""
    arn = f"arn:{{partition}}:s3:::{bill_bucket(bucket)}"
    sources = [
        f"arn:{{partition}}:bcm-data-exports:{BILLING_REGION}:{{account}}:export/*",
        f"arn:{{partition}}:cur:{BILLING_REGION}:{{account}}:definition/*",
    ]
    return _policy(
        {
            "Sid": "DataExportsDeliverBill",
            "Effect": "Allow",
            "Principal": {"Service": ["bcm-data-exports.amazonaws.com", "billingreports.amazonaws.com"]},
            "Action": ["s3:GetBucketPolicy", "s3:PutObject"],
            "Resource": [arn, f"{arn}/*"],
            "Condition": {
                "StringEquals": {"aws:SourceAccount": "{account}"},
                "ArnLike": {"aws:SourceArn": sources},
            },
        },
        _tls_only(arn),
    )


def key_policy() -> Policy:
    """Bedrock may encrypt with the key; the account administers it, as AWS asks of every key. For `{region}`."""
    return _policy(
        {
            "Sid": "AccountAdministers",
            "Effect": "Allow",
            "Principal": {"AWS": "arn:{partition}:iam::{account}:root"},
            "Action": "kms:*",
            "Resource": "*",
        },
        {
            "Sid": "BedrockEncryptsLogs",
            "Effect": "Allow",
            "Principal": {"Service": "bedrock.amazonaws.com"},
            "Action": "kms:GenerateDataKey",
            "Resource": "*",
            "Condition": _for_bedrock(),
        },
    )


def _for_bedrock() -> Policy:
    return {
        "StringEquals": {"aws:SourceAccount": "{account}"},
        "ArnLike": {"aws:SourceArn": "arn:{partition}:bedrock:{region}:{account}:*"},
    }


def _tls_only(arn: str) -> Policy:
    return {
        "Sid": "OnlyByTls",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [arn, f"{arn}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }


def _policy(*statements: Policy) -> Policy:
    return {"Version": "2012-10-17", "Statement": list(statements)}
