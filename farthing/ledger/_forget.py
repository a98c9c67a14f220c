"""Names that a ledger has been told to forget: it keeps a keyed digest of each, and a pseudonym in its place.

The key lies in the ledger, beside the digests. Whoever has the ledger and guesses a name can check the guess; what
the ledger no longer holds is the name.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

from farthing.usage import Facts, Total, Usage

KEY, NAME = "key", "name"  # kinds of rows
HOMES = (r"^(/home/|/Users/|[A-Za-z]:\\Users\\)[^/\\]+", r"^(-home-|-Users-)[^-]+")  # of whom a project tells
SOMEBODYS_HOME = r"\1forgotten"


class Forgotten(NamedTuple):
    """The key and the digests. Names are principals, sessions and values of tags alike."""

    key: bytes = b""
    digests: frozenset[str] = frozenset()

    def digest(self, name: str) -> str:
        return hashlib.blake2b(
            name.encode("utf-8", "surrogatepass"), key=self.key, digest_size=16
        ).hexdigest()

    def pseudonym(self, name: str) -> str:
        return f"forgotten-{self.digest(name)[:12]}"

    def name(self, name: str) -> str:
        """The name, or what is to stand in its place."""
        return self.pseudonym(name) if name and self.digest(name) in self.digests else name

    def facts(self, facts: Facts) -> Facts:
        """Where principal or session are forgotten, the user's home folder goes from the project as well."""
        principal, session = self.name(facts.principal), self.name(facts.session)
        if (principal, session) == (facts.principal, facts.session):
            return facts
        project = facts.project
        for home in HOMES:
            project = re.sub(home, SOMEBODYS_HOME, project)
        return facts._replace(principal=principal, session=session, project=project)

    def tags(self, tags: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        return tuple((key, self.name(value)) for key, value in tags)

    def total(self, total: Total) -> Total:
        if not self.digests:
            return total
        return total._replace(principal=self.name(total.principal), session=self.name(total.session))

    def usages(self, usages: Sequence[Usage]) -> Sequence[Usage]:
        """The records without forgotten names; the very same where there are none to look for."""
        if not self.digests:
            return usages
        facts, tags = cache(self.facts), cache(self.tags)  # few of them differ
        return [
            usage._replace(
                parts=tuple((facts(said), tokens) for said, tokens in usage.parts),
                tags=tags(usage.tags) if usage.tags else (),
            )
            for usage in usages
        ]
