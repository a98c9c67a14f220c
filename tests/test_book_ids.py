"""Any id to its SKU: every id and prefix of the catalogue, ARNs of every kind, near misses, zones, what is assumed."""

import pytest

from farthing.book import Unpriced, default_book
from farthing.usage import GEOGRAPHIES, Sku

BOOK = default_book()

BEDROCK_IDS = [
    (id, model.id) for model in BOOK.models.values() for id in model.ids if id.startswith("anthropic.")
]
DIRECT_IDS = [
    (id, model.id) for model in BOOK.models.values() for id in model.ids if "." not in id.split("-")[0]
]


@pytest.mark.parametrize(("id", "model"), BEDROCK_IDS)
@pytest.mark.parametrize("prefix", ["", "global", *GEOGRAPHIES])
def test_every_prefix_and_arn(prefix, id, model):
    """The prefix settles routing and price; an ARN adds the region; claimed or not, every prefix is understood."""
    name = f"{prefix}.{id}" if prefix else id
    kind = "inference-profile" if prefix else "foundation-model"
    region = "us-gov-west-1" if prefix == "us-gov" else "ap-northeast-1"
    partition = "aws-us-gov" if prefix == "us-gov" else "aws"
    account = "123456789012" if prefix else ""
    endpoint = {"global": "global", "us-gov": "govcloud"}.get(prefix, "regional")
    routing = {"": "in_region", "global": "global"}.get(prefix, f"geo:{prefix}")
    for form in (
        name,
        f"  {name}\n",
        f"{name}:200k",
        f"arn:{partition}:bedrock:{region}:{account}:{kind}/{name}",
    ):
        resolved = BOOK.resolve(form)
        assert not isinstance(resolved, Unpriced), resolved
        assert (resolved.sku.model, resolved.sku.endpoint, resolved.routing) == (model, endpoint, routing)
        assert (resolved.sku.platform, resolved.sku.mode) == ("bedrock", "on_demand")


@pytest.mark.parametrize(("id", "model"), DIRECT_IDS)
def test_every_direct_id(id, model):
    for form in (id, f"{id}[1m]"):
        assert BOOK.resolve(form) == (Sku("anthropic", model, "global", "", "on_demand"), "unknown", ())
    assert BOOK.resolve(id, inference_geo="us", mode="batch") == (
        Sku("anthropic", model, "geo_us", "", "batch"), "geo:us", ())  # fmt: skip
    assert BOOK.resolve(id, platform="claude_aws", inference_geo="global") == (
        Sku("claude_aws", model, "global", "", "on_demand"), "global", ())  # fmt: skip


@pytest.mark.parametrize(
    ("id", "nearest"),
    [
        ("claude-sonnet-9-9", "claude-sonnet-4-6"),
        ("anthropic.claude-opus-4-6-v2:0", "anthropic.claude-opus-4-6-v1:0"),
        ("anthropic.claude-sonnet-4-6-v1:0", "anthropic.claude-sonnet-4-6"),
        ("claude-opus-5-", "claude-opus-5"),
        ("us.anthropic.claude-haiku-4-5-20251001-v2:0", "anthropic.claude-haiku-4-5-20251001-v1:0"),
        ("claude-3-5-sonnet", "claude-3-5-sonnet-v2"),
        ("xx.anthropic.claude-opus-5", "anthropic.claude-opus-5"),
        ("Claude-Opus-5", "claude-opus-5"),
    ],
)
def test_a_near_miss_is_refused_and_the_nearest_named(id, nearest):
    refused = BOOK.resolve(id)
    assert isinstance(refused, Unpriced)
    assert refused.reason.startswith("unknown model")
    assert nearest in refused.reason.partition("nearest known ids are ")[2].split(", ")


def test_what_resembles_nothing_gets_no_suggestion():
    assert BOOK.resolve("gpt") == Unpriced("unknown model 'gpt'")


@pytest.mark.parametrize("short", [id for id in BOOK._ids if any(o.startswith(f"{id}-") for o in BOOK._ids)])
def test_an_id_that_begins_another_is_itself(short):
    """claude-opus-5 begins claude-opus-5-5, and is not it."""
    resolved = BOOK.resolve(short)
    assert not isinstance(resolved, Unpriced)
    assert resolved.sku.model == BOOK._ids[short]


def test_opus_5_is_not_opus_5_5():
    models = {BOOK._ids[id] for id in ("claude-opus-5", "claude-opus-5-5", "anthropic.claude-opus-5-5")}
    assert models == {"claude-opus-5", "claude-opus-5-5"}


ACCOUNT = "arn:aws:bedrock:us-east-1:123456789012"
PROFILE = f"{ACCOUNT}:application-inference-profile/abc123def456"


