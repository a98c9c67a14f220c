"""What is asked of Bedrock and of Anthropic beside calls: jobs and batches, profiles, models, agreement offers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import msgspec

from farthing.book import Model
from farthing.emulator._cur import dimensions
from farthing.emulator._errors import Refused
from farthing.emulator._http import Ask, parsed
from farthing.emulator._jobs import Jobs
from farthing.emulator._models import PROFILES_ONLY_FROM, geographies
from farthing.emulator._moments import day
from farthing.emulator._rates import models, rates
from farthing.emulator._world import Caller, World

Answer = tuple[int, bytes]
_MADE = "2025-01-01T00:00:00Z"
_json = msgspec.json.Encoder().encode


class Control:
    """Everything that is no call of a model."""

    def __init__(self, world: World, jobs: Jobs) -> None:
        self.world, self.jobs = world, jobs

    def answer(self, ask: Ask, caller: Caller, at_us: int, base_url: str, name: str) -> Answer:
        """Refused where the service would. `name` is the id in the path."""
        query = {key: values[0] for key, values in parse_qs(ask.query).items()}
        query |= {"base_url": base_url, "id": name}
        done = _OPERATIONS[ask.route.operation](self, ask, caller, at_us, query)
        if isinstance(done, bytes):
            return 200, done
        return (201 if ask.route.operation == "CreateInferenceProfile" else 200), _json(done)


Operation = Callable[[Control, Ask, Caller, int, Mapping[str, str]], Any]


# --- jobs and batches ------------------------------------------------------------------------------------------------


def _create_job(control: Control, ask: Ask, caller: Caller, at_us: int, query: Mapping[str, str]) -> Any:
    return {"jobArn": control.jobs.create(parsed(ask.body), caller, at_us).arn}


def _get_job(control: Control, ask: Ask, caller: Caller, at_us: int, query: Mapping[str, str]) -> Any:
    return control.jobs.job(ask.route.model).told()


def _stop_job(control: Control, ask: Ask, caller: Caller, at_us: int, query: Mapping[str, str]) -> Any:
    control.jobs.stop_job(ask.route.model)
    return {}


def _list_jobs(control: Control, ask: Ask, caller: Caller, at_us: int, query: Mapping[str, str]) -> Any:
    found = [job.told() for job in reversed(control.jobs.jobs.values())]
    status, name = query.get("statusEquals"), query.get("nameContains", "")
    chosen = [job for job in found if status in (None, job["status"]) and name in job["jobName"]]
    return _page(chosen, "invocationJobSummaries", query)


def _page(found: list[Any], name: str, query: Mapping[str, str]) -> dict[str, Any]:
    """Some of them, and the token for the rest: the number of those before."""
    try:
        first, most = int(query.get("nextToken", 0)), int(query.get("maxResults", 1000))
    except ValueError:
        raise Refused("invalid", "nextToken or maxResults is not valid") from None
    told: dict[str, Any] = {name: found[first : first + most]}
    if first + most < len(found):
        told["nextToken"] = str(first + most)
    return told


def _create_batch(control: Control, ask: Ask, caller: Caller, at_us: int, query: Mapping[str, str]) -> Any:
    return control.jobs.batch(parsed(ask.body).get("requests"), caller, at_us).told(query["base_url"])


def _get_batch(control: Control, ask: Ask, caller: Caller, at_us: int, query: Mapping[str, str]) -> Any:
    return control.jobs.found(query["id"]).told(query["base_url"])


def _results(control: Control, ask: Ask, caller: Caller, at_us: int, query: Mapping[str, str]) -> bytes:
    batch = control.jobs.found(query["id"])
    if not batch.ended_us:
        raise Refused("not_found", f"No results are available for batch {batch.id}: it has not ended.")
    return b"".join(line + b"\n" for _, line in batch.results)


def _cancel_batch(control: Control, ask: Ask, caller: Caller, at_us: int, query: Mapping[str, str]) -> Any:
    batch = control.jobs.found(query["id"])
    if not batch.ended_us:
        batch.cancelled_us = batch.cancelled_us or at_us
    return batch.told(query["base_url"])


def _delete_batch(control: Control, ask: Ask, caller: Caller, at_us: int, query: Mapping[str, str]) -> Any:
    batch = control.jobs.found(query["id"])
    if not batch.ended_us:
        raise Refused("invalid", f"Message batch {batch.id} is still being processed: cancel it first.")
    del control.jobs.batches[batch.id]
    return {"id": batch.id, "type": "message_batch_deleted"}


def _list_batches(control: Control, ask: Ask, caller: Caller, at_us: int, query: Mapping[str, str]) -> Any:
    return _listed(
        [batch.told(query["base_url"]) for batch in reversed(control.jobs.batches.values())], query
    )


def _listed(found: list[dict[str, Any]], query: Mapping[str, str]) -> dict[str, Any]:
    """A page as Anthropic's API lists things."""
    ids = [one["id"] for one in found]
    first = ids.index(query["after_id"]) + 1 if query.get("after_id") in ids else 0
    limit = query.get("limit", "20")
    most = int(limit) if limit.isdigit() else 20
    some = found[first : first + most]
    return {
        "data": some,
        "has_more": first + most < len(found),
        "first_id": some[0]["id"] if some else None,
        "last_id": some[-1]["id"] if some else None,
    }


