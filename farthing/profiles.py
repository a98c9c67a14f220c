"""Inference profiles: what an opaque application profile was made from, by a mapping file or by asking Bedrock."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from farthing.usage import parse_model_id

_GEOGRAPHIES = {  # where the regions of a geography's profiles begin so; the narrow ones first
    "us-gov": ("us-gov-",),
    "ca": ("ca-",),
    "us": ("us-", "ca-"),
    "eu": ("eu-",),
    "jp": ("ap-northeast-1", "ap-northeast-3"),
    "au": ("ap-southeast-2", "ap-southeast-4"),
    "in": ("ap-south-1", "ap-south-2"),
    "apac": ("ap-",),
}


class ProfileError(ValueError):
    """A profile map that cannot be used: one line with file and mend."""


def load_profiles(path: Path | str) -> dict[str, str]:
    """Profile ARN or id to the model id it was made from.

    The file is {"ARN or id": "global.anthropic.claude-..."}, or what Bedrock's GetInferenceProfile or
    ListInferenceProfiles answered. ProfileError if it is neither.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ProfileError(f"{path}: cannot be read as JSON: {error}") from error
    try:
        if isinstance(found, dict) and "inferenceProfileSummaries" in found:
            return from_answers(found["inferenceProfileSummaries"])
        if isinstance(found, dict) and "inferenceProfileArn" in found:
            return from_answers([found])
    except (AttributeError, KeyError, TypeError) as error:
        raise ProfileError(
            f"{path}: not as Bedrock answers: each profile has an inferenceProfileArn and models"
        ) from error
    if isinstance(found, dict) and all(isinstance(value, str) for value in found.values()):
        return found
    raise ProfileError(f'{path}: no profile map: write {{"PROFILE ARN": "MODEL ID"}}')


def from_answers(answers: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Application profiles of Bedrock's own answers, as a map."""
    return {
        answer["inferenceProfileArn"]: made_from([model["modelArn"] for model in answer.get("models", ())])
        for answer in answers
        if answer.get("type", "APPLICATION") == "APPLICATION"
    }


def made_from(model_arns: Iterable[str]) -> str:
    """The id that a profile's model ARNs amount to: one region is in-region, none is global, several a geography.

    >>> made_from(["arn:aws:bedrock:eu-west-1::foundation-model/anthropic.claude-opus-5",
    ...            "arn:aws:bedrock:eu-north-1::foundation-model/anthropic.claude-opus-5"])
    'eu.anthropic.claude-opus-5'
    """
    parsed = [parse_model_id(arn) for arn in model_arns]
    regions = {model.region for model in parsed}
    if not parsed:
        return ""
    base = parsed[0].base
    if "" in regions:
        return f"global.{base}"
    if len(regions) == 1:
        return base
    fits = (name for name, starts in _GEOGRAPHIES.items() if all(r.startswith(starts) for r in regions))
    return f"{next(fits, 'us')}.{base}"


def fetch_profiles(
    region: str, profile: str | None = None, endpoint_url: str | None = None
) -> dict[str, str]:
    """Ask Bedrock for this account's application profiles in a region (bedrock:ListInferenceProfiles).

    Needs boto3 (`pip install farthing[aws]`) and the network; nothing else in farthing calls it by itself.
    """
    import boto3

    client = boto3.Session(profile_name=profile).client(
        "bedrock", region_name=region, endpoint_url=endpoint_url
    )
    pages = client.get_paginator("list_inference_profiles").paginate(typeEquals="APPLICATION")
    return from_answers(summary for page in pages for summary in page["inferenceProfileSummaries"])
