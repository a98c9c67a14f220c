"""Amazon S3 as farthing uses it: who asks, what is there, the bytes of it, and one line for what goes wrong.

boto3 finds credentials, assumes roles, lists and explains; obstore carries objects, at a tenth of boto3's cost
for each. Both are in the `aws` extra and are imported when an s3:// path is met.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any, NamedTuple

SCHEME = "s3://"
NAME = "farthing"  # of the role's session, as CloudTrail shows it
_SECONDS = 20  # to connect, or to wait for an answer
_CHUNK_BYTES = 1 << 18


class AwsError(OSError):
    """AWS was asked and did not do it: one line with the mend. `code` is AWS's own word for it."""

    def __init__(self, reason: str, code: str = "") -> None:
        super().__init__(reason)
        self.code = code


class Access(NamedTuple):
    """How to reach a bucket; no secrets. What is left out is found as boto3 finds it."""

    profile: str = ""
    role_arn: str = ""
    external_id: str = ""
    region: str = ""
    endpoint_url: str = ""


class Keys(NamedTuple):
    """What opens a bucket for now. Goes to worker processes through their pipes, and nowhere else."""

    bucket: str
    region: str
    endpoint: str
    key_id: str
    secret: str
    token: str

    def __repr__(self) -> str:
        return f"Keys({self.bucket!r})"


class Object(NamedTuple):
    key: str
    size: int
    etag: str
    modified: str = ""  # as the listing writes it


def is_s3(path: str) -> bool:
    return path.startswith(SCHEME)


def split(url: str) -> tuple[str, str]:
    """
    >>> split("s3://logs/bedrock/AWSLogs")
    ('logs', 'bedrock/AWSLogs')
    """
    bucket, _, key = url.removeprefix(SCHEME).partition("/")
    return bucket, key


# --- who asks -------------------------------------------------------------------------------------


def session(access: Access = Access()) -> Any:  # noqa: B008 - it cannot change
    """A boto3 session, the same for the same Access: it assumes its role once, and again before that runs out."""
    with _explaining("sts:AssumeRole", access.role_arn, access):
        return _session(access)


@cache
def _session(access: Access) -> Any:
    try:
        import boto3
        import botocore.session
        from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials
    except ImportError:
        raise AwsError("reading from AWS needs boto3 and obstore: pip install 'farthing[aws]'") from None
    core = botocore.session.Session(profile=access.profile or None)
    # Times in listings are not asked for, and reading them is most of the time that listing takes.
    core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=str)
    source = boto3.Session(botocore_session=core, region_name=access.region or None)
    if not access.role_arn:
        return source
    extra = {"RoleSessionName": NAME} | ({"ExternalId": access.external_id} if access.external_id else {})
    held = source.get_credentials()
    if held is None:
        raise AwsError(_NO_CREDENTIALS, "NoCredentialsError")
    region = source.region_name or "us-east-1"

    def create(service: str, **options: Any) -> Any:
        return source.client(service, **({"region_name": region} | options))

    fetcher = AssumeRoleCredentialFetcher(create, held, access.role_arn, extra_args=extra)
    assumed = botocore.session.Session(profile=access.profile or None)
    assumed.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=str)
    assumed._credentials = DeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")  # noqa: SLF001
    return boto3.Session(botocore_session=assumed, region_name=region)


@cache
def _client(access: Access, region: str = "") -> Any:
    from botocore.config import Config

    made = session(access)
    config = Config(connect_timeout=_SECONDS, read_timeout=_SECONDS, retries={"mode": "standard"})
    return made.client(
        "s3",
        region_name=region or made.region_name or "us-east-1",
        endpoint_url=access.endpoint_url or None,
        config=config,
    )


_REGIONS: dict[tuple[Access, str], str] = {}  # of buckets, as their answers told


def keys(access: Access, bucket: str) -> Keys:
    """What opens the bucket for some minutes at least: botocore renews it ten before it runs out."""
    region = _REGIONS.get((access, bucket), "") or _client(access).meta.region_name
    with _explaining("sts:AssumeRole", access.role_arn, access):
        held = session(access).get_credentials()
        frozen = held.get_frozen_credentials() if held else None
    if frozen is None:
        raise AwsError(_NO_CREDENTIALS, "NoCredentialsError")
    endpoint = _client(access, region).meta.endpoint_url
    return Keys(bucket, region, endpoint, frozen.access_key, frozen.secret_key, frozen.token or "")


# --- what is there --------------------------------------------------------------------------------


