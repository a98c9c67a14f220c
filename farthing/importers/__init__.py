"""Usage out of files: every format, folders, packed files, bad lines, on all processors.

`read_paths` is the way in. A format is one file of this folder (`_read.Format` says what it holds), found by
listing it:

    for batch in read_paths(["logs/"], now=datetime.now(UTC)):
        ...  # batch.usages, batch.files
"""

from __future__ import annotations

from farthing.importers._read import Reject
from farthing.importers._reading import Batch, File, read_paths
from farthing.importers._task import formats

__all__ = ["Batch", "File", "Reject", "formats", "read_paths"]
