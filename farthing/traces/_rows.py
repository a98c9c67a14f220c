"""The access log as rows, for an engine: which prefix of which namespace was sent when, and its tokens."""

from __future__ import annotations

from typing import Any

import numpy as np

from farthing.cache import Trace


def rows(trace: Trace) -> Any:
    """An Arrow table with a row each time a node was sent, in order of time.

    `namespace` and `prefix` are numbers: of the namespace, and of the prompt up to the end of the node. `tokens` are
    the node's, `depth` all up to its end, `at_us` is the start of the request. farthing.cache.saved takes it.
    """
    from arro3.core import Array, Table

    lengths = np.diff(trace.starts)
    sizes = trace.sizes[trace.nodes]
    walked = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    columns = {
        "namespace": np.repeat(trace.namespace, lengths),
        "prefix": trace.nodes,
        "tokens": sizes,
        "depth": walked[1:] - np.repeat(walked[trace.starts[:-1]], lengths),
        "at_us": np.repeat(trace.at_us, lengths),
    }
    return Table.from_pydict({name: Array.from_numpy(column) for name, column in columns.items()})
