"""What a workload will cost before its first call: every way to run it, priced or ruled out."""

from farthing.estimate._arrivals import arrivals, gap_s, hits
from farthing.estimate._article import Claim, Figure, article, decimal, say
from farthing.estimate._page import article_html, table, to_html
from farthing.estimate._scenarios import Scenario, cheapest, ruled_out, scenarios
from farthing.estimate._tokens import image_tokens, pdf_tokens, sizes
from farthing.estimate._workload import DAYS, Read, Workload, WorkloadError, make, model_of, read_file

__all__ = [
    "DAYS",
    "Claim",
    "Figure",
    "Read",
    "Scenario",
    "Workload",
    "WorkloadError",
    "arrivals",
    "article",
    "article_html",
    "cheapest",
    "decimal",
    "gap_s",
    "hits",
    "image_tokens",
    "make",
    "model_of",
    "pdf_tokens",
    "read_file",
    "ruled_out",
    "say",
    "scenarios",
    "sizes",
    "table",
    "to_html",
]
