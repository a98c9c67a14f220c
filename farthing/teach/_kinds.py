"""The kinds of fault that are looked for: what each is, what is documented, and what to ask for."""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    says: str  # what was billed, as a sentence that goes on with "in account ..."
    documented: str
    source: str
    ask: str


_CREDIT = "Please check these charges and credit the difference."
_RATES = "pricing page and price list of Amazon Bedrock; Anthropic's pricing page"

KINDS = {
    "failed_calls": Kind(
        "Tokens of calls that ended in an error were billed",
        "On-demand inference is charged by the tokens that a model processes and answers with; no page says that a "
        "request which returns an error is charged.",
        "Amazon Bedrock pricing page; nothing more exact is published",
        "Please tell us whether these requests should have been charged, and credit them if not.",
    ),
    "refusals": Kind(
        "Tokens of refusals without output were billed",
        "A refusal before any output is not charged, although its counts are reported.",
        "Anthropic's documentation of refusals (platform.claude.com), read 2026-08",
        _CREDIT,
    ),
    "cache_lifetime": Kind(
        "Cache writes were billed at the rate of another lifetime than was asked for",
        "A cache write costs 1.25 times the input rate for five minutes, and twice the input rate for an hour; the "
        "response tells which were made.",
        "prompt-caching pages of Amazon Bedrock and of Anthropic, 2026-09 and 2026-08",
        _CREDIT,
    ),
    "long_prompt": Kind(
        "Prompts below the long-context threshold were billed at long-context rates",
        "Long-context rates hold only for requests whose prompt, cached tokens counted, is beyond the threshold.",
        "Anthropic's pricing page, snapshots to 2026-08; long context",
        _CREDIT,
    ),
    "long_prompt_flat": Kind(
        "Long-context rates were billed on a day when the model had one rate for prompts of every size",
        "The model's rate does not depend on the size of the prompt on these days.",
        _RATES,
        _CREDIT,
    ),
    "endpoint": Kind(
        "Calls to a global inference profile were billed at the regional rate",
        "Calls to a global inference profile are charged at the global rate; regional and geographic endpoints cost "
        "10 % more.",
        "pricing and model pages of Amazon Bedrock and of Anthropic (data residency), 2026-08",
        _CREDIT,
    ),
    "early_price": Kind(
        "A rate was billed before the day it comes into force",
        "The higher rate holds from its published date.",
        _RATES,
        _CREDIT,
    ),
    "late_price": Kind(
        "A rate was billed after the day it was replaced by a lower one",
        "The lower rate holds from its published date.",
        _RATES,
        _CREDIT,
    ),
    "extended_access": Kind(
        "The rate of extended access was billed in a region that it is not published for",
        "Rates of public extended access are published region by region.",
        "Amazon Bedrock pricing page, models with extended access, quoted to 2026-09",
        _CREDIT,
    ),
    "duplicate_lines": Kind(
        "The same usage was billed more than once",
        "Usage is charged once.",
        "each call of the days below is in our logs once, and the bill has an exact multiple of its tokens",
        _CREDIT,
    ),
    "batch_rate": Kind(
        "Batch usage was billed at the rate of on-demand inference",
        "Batch inference is charged at half the rate of on-demand inference.",
        "Amazon Bedrock pricing page; price list of 2026-08",
        _CREDIT,
    ),
    "batch_as_on_demand": Kind(
        "Records of batch jobs were billed as on-demand inference",
        "Batch inference is charged at half the rate of on-demand inference, under usage types of its own.",
        "Amazon Bedrock pricing page; price list of 2026-08",
        _CREDIT,
    ),
    "after_end_of_life": Kind(
        "Usage of a model was billed after its end of life",
        "After its end of life a model is no longer served.",
        "Amazon Bedrock model lifecycle page",
        "Please tell us what was served under this model after its end of life, and at which price.",
    ),
    "cache_storm": Kind(
        "Prompts were written to the cache on whole days, and next to nothing was read from it",
        "A prefix that is sent again within its lifetime is read from the cache; with cross-region inference, times of "
        "high demand may lead to more cache writes.",
        "Amazon Bedrock prompt-caching page, 2026-09",
        "Please tell us whether caching was impaired on these days. Nothing changed on our side that we know of.",
    ),
    "contract": Kind(
        "More was billed than the rates of our private offer",
        "The private offer that we accepted holds for this account and these days.",
        "our private offer",
        _CREDIT,
    ),
    "above_list": Kind(
        "More was billed than the published rate",
        "The published rate on these days was lower, and the one billed is published for no other day or region.",
        _RATES,
        "Please tell us which rate was applied, and credit the difference if it was not the published one.",
    ),
}  # fmt: skip