# --- models and profiles ---------------------------------------------------------------------------------------------


def _get_profile(control: Control, ask: Ask, caller: Caller, at_us: int, query: Mapping[str, str]) -> Any:
    for one in _profiles(control, caller):
        if ask.route.model in (one["inferenceProfileArn"], one["inferenceProfileId"]):
            return one
    raise Refused("not_found", f"Inference profile {ask.route.model} was not found.")


def _list_profiles(control: Control, ask: Ask, caller: Caller, at_us: int, query: Mapping[str, str]) -> Any:
    kind = query.get("typeEquals") or query.get("type")
    found = [one for one in _profiles(control, caller) if kind in (None, one["type"])]
    return _page(found, "inferenceProfileSummaries", query)


def _profiles(control: Control, caller: Caller) -> list[dict[str, Any]]:
    """Of the system, and those that the account has made."""
    found = [
        _profile(f"{prefix}.{_bedrock_id(model)}", model, prefix, caller)
        for model in control.world.book.models.values()
        if _bedrock_id(model)
        for prefix in geographies(model)
    ]
    for made in control.world.models.profiles.values():
        name = made.source.rpartition("/")[2].rpartition("anthropic.")
        found.append({
            "inferenceProfileName": made.name, "description": made.description, "createdAt": made.created.isoformat(),
            "updatedAt": made.created.isoformat(), "inferenceProfileArn": made.arn,
            "models": [{"modelArn": f"arn:aws:bedrock:{caller.region}::foundation-model/anthropic.{name[2]}"}],
            "inferenceProfileId": made.arn.rpartition("/")[2], "status": "ACTIVE", "type": "APPLICATION",
        })  # fmt: skip
    return found


def _profile(name: str, model: Model, prefix: str, caller: Caller) -> dict[str, Any]:
    base = _bedrock_id(model)
    regions = ("",) if prefix == "global" else (caller.region,)
    return {
        "inferenceProfileName": f"{prefix.upper()} Anthropic {model.data.get('name', model.id)}",
        "createdAt": _MADE,
        "updatedAt": _MADE,
        "inferenceProfileArn": f"arn:aws:bedrock:{caller.region}:{caller.account}:inference-profile/{name}",
        "models": [{"modelArn": f"arn:aws:bedrock:{region}::foundation-model/{base}"} for region in regions],
        "inferenceProfileId": name,
        "status": "ACTIVE",
        "type": "SYSTEM_DEFINED",
    }