@pytest.mark.parametrize(
    "target", ["us.anthropic.claude-opus-5", f"{ACCOUNT}:inference-profile/us.anthropic.claude-opus-5"]
)
@pytest.mark.parametrize("key", [PROFILE, "abc123def456"])
def test_an_application_profile_is_what_it_was_made_from(key, target):
    assert BOOK.resolve(PROFILE, profiles={key: target}) == (
        Sku("bedrock", "claude-opus-5", "regional", "", "on_demand"), "geo:us", ())  # fmt: skip


def test_an_application_profile_without_a_map():
    assert BOOK.resolve(PROFILE) == Unpriced(
        f"application-inference-profile {PROFILE} is not resolved: map it with --profiles FILE"
    )
    seen = BOOK.resolve(PROFILE, served_model="claude-opus-5")
    assert seen == (Sku("bedrock", "claude-opus-5", "regional", "", "on_demand"), "unknown", ("endpoint",))
    told = BOOK.resolve(PROFILE, served_model="claude-opus-5", assume={"endpoint": "global"})
    assert told == (Sku("bedrock", "claude-opus-5", "global", "", "on_demand"), "global", ())
    lost = BOOK.resolve(PROFILE, profiles={PROFILE: PROFILE})
    assert isinstance(lost, Unpriced)
    assert "names no model" in lost.reason


@pytest.mark.parametrize(
    "kind", ["custom-model", "custom-model-deployment", "imported-model", "prompt", "prompt-router"]
)
def test_other_arns_are_not_resolved(kind):
    refused = BOOK.resolve(f"{ACCOUNT}:{kind}/abc123def456")
    assert isinstance(refused, Unpriced)
    assert refused.reason.startswith(f"{kind} arn:aws:")


def test_provisioned_throughput_is_no_token_price():
    refused = BOOK.resolve(f"{ACCOUNT}:provisioned-model/abc123def456")
    assert refused == Unpriced("provisioned throughput is billed by the hour, not by the token")


def test_routing_is_apart_from_price():
    """Three routings, two prices: a geography and the region itself cost the same."""
    told = {
        name: BOOK.resolve(f"{name}anthropic.claude-sonnet-4-6") for name in ("", "jp.", "eu.", "global.")
    }
    assert [getattr(one, "routing", "") for one in told.values()] == [
        "in_region",
        "geo:jp",
        "geo:eu",
        "global",
    ]
    assert len({one.sku for one in told.values() if not isinstance(one, Unpriced)}) == 2


def test_an_endpoint_left_open_is_assumed_only_where_it_matters():
    for model in BOOK.models:
        left_open = BOOK.resolve(model, platform="bedrock", region="ap-northeast-1")
        assert not isinstance(left_open, Unpriced)
        prices = len(set(BOOK.models[model].platform("bedrock")["endpoints"].values()))
        assert left_open.assumed == (("endpoint",) if prices > 1 else ()), model


V1, V2 = "anthropic.claude-3-5-sonnet-20240620-v1:0", "anthropic.claude-3-5-sonnet-20241022-v2:0"


@pytest.mark.parametrize(
    ("id", "region", "zone", "certain"),
    [
        (V2, "us-east-1", "extended", True),
        (V2, "us-east-2", "extended", True),
        (V2, "us-west-2", "extended", True),
        (V2, "eu-central-1", "", True),
        (V2, "ap-northeast-1", "", True),
        (f"us.{V2}", "", "extended", True),
        (f"eu.{V2}", "", "", True),
        (f"apac.{V2}", "", "", True),
        (V2, "", "extended", False),
        (V1, "us-east-1", "extended", True),
        *(
            (V1, region, "extended", True)
            for region in ("eu-central-1", "eu-central-2", "eu-west-1", "eu-west-3")
        ),
        (V1, "eu-north-1", "", True),
        (V1, "ap-northeast-1", "", True),
        (f"us.{V1}", "", "extended", True),
        (f"eu.{V1}", "eu-west-1", "extended", True),
        (f"eu.{V1}", "eu-north-1", "", True),
        (f"eu.{V1}", "", "extended", False),
        (f"apac.{V1}", "", "", True),
        (V1, "", "extended", False),
        ("anthropic.claude-sonnet-4-6", "us-east-1", "", True),
        ("anthropic.claude-sonnet-4-6", "", "", True),
    ],
)
def test_zone(id, region, zone, certain):
    """By region where it is told; by geography where that is enough; else the dearer zone, assumed."""
    resolved = BOOK.resolve(id, region=region)
    assert not isinstance(resolved, Unpriced)
    assert resolved.sku.zone == zone
    assert ("region" not in resolved.assumed) == certain
    if region:
        arn = f"arn:aws:bedrock:{region}::foundation-model/{id.removeprefix('eu.')}"
        assert getattr(BOOK.resolve(arn), "sku", None) == resolved.sku
