"""What the browser loads: the files of farthing/web/static, with their digests, packed beforehand."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
import re
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).with_name("static")
_TYPES = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".woff2": "font/woff2",
    ".svg": "image/svg+xml",
}
_PACKED = {".js", ".mjs", ".css", ".html", ".svg", ".json"}
_HASHED = re.compile(r"[.-][0-9A-Za-z]{8,}\.(js|css|woff2)$")  # such a name is never given to anything else


class Asset(NamedTuple):
    plain: bytes
    packed: bytes  # b"" where packing gains nothing
    kind: str
    etag: str
    forever: bool


class Assets:
    """Read when first asked for, and again when they have changed."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.folder = folder.resolve()
        self._kept: dict[str, tuple[int, Asset]] = {}

    def get(self, name: str) -> Asset | None:
        """None if there is no such file; nothing outside the folder is one."""
        path = (self.folder / name).resolve()
        if not path.is_relative_to(self.folder) or not path.is_file() or path.name.startswith("."):
            return None
        stamp = path.stat().st_mtime_ns
        kept = self._kept.get(name)
        if kept is None or kept[0] != stamp:
            kept = self._kept[name] = stamp, _read(path)
        return kept[1]


def _read(path: Path) -> Asset:
    plain = path.read_bytes()
    packed = gzip.compress(plain, 9, mtime=0) if path.suffix in _PACKED else b""
    kind = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    kind += "; charset=utf-8" if kind.startswith("text/") else ""
    digest = hashlib.sha256(plain).hexdigest()[:20]
    return Asset(
        plain,
        packed if len(packed) < len(plain) else b"",
        kind,
        f'"{digest}"',
        bool(_HASHED.search(path.name)),
    )