def objects(access: Access, bucket: str, prefix: str, after: str = "") -> Iterator[Object]:
    """The objects whose keys begin so and come later than `after`, in the order of keys. AwsError if it may not."""
    asked = {"Bucket": bucket, "Prefix": prefix} | ({"StartAfter": after} if after else {})
    client = _client(access)
    with _explaining("s3:ListBucket", bucket, access):
        for page in client.get_paginator("list_objects_v2").paginate(**asked):
            headers = page["ResponseMetadata"]["HTTPHeaders"]  # botocore has followed it to another region
            _REGIONS.setdefault((access, bucket), headers.get("x-amz-bucket-region", ""))
            for found in page.get("Contents", ()):
                yield Object(
                    found["Key"], found["Size"], found["ETag"].strip('"'), found.get("LastModified", "")
                )


# --- the bytes of it ------------------------------------------------------------------------------


class Body:
    """An object as an open file, if `etag` still holds: from `seek` on, a chunk at a time. AwsError if it cannot be."""

    def __init__(self, held: Keys, key: str, etag: str = "") -> None:
        self._held, self._key, self._etag = held, key, etag
        self._start = 0
        self._chunks: Iterator[Any] | None = None
        self._left = memoryview(b"")

    def seek(self, start: int) -> None:
        """Before anything is read."""
        self._start = start

    def open(self) -> Iterator[Any]:
        """Ask for it, if that has not been done."""
        if self._chunks is None:
            with _explaining("s3:GetObject", self._held.bucket):
                found = self._get() if _plain(self._key) else self._slow()
                stream = found.stream if _plain(self._key) else found.iter_chunks
                self._chunks = iter(stream(_CHUNK_BYTES))
        return self._chunks

    def read(self, most: int) -> bytes:
        chunks = self.open()
        with _explaining("s3:GetObject", self._held.bucket):
            while not self._left:
                chunk = next(chunks, None)
                if chunk is None:
                    return b""
                self._left = memoryview(chunk)
        data, self._left = bytes(self._left[:most]), self._left[most:]
        return data

    def all(self) -> bytes:
        """The whole object in one piece."""
        with _explaining("s3:GetObject", self._held.bucket):
            return bytes(self._get().bytes() if _plain(self._key) else self._slow().read())

    def close(self) -> None:
        self._chunks = iter(())
        self._left = memoryview(b"")

    def _get(self) -> Any:
        import obstore

        options: Any = {"if_match": f'"{self._etag}"'} if self._etag else {}
        if self._start:
            options["range"] = {"offset": self._start}
        return obstore.get(store(self._held), self._key, options=options)

    def _slow(self) -> Any:
        """By boto3: obstore cannot say names such as `logs//AWSLogs`, which a prefix that ends in a slash leads to."""
        options = {"IfMatch": f'"{self._etag}"'} if self._etag else {}
        if self._start:
            options["Range"] = f"bytes={self._start}-"
        found = _holder(self._held).get_object(Bucket=self._held.bucket, Key=self._key, **options)
        return found["Body"]


def _plain(key: str) -> bool:
    """Whether obstore takes the key as it is."""
    return not any(part in ("", ".", "..") for part in key.split("/"))


@lru_cache(maxsize=64)
def store(held: Keys) -> Any:
    """obstore's view of the bucket. A provider hands over the keys, for obstore would mix given ones with $AWS_*."""
    from obstore.store import S3Store

    def provide() -> Any:
        return {
            "access_key_id": held.key_id,
            "secret_access_key": held.secret,
            "token": held.token or None,
            "expires_at": None,
        }

    return S3Store(
        held.bucket,
        endpoint=held.endpoint,
        region=held.region,
        credential_provider=provide,
        client_options={
            "allow_http": held.endpoint.startswith("http:"),
            "connect_timeout": f"{_SECONDS}s",
            "timeout": "15m",
        },
        retry_config={"max_retries": 4},
    )


@lru_cache(maxsize=64)
def _holder(held: Keys) -> Any:
    import boto3

    made = boto3.Session(held.key_id, held.secret, held.token or None, held.region)
    return made.client("s3", endpoint_url=held.endpoint)


# --- what goes wrong ------------------------------------------------------------------------------

