"""Model ids in every form, what the book makes of them, and the inference profiles that stand before them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.book import Resolved, Unpriced, default_book
from farthing.profiles import ProfileError, from_answers, load_profiles, made_from
from farthing.usage import OPAQUE, Rejected, Sku, check_region, parse_model_id

BOOK = default_book()

# --- ids as they are written -----------------------------------------------------------------------

ACCOUNT = "111122223333"
HAIKU = "anthropic.claude-haiku-4-5-20251001-v1:0"


def arn(
    kind: str, name: str, region: str = "eu-west-1", partition: str = "aws", account: str = ACCOUNT
) -> str:
    return f"arn:{partition}:bedrock:{region}:{account}:{kind}/{name}"


@pytest.mark.parametrize(
    ("text", "base", "routing", "region", "account"),
    [
        (HAIKU, HAIKU, "in_region", "", ""),
        ("anthropic.claude-haiku-4-5", "anthropic.claude-haiku-4-5", "in_region", "", ""),
        (f" {HAIKU}\n", HAIKU, "in_region", "", ""),
        (f"{HAIKU}:200k", HAIKU, "in_region", "", ""),
        ("global.anthropic.claude-opus-5", "anthropic.claude-opus-5", "global", "", ""),
        ("us.anthropic.claude-opus-5[1m]", "anthropic.claude-opus-5", "geo:us", "", ""),
        ("us-gov.anthropic.claude-sonnet-5", "anthropic.claude-sonnet-5", "geo:us-gov", "", ""),
        *(
            (f"{geo}.{HAIKU}", HAIKU, f"geo:{geo}", "", "")
            for geo in ("us", "eu", "apac", "jp", "au", "in", "ca")
        ),
        (arn("foundation-model", HAIKU, account=""), HAIKU, "in_region", "eu-west-1", ""),
        (arn("foundation-model", HAIKU, region="", account=""), HAIKU, "in_region", "", ""),
        (arn("inference-profile", f"eu.{HAIKU}"), HAIKU, "geo:eu", "eu-west-1", ACCOUNT),
        (
            arn("inference-profile", "us-gov.anthropic.claude-sonnet-5", "us-gov-west-1", "aws-us-gov"),
            "anthropic.claude-sonnet-5",
            "geo:us-gov",
            "us-gov-west-1",
            ACCOUNT,
        ),
        ("claude-opus-5", "claude-opus-5", "", "", ""),
        ("claude-opus-5[1m]", "claude-opus-5", "", "", ""),
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5-20250929", "", "", ""),
        ("de.anthropic.claude-opus-5", "de.anthropic.claude-opus-5", "", "", ""),
        ("anthropic.claude-v2:1", "anthropic.claude-v2:1", "in_region", "", ""),
        ("amazon.nova-pro-v1:0", "amazon.nova-pro-v1:0", "", "", ""),
        ("", "", "", "", ""),
    ],
)
def test_an_id_taken_apart(text, base, routing, region, account):
    parsed = parse_model_id(text)
    assert (parsed.base, parsed.routing, parsed.region, parsed.account) == (base, routing, region, account)
    assert parsed.kind == "model"


@pytest.mark.parametrize("kind", OPAQUE)
def test_an_opaque_id_names_no_model_but_its_own_place(kind):
    text = arn(kind, "abcdefghijkl")
    parsed = parse_model_id(text)
    assert (parsed.base, parsed.kind, parsed.profile) == ("", kind, text)
    assert (parsed.region, parsed.account) == ("eu-west-1", ACCOUNT)


@given(st.text(max_size=60) | st.from_regex(r"arn:aws:bedrock:[a-z1-9-]*:\d{0,12}:[a-z-]*/.{0,20}"))
def test_any_text_is_taken_apart(text):
    parsed = parse_model_id(text)
    assert parsed.base in text
    assert not (parsed.base and parsed.kind != "model")
    found = BOOK.resolve(text)
    assert isinstance(found, Resolved) or found.reason


@pytest.mark.parametrize(
    "region", ["", "us-east-1", "eu-west-3", "ap-northeast-1", "us-gov-west-1", "mx-central-1"]
)
def test_regions(region):
    assert check_region(region) == region


@pytest.mark.parametrize(
    "region", ["us", "us-east", "US-EAST-1", "us-east-1a", "eu-west-1;", " us-east-1", "eu.west.1"]
)
def test_no_regions(region):
    with pytest.raises(Rejected, match="unknown region"):
        check_region(region)


# --- ids in the book -------------------------------------------------------------------------------


def resolved(model_id: str, **said) -> Resolved:
    found = BOOK.resolve(model_id, **said)
    assert isinstance(found, Resolved), found
    return found


def unpriced(model_id: str, **said) -> str:
    found = BOOK.resolve(model_id, **said)
    assert isinstance(found, Unpriced), found
    return found.reason


def bedrock(model: str, endpoint: str = "regional", zone: str = "", mode: str = "on_demand") -> Sku:
    return Sku("bedrock", model, endpoint, zone, mode)


@pytest.mark.parametrize(
    ("model_id", "endpoint", "routing"),
    [
        ("global.anthropic.claude-opus-5", "global", "global"),
        ("anthropic.claude-opus-5", "regional", "in_region"),
        *(
            (f"{geo}.anthropic.claude-opus-5", "regional", f"geo:{geo}")
            for geo in ("us", "eu", "apac", "jp", "au", "in")
        ),
        (arn("foundation-model", "anthropic.claude-opus-5", account=""), "regional", "in_region"),
        (arn("inference-profile", "global.anthropic.claude-opus-5"), "global", "global"),
        (arn("inference-profile", "eu.anthropic.claude-opus-5"), "regional", "geo:eu"),
        ("us-gov.anthropic.claude-opus-5", "govcloud", "geo:us-gov"),
        (
            arn("foundation-model", "anthropic.claude-opus-5", "us-gov-west-1", "aws-us-gov", ""),
            "govcloud",
            "in_region",
        ),
    ],
)
def test_where_a_bedrock_call_runs(model_id, endpoint, routing):
    assert resolved(model_id) == Resolved(bedrock("claude-opus-5", endpoint), routing, ())


def test_a_gov_region_is_govcloud_whatever_the_id_says():
    assert resolved("anthropic.claude-opus-5", region="us-gov-east-1").sku.endpoint == "govcloud"


@pytest.mark.parametrize(("geo", "endpoint"), [("", "global"), ("global", "global"), ("us", "geo_us")])
@pytest.mark.parametrize("platform", ["", "anthropic", "claude_aws"])
def test_direct_calls(platform, geo, endpoint):
    sku = Sku(platform or "anthropic", "claude-opus-5", endpoint, "", "fast")
    assert resolved("claude-opus-5", platform=platform, mode="fast", inference_geo=geo).sku == sku


@pytest.mark.parametrize("name", sorted(name for model in BOOK.models.values() for name in model.ids))
def test_a_prefix_of_an_id_is_another_id(name):
    for near in (name + "-x", name[:-1], name.upper(), "x" + name):
        found = BOOK.resolve(near)
        if isinstance(found, Resolved):
            assert near in BOOK.models[found.sku.model].ids


@pytest.mark.parametrize(
    ("near", "meant"),
    [
        ("claude-opus-55", "claude-opus-5-5"),
        ("anthropic.claude-sonnet-4-7", "anthropic.claude-sonnet-4-6"),
        ("claude-haiku-4.5", "claude-haiku-4-5"),
    ],
)
def test_a_near_miss_names_what_may_be_meant(near, meant):
    assert "unknown model" in unpriced(near)
    assert meant in unpriced(near)


def test_what_names_no_claude():
    for name in ("<synthetic>", "amazon.nova-pro-v1:0", "gpt-5"):
        assert unpriced(name).startswith(f"unknown model {name!r}")
    assert unpriced("") == "no model is named"


PROFILE = arn("application-inference-profile", "a1b2c3d4e5f6")


def test_an_opaque_profile_is_not_guessed():
    assert (
        unpriced(PROFILE)
        == f"application-inference-profile {PROFILE} is not resolved: map it with --profiles FILE"
    )


@pytest.mark.parametrize("key", [PROFILE, "a1b2c3d4e5f6"])
@pytest.mark.parametrize(
    ("source", "endpoint", "routing"),
    [
        ("global.anthropic.claude-opus-5", "global", "global"),
        ("eu.anthropic.claude-opus-5", "regional", "geo:eu"),
        ("anthropic.claude-opus-5", "regional", "in_region"),
        (arn("inference-profile", "global.anthropic.claude-opus-5", "us-east-1"), "global", "global"),
    ],
)
def test_a_mapped_profile_is_what_it_was_made_from(key, source, endpoint, routing):
    found = resolved(PROFILE, profiles={key: source}, served_model="claude-sonnet-5")
    assert found == Resolved(bedrock("claude-opus-5", endpoint), routing, ())


def test_a_profile_map_that_names_no_model():
    assert "names no model" in unpriced(PROFILE, profiles={PROFILE: PROFILE})
    assert "unknown model" in unpriced(PROFILE, profiles={PROFILE: "nonsense"})


def test_the_served_model_settles_the_model_and_leaves_the_endpoint_assumed():
    found = resolved(PROFILE, served_model="claude-haiku-4-5-20251001")
    assert found == Resolved(bedrock("claude-haiku-4-5"), "unknown", ("endpoint",))
    assert "not resolved" in unpriced(PROFILE, served_model="claude-unheard-of")


@pytest.mark.parametrize(
    ("assumed", "endpoint", "routing"),
    [("global", "global", "global"), ("regional", "regional", "in_region"), ("eu", "regional", "geo:eu")],
)
def test_an_assumed_endpoint_settles_only_what_was_open(assumed, endpoint, routing):
    assume = {"endpoint": assumed}
    found = resolved(PROFILE, served_model="claude-opus-5", assume=assume)
    assert found == Resolved(bedrock("claude-opus-5", endpoint), routing, ())
    assert resolved("jp.anthropic.claude-opus-5", assume=assume).routing == "geo:jp"


def test_a_model_with_one_price_everywhere_has_nothing_to_assume():
    assert resolved(PROFILE, served_model="claude-sonnet-4-20250514").assumed == ()


def test_provisioned_throughput_is_not_priced_by_the_token():
    reason = "provisioned throughput is billed by the hour, not by the token"
    name = arn("provisioned-model", "abcdefghijkl")
    assert unpriced(name) == reason
    assert unpriced(name, served_model="claude-opus-5", profiles={name: "anthropic.claude-opus-5"}) == reason


V1, V2 = "anthropic.claude-3-5-sonnet-20240620-v1:0", "anthropic.claude-3-5-sonnet-20241022-v2:0"


@pytest.mark.parametrize(
    ("model_id", "region", "zone", "assumed"),
    [  # PRICES.md 13: 6 / 30 in US East and West, v1 also in Frankfurt, Ireland, Zurich, Paris
        (V2, "us-east-1", "extended", ()),
        (V2, "us-west-2", "extended", ()),
        (V2, "eu-central-1", "", ()),
        (V1, "eu-central-1", "extended", ()),
        (V1, "eu-central-2", "extended", ()),
        (V1, "ap-northeast-1", "", ()),
        (f"us.{V1}", "", "extended", ()),
        (f"apac.{V1}", "", "", ()),
        (f"eu.{V2}", "", "", ()),
        (f"eu.{V1}", "", "extended", ("region",)),
        (V1, "", "extended", ("region",)),
        (arn("foundation-model", V1, "eu-west-3", account=""), "ap-northeast-1", "extended", ()),
    ],
)
def test_the_zone_is_where_the_call_was_made(model_id, region, zone, assumed):
    found = resolved(model_id, region=region)
    assert (found.sku.zone, found.assumed) == (zone, assumed)


def test_an_assumed_region_settles_the_zone_where_none_was_said():
    assume = {"region": "ap-northeast-1"}
    assert resolved(V1, assume=assume) == Resolved(bedrock("claude-3-5-sonnet-v1"), "in_region", ())
    assert resolved(V1, region="us-east-1", assume=assume).sku.zone == "extended"


# --- profile maps ----------------------------------------------------------------------------------


def model_arns(*regions: str, base: str = "anthropic.claude-opus-5") -> list[str]:
    return [arn("foundation-model", base, region, account="") for region in regions]


@pytest.mark.parametrize(
    ("regions", "source"),
    [
        (["us-east-1"], "anthropic.claude-opus-5"),
        (["ap-northeast-1", ""], "global.anthropic.claude-opus-5"),
        (["us-east-1", "us-east-2", "us-west-2"], "us.anthropic.claude-opus-5"),
        (["ca-central-1", "us-east-1"], "us.anthropic.claude-opus-5"),
        (["ca-central-1", "ca-west-1"], "ca.anthropic.claude-opus-5"),
        (["us-gov-west-1", "us-gov-east-1"], "us-gov.anthropic.claude-opus-5"),
        (["eu-west-1", "eu-north-1", "eu-central-1"], "eu.anthropic.claude-opus-5"),
        (["ap-northeast-1", "ap-northeast-3"], "jp.anthropic.claude-opus-5"),
        (["ap-southeast-2", "ap-southeast-4"], "au.anthropic.claude-opus-5"),
        (["ap-south-1", "ap-south-2"], "in.anthropic.claude-opus-5"),
        (
            ["ap-northeast-1", "ap-northeast-2", "ap-south-1", "ap-southeast-2"],
            "apac.anthropic.claude-opus-5",
        ),
    ],
)
def test_the_regions_of_a_profile_tell_what_it_was_made_from(regions, source):
    assert made_from(model_arns(*regions)) == source
    assert made_from(reversed(model_arns(*regions))) == source


def answer(name: str, *regions: str, kind: str = "APPLICATION") -> dict:
    return {
        "inferenceProfileArn": arn("application-inference-profile", name),
        "inferenceProfileName": "search",
        "models": [{"modelArn": text} for text in model_arns(*regions)],
        "status": "ACTIVE",
        "type": kind,
    }


def test_bedrocks_answers_become_a_map_that_prices(tmp_path):
    summaries = [
        answer("one", "us-east-1", "us-west-2"),
        answer("all", "us-east-1", ""),
        answer("eu.x", kind="SYSTEM_DEFINED"),
    ]
    listed, got = tmp_path / "listed.json", tmp_path / "got.json"
    listed.write_text(json.dumps({"inferenceProfileSummaries": summaries}))
    got.write_text(json.dumps(summaries[0] | {"ResponseMetadata": {}}))
    one, everywhere = (summary["inferenceProfileArn"] for summary in summaries[:2])
    assert load_profiles(listed) == {
        one: "us.anthropic.claude-opus-5",
        everywhere: "global.anthropic.claude-opus-5",
    }
    assert load_profiles(got) == {one: "us.anthropic.claude-opus-5"}
    assert resolved(one, profiles=load_profiles(got)) == Resolved(bedrock("claude-opus-5"), "geo:us", ())


def test_a_profile_without_models_is_not_resolved_by_its_entry():
    profiles = from_answers([answer("empty")])
    assert "names no model" in unpriced(arn("application-inference-profile", "empty"), profiles=profiles)


def test_a_plain_map_is_taken_as_it_is(tmp_path):
    plain = {"a1b2c3d4e5f6": "global.anthropic.claude-opus-5", PROFILE: "eu.anthropic.claude-opus-5"}
    path = tmp_path / "profiles.json"
    path.write_text(json.dumps(plain))
    assert load_profiles(path) == load_profiles(str(path)) == plain


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"5",
        b'"x"',
        b'{"a": 5}',
        b'{"a": {"b": "c"}}',
        b'{"inferenceProfileSummaries": 5}',
        b'{"inferenceProfileSummaries": [5]}',
        b'{"inferenceProfileSummaries": [{"type": "APPLICATION"}]}',
        b'{"inferenceProfileSummaries": [{"inferenceProfileArn": "a", "models": [{}]}]}',
        b'{"inferenceProfileArn": "a", "models": 5}',
        b'{"inferenceProfileArn": "a", "models": [{"modelArn": 5}]}',
    ],
)
def test_what_is_no_profile_map_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "profiles.json"
    path.write_bytes(content)
    with pytest.raises(ProfileError, match=r"profiles\.json: ") as refused:
        load_profiles(path)
    assert "\n" not in str(refused.value)


def test_a_profile_map_that_is_not_there_is_refused(tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(ProfileError, match="cannot be read"):
            load_profiles(path)