def _create_profile(control: Control, ask: Ask, caller: Caller, at_us: int, query: Mapping[str, str]) -> Any:
    now = datetime.fromtimestamp(at_us // 1_000_000, UTC)
    made = control.world.models.make(
        parsed(ask.body), caller.account, caller.region, control.world.number, now
    )
    return {"inferenceProfileArn": made.arn, "status": "ACTIVE"}


def _bedrock_id(model: Model) -> str:
    """The longest is the one with a version, which the runtime takes."""
    return max((name for name in model.ids if name.startswith("anthropic.")), key=len, default="")


def _list_models(control: Control, ask: Ask, caller: Caller, at_us: int, query: Mapping[str, str]) -> Any:
    summaries = [_model(model, caller) for model in control.world.book.models.values() if _bedrock_id(model)]
    return {"modelSummaries": summaries}


def _get_model(control: Control, ask: Ask, caller: Caller, at_us: int, query: Mapping[str, str]) -> Any:
    for model in control.world.book.models.values():
        if ask.route.model.rpartition("/")[2] in model.ids and _bedrock_id(model):
            return {"modelDetails": _model(model, caller)}
    raise Refused("not_found", f"The provided model identifier {ask.route.model} was not found.")


def _model(model: Model, caller: Caller) -> dict[str, Any]:
    by_profile = bool(geographies(model)) and model.released >= PROFILES_ONLY_FROM
    name = _bedrock_id(model)
    return {
        "modelArn": f"arn:aws:bedrock:{caller.region}::foundation-model/{name}",
        "modelId": name,
        "modelName": model.data.get("name", model.id),
        "providerName": "Anthropic",
        "inputModalities": ["TEXT", "IMAGE"],
        "outputModalities": ["TEXT"],
        "responseStreamingSupported": True,
        "customizationsSupported": [],
        "inferenceTypesSupported": ["INFERENCE_PROFILE" if by_profile else "ON_DEMAND"],
        "modelLifecycle": {"status": "ACTIVE"},
    }


def _offers(control: Control, ask: Ask, caller: Caller, at_us: int, query: Mapping[str, str]) -> Any:
    """The public rates, as an account without an agreement of its own has them."""
    called = control.world.models.called(ask.route.model, "offers", caller.region)
    release = called.model.released
    card = [
        {"dimension": dimension, "price": f"{usd:f}", "unit": "Units", "description": "Million Tokens"}
        for endpoint in ("global", "regional")
        for mode in ("on_demand", "batch")
        for held in rates(called.model.id, endpoint, mode, caller.region, max(day(at_us), release))
        for dimension, usd in dimensions(caller.region, release, endpoint, mode, held)
    ]
    terms = {
        "usageBasedPricingTerm": {"rateCard": card},
        "legalTerm": {"url": ""},
        "supportTerm": {"refundPolicyDescription": ""},
        "validityTerm": {"agreementDuration": "P1Y"},
    }
    name = models()[called.model.id].name
    offer = {
        "offerId": f"offer-{called.model.id}",
        "offerToken": f"public rates of {name}",
        "termDetails": terms,
    }
    return {"modelId": ask.route.model, "offers": [offer]}


def _list_direct(control: Control, ask: Ask, caller: Caller, at_us: int, query: Mapping[str, str]) -> Any:
    return _listed(
        [_direct(model) for model in control.world.book.models.values() if model.platform("anthropic")], query
    )


def _get_direct(control: Control, ask: Ask, caller: Caller, at_us: int, query: Mapping[str, str]) -> Any:
    found = control.world.models.called(query["id"], "anthropic", caller.region)
    return _direct(found.model) | {"id": query["id"]}


def _direct(model: Model) -> dict[str, Any]:
    made = f"{model.data.get('released', '2023-01-01')}T00:00:00Z"
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.data.get("name", model.id),
        "created_at": made,
    }


_OPERATIONS: dict[str, Operation] = {
    "CreateModelInvocationJob": _create_job,
    "GetModelInvocationJob": _get_job,
    "ListModelInvocationJobs": _list_jobs,
    "StopModelInvocationJob": _stop_job,
    "CreateMessageBatch": _create_batch,
    "GetMessageBatch": _get_batch,
    "GetMessageBatchResults": _results,
    "CancelMessageBatch": _cancel_batch,
    "DeleteMessageBatch": _delete_batch,
    "ListMessageBatches": _list_batches,
    "GetInferenceProfile": _get_profile,
    "ListInferenceProfiles": _list_profiles,
    "CreateInferenceProfile": _create_profile,
    "ListFoundationModels": _list_models,
    "GetFoundationModel": _get_model,
    "ListFoundationModelAgreementOffers": _offers,
    "ListModels": _list_direct,
    "GetModel": _get_direct,
}
OPERATIONS = frozenset(_OPERATIONS)