_NO_CREDENTIALS = (
    "no AWS credentials: name a profile (--profile), sign in (aws sso login), or set AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY"
)
_EXPIRED = "the AWS credentials have expired: sign in again (aws sso login), or renew the session token"
_WRONG = "AWS does not know these credentials: check the profile, or the key, its secret and its token"
_REASONS = {
    "NoSuchBucket": "no such bucket: {bucket}; check its name",
    "InvalidBucketName": "no name of a bucket: {bucket}",
    "ParamValidationError": "AWS cannot be asked so: {text}",
    "IncompleteReadError": "reading it broke off: import again",
    "ResponseStreamingError": "reading it broke off: import again",
    "NoSuchKey": "gone since it was listed: import again",
    "PreconditionFailed": "changed since it was listed: import again",
    "InvalidObjectState": "in an archive storage class: restore it first (aws s3api restore-object)",
    "RequestTimeTooSkewed": "the clock of this machine is wrong: AWS refuses requests of another time",
    "SlowDown": "S3 asks to slow down: import again later",
    "KMS.DisabledException": "the KMS key it is encrypted with is disabled: enable it",
    "NoCredentialsError": _NO_CREDENTIALS,
    "PartialCredentialsError": _NO_CREDENTIALS,
    "CredentialRetrievalError": "the credentials of the profile cannot be had: {text}",
    "ProfileNotFound": "no AWS profile of this name: {text}; see ~/.aws/config",
    "SSOTokenLoadError": _EXPIRED,
    "UnauthorizedSSOTokenError": _EXPIRED,
    "TokenRetrievalError": _EXPIRED,
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "RequestExpired": _EXPIRED,
    "InvalidAccessKeyId": _WRONG,
    "InvalidClientTokenId": _WRONG,
    "InvalidToken": _WRONG,
    "SignatureDoesNotMatch": _WRONG,
    "UnrecognizedClientException": _WRONG,
}  # fmt: skip
_UNREACHABLE = {"EndpointConnectionError", "ConnectTimeoutError", "ConnectionClosedError", "ProxyConnectionError",
                "ReadTimeoutError", "SSLError", "HTTPClientError"}  # fmt: skip
_ELSEWHERE = {
    "PermanentRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "301",
}
_DENIED = {"AccessDenied", "AccessDeniedException", "403", "Forbidden", "AllAccessDisabled"}
_ACTION = re.compile(r"not authorized to perform: ([\w-]+:\w+)(?: on resource: \"?([^\s\"]+))?")
_TAGS = re.compile(r"<(Code|Message|Region|Endpoint)>([^<]*)</")


@contextmanager
def _explaining(action: str, resource: str, access: Access = Access()) -> Iterator[None]:  # noqa: B008
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the errors of botocore and obstore share no base class
        raise explained(error, action, resource, access) from None


def explained(error: Exception, action: str, resource: str, access: Access = Access()) -> AwsError:  # noqa: B008
    """The error in one line. `action` is what was asked for, `resource` the bucket, or the role to be assumed."""
    if isinstance(error, AwsError):
        return error
    if getattr(error, "operation_name", "") == "AssumeRole":
        action, resource = "sts:AssumeRole", access.role_arn or resource
    code, text, region = _told(error)
    known = _REASONS.get(code)
    if known:
        reason = known.format(bucket=resource, text=text)
    elif code in _DENIED:
        reason = _denied(text, action, resource)
    elif code in _ELSEWHERE:
        where = (
            f"in {region}: give --region {region}" if region else "in another region: name it with --region"
        )
        reason = f"the bucket {resource} is {where}"
    elif code in _UNREACHABLE:
        at = access.endpoint_url or "AWS"
        reason = f"cannot reach {at}: check the network and --endpoint-url ({text})"
    else:
        reason = text
    return AwsError(reason, code)


def _told(error: Exception) -> tuple[str, str, str]:
    """AWS's word for it, its sentence, and the region it names. obstore quotes the answer whole, with its headers."""
    answer = getattr(error, "response", None)
    if isinstance(answer, dict) and "Error" in answer:
        said = answer["Error"]
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        region = said.get("Region") or headers.get("x-amz-bucket-region", "")
        return str(said.get("Code", "")), _line(said.get("Message", "")), region
    text = str(error)
    tags = dict(_TAGS.findall(text))
    if "Code" in tags:
        return tags["Code"], _line(tags.get("Message", "")), tags.get("Region", "")
    if type(error).__module__.startswith("obstore") or isinstance(error, FileNotFoundError):
        first = _line(text.partition("Debug source")[0])
        return _of_obstore(error, first), first, ""
    return type(error).__name__, _line(text), ""


def _of_obstore(error: Exception, text: str) -> str:
    if isinstance(error, FileNotFoundError):
        return "NoSuchKey"
    name = type(error).__name__
    if name == "PreconditionError":
        return "PreconditionFailed"
    if name == "PermissionDeniedError":
        return "AccessDenied"
    if "body error" in text:
        return "IncompleteReadError"
    return "ConnectionClosedError" if "error sending request" in text else name


def _denied(text: str, action: str, resource: str) -> str:
    """What to allow. AWS mostly names the action that lacks: reading an object may fail for its key (kms:Decrypt)."""
    found = _ACTION.search(text)
    if found:
        action, resource = found[1], (found[2] or resource).rstrip(".,")
    elif action in ("s3:GetObject", "s3:PutObject"):
        resource = f"arn:aws:s3:::{resource}/*"
    elif action == "s3:ListBucket":
        resource = f"arn:aws:s3:::{resource}"
    if action == "sts:AssumeRole":
        return (
            f"the role cannot be assumed: allow sts:AssumeRole on {resource}, and let the role's trust policy name "
            "this caller (and the external id, if it asks for one)"
        )
    return f"access denied: allow {action} on {resource}"


def _line(text: str) -> str:
    return " ".join(str(text).split())[:300]
