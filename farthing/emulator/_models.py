"""Which models there are, under which ids, behind which door; and what is said of an id that is not taken."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

from farthing.book import Book, Model, Unpriced
from farthing.emulator._errors import Refused
from farthing.usage import parse_model_id

RUNTIME, MANTLE, DIRECT = "runtime", "mantle", "anthropic"
COUNT = "count"  # CountTokens of the runtime, which takes any id
PROFILES_ONLY_FROM = date(2025, 2, 24)  # Claude 3.7: since then bedrock-runtime takes models by profile alone
MINIMUM = 1_024  # tokens of a prefix that is cached, where nobody has published it
_MOST_IDS = 10_000
_INVALID = "The provided model identifier is invalid."
_BY_PROFILE = (
    "Invocation of model ID {} with on-demand throughput isn\u2019t supported. "
    "Retry your request with the ID or ARN of an inference profile that contains this model."
)
_SOURCE = re.compile(r"arn:aws[a-z-]*:bedrock:[a-z0-9-]*:\d*:(?:foundation-model|inference-profile)/.+")


class Called(NamedTuple):
    """A model as it was called. `region` and `account` are those that its ARN tells."""

    id: str
    model: Model
    base: str
    routing: str
    endpoint: str
    region: str
    account: str
    profile: str = ""

    @property
    def served(self) -> str:
        """How an answer names the model."""
        return self.base.removeprefix("anthropic.").partition("-v1:")[0].removesuffix("-v1")


@dataclass
class Profile:
    """An application inference profile, which an account has made."""

    arn: str
    name: str
    source: str
    created: datetime
    description: str = ""
    tags: dict[str, str] = field(default_factory=dict)


class Models:
    """The models of a book, and the profiles that were made of them."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.profiles: dict[str, Profile] = {}
        self._found: dict[tuple[str, str, str], Called] = {}

    def called(self, name: str, door: str, region: str) -> Called:
        """Refused if the service does not take that id there."""
        key = (name, door, region)
        found = self._found.get(key)
        if found is None:
            if len(self._found) > _MOST_IDS:
                self._found.clear()
            found = self._found[key] = (
                self._direct(name) if door == DIRECT else self._bedrock(name, door, region)
            )
        return found

    def forget(self) -> None:
        """After profiles came or went."""
        self._found.clear()

    def _direct(self, name: str) -> Called:
        resolved = self.book.resolve(name, platform="anthropic")
        if isinstance(resolved, Unpriced) or name.startswith("anthropic.") or ":" in name:
            raise Refused("unknown_model", f"model: {name}")
        return Called(name, self.book.models[resolved.sku.model], name, "", "direct", "", "")

    def _bedrock(self, name: str, door: str, region: str) -> Called:
        parsed = parse_model_id(name)
        profile = ""
        if parsed.kind == "application-inference-profile":
            made = self.profiles.get(parsed.profile)
            if made is None:
                raise Refused("not_found", f"The provided inference profile {name} was not found.")
            profile, source = made.arn, parse_model_id(made.source)
            parsed = source._replace(region=parsed.region, account=parsed.account)
        resolved = self.book.resolve(parsed.base, platform="bedrock") if parsed.base else None
        if resolved is None or isinstance(resolved, Unpriced) or not parsed.base.startswith("anthropic."):
            raise self._unknown(name, door)
        model = self.book.models[resolved.sku.model]
        prefix = parsed.routing.removeprefix("geo:")
        where = parsed.region or region
        if prefix in ("in_region", ""):
            if (
                door == RUNTIME
                and not profile
                and model.released >= PROFILES_ONLY_FROM
                and geographies(model)
            ):
                raise Refused("invalid", _BY_PROFILE.format(name))
        elif door == MANTLE or prefix not in geographies(model):
            raise self._unknown(name, door)
        endpoint = (
            "govcloud"
            if prefix == "us-gov" or where.startswith("us-gov-")
            else "global"
            if prefix == "global"
            else "regional"
        )
        return Called(
            name, model, parsed.base, parsed.routing, endpoint, parsed.region, parsed.account, profile
        )

    def _unknown(self, name: str, door: str) -> Refused:
        return Refused("unknown_model", f"model: {name}" if door == MANTLE else _INVALID)

    # --- application inference profiles ---

    def make(self, body: Any, account: str, region: str, number: int, now: datetime) -> Profile:
        """What CreateInferenceProfile makes."""
        name, source = body.get("inferenceProfileName"), (body.get("modelSource") or {}).get("copyFrom")
        if (
            not isinstance(name, str)
            or not name
            or not isinstance(source, str)
            or not _SOURCE.fullmatch(source)
        ):
            raise Refused("invalid", "inferenceProfileName and modelSource.copyFrom (an ARN) are wanted")
        if isinstance(self.book.resolve(source, platform="bedrock"), Unpriced):
            raise Refused("not_found", f"{source} was not found.")
        arn = f"arn:aws:bedrock:{region}:{account}:application-inference-profile/{number:012x}"
        tags = {str(tag.get("key")): str(tag.get("value")) for tag in body.get("tags") or ()}
        made = self.profiles[arn] = Profile(arn, name, source, now, str(body.get("description") or ""), tags)
        self.forget()
        return made


def geographies(model: Model) -> tuple[str, ...]:
    """The prefixes of the model's profiles, those that only some sources have too."""
    bedrock = model.platform("bedrock")
    return (*bedrock.get("profiles", ()), *bedrock.get("profiles_claimed", ()))


def minimum(model: Model, platform: str, at_us: int) -> int:
    """Tokens that a prefix must have to be cached, that day."""
    day = datetime.fromtimestamp(at_us // 1_000_000, UTC).date()
    found = model.cache_minimum(platform, max(day, model.released))
    return MINIMUM if found is None else found
