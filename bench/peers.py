"""The rivals at pricing single records, run in their own environment (.venv-bench); the last line is JSON.

Each is spared what it would do to a raw usage block: blocks are turned into its own usage objects beforehand,
so that only pricing is timed. farthing is timed from the raw block.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.calls import MODEL, NOW, Probe, blocks, per_second, probes


def litellm_rates(seconds: float) -> dict[str, Any]:
    import litellm
    from litellm.llms.anthropic.chat.transformation import AnthropicConfig

    litellm.suppress_debug_info = True
    config = AnthropicConfig()

    def read(usage: dict[str, Any]) -> Any:
        return config.calculate_usage(usage, reasoning_content=None)

    def price(usage: Any, model: str = MODEL) -> float:
        return float(
            sum(litellm.cost_per_token(model=model, custom_llm_provider="bedrock", usage_object=usage))
        )

    speed = per_second(price, [read(usage) for usage in blocks(500)], seconds)
    return {"per_s": speed, "answers": _answers(lambda probe: price(read(probe.usage), probe.model))}


def genai_prices_rates(seconds: float) -> dict[str, Any]:
    from genai_prices import calc_price, extract_usage

    def read(usage: dict[str, Any]) -> Any:
        return extract_usage({"model": "claude-sonnet-4-6", "usage": usage}, provider_id="anthropic").usage

    def price(usage: Any, model: str = MODEL, at: Any = NOW) -> Any:
        return calc_price(usage, model, provider_id="aws", genai_request_timestamp=at).total_price

    speed = per_second(price, [read(usage) for usage in blocks(500)], seconds)
    return {"per_s": speed, "answers": _answers(lambda p: float(price(read(p.usage), p.model, p.at)))}


def _answers(price: Any) -> list[float | None]:
    """Dollars of each probe; None where the rival has no price."""

    def one(probe: Probe) -> float | None:
        try:
            return float(price(probe))
        except Exception:  # noqa: BLE001  each has errors of its own
            return None

    return [one(probe) for probe in probes()]


RIVALS = {"litellm": litellm_rates, "genai-prices": genai_prices_rates}

if __name__ == "__main__":
    name, seconds = sys.argv[1], float(sys.argv[2])
    print(json.dumps(RIVALS[name](seconds) | {"version": version(name)}))
