"""Which statements were sent: a small file each, beside the ledger, so that nobody gets one twice.

It is written before the mail goes, and says so; a process that dies in between leaves `sending`, and whether the mail
arrived is then for a person to find out. It holds no addresses.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from farthing.aws import Access, Body, explained, is_s3, keys, objects, split, store
from farthing.ledger import Ledger

SENDING, SENT = "sending", "sent"
_FOLDER = "sent"


def name_of(team: str, month: str, version: str, suffix: str = ".json") -> str:
    """A file name: the team as it is, but for signs that file systems differ about, which are written as %2F and so on.

    >>> name_of("search", "2026-10", "2026-10.2"), name_of("R&D/EU", "2026-10", "")
    ('2026-10.2-search.json', '2026-10-R%26D%2FEU.json')
    """
    plain = re.sub(
        r"[^A-Za-z0-9_ -]", lambda sign: "".join(f"%{byte:02X}" for byte in sign[0].encode()), team
    )
    return f"{version or month}-{plain}{suffix}"


class Record:
    """What is known of one statement of one team."""

    def __init__(self, ledger: Ledger, team: str, month: str, version: str) -> None:
        name = name_of(team, month, version)
        self._file: _File | _Object = (
            _Object(f"{ledger.folder}/{_FOLDER}/{name}")
            if is_s3(str(ledger.folder))
            else _File(Path(ledger.folder) / _FOLDER / name)
        )

    def read(self) -> tuple[str, str]:
        """Its state, and since when; ("", "") where there is none."""
        text = self._file.read()
        if not text:
            return "", ""
        said = json.loads(text)
        return said["state"], said["at"]

    def begin(self, now: datetime, *, again: bool = False) -> bool:
        """Say that it is being sent. False if somebody else has said so already."""
        return self._file.write(_text(SENDING, now), anew=not again)

    def done(self, now: datetime) -> None:
        self._file.write(_text(SENT, now), anew=False)

    def failed(self) -> None:
        """It did not go: it may be tried again."""
        self._file.remove()


def _text(state: str, now: datetime) -> str:
    return json.dumps({"state": state, "at": now.isoformat(timespec="seconds")})


class _File:
    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> str:
        try:
            return self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""

    def write(self, text: str, *, anew: bool) -> bool:
        self._path.parent.mkdir(exist_ok=True)
        draft = self._path.with_name(f"{self._path.name}.{os.urandom(4).hex()}")
        draft.write_text(text, encoding="utf-8")
        try:
            if anew:
                os.link(draft, self._path)  # unlike a rename it fails where one is
            else:
                draft.replace(self._path)
        except FileExistsError:
            return False
        finally:
            draft.unlink(missing_ok=True)
        return True

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


class _Object:
    def __init__(self, url: str) -> None:
        self._bucket, self._key = split(url)
        self._access = Access()

    def read(self) -> str:
        found = (one.key for one in objects(self._access, self._bucket, self._key))
        if self._key not in found:
            return ""
        return Body(keys(self._access, self._bucket), self._key).all().decode()

    def write(self, text: str, *, anew: bool) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError

        try:
            held = store(keys(self._access, self._bucket))
            obstore.put(held, self._key, text.encode(), mode="create" if anew else "overwrite")
        except AlreadyExistsError:
            return False
        except Exception as error:  # noqa: BLE001 - obstore's and Python's own
            raise explained(error, "s3:PutObject", self._bucket) from None
        return True

    def remove(self) -> None:
        import obstore

        with suppress(FileNotFoundError):
            obstore.delete(store(keys(self._access, self._bucket)), self._key)
