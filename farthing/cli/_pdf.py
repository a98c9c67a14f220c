"""A page as PDF, by the browser of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from farthing.cli._app import BadInput

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
_LONGEST_S = 120
_QUIET = (  # nothing of it goes to the network, whatever a browser would do by itself
    "--disable-background-networking", "--disable-component-update", "--disable-extensions", "--disable-sync",
    "--no-first-run", "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip


def browser() -> str:
    """The browser that prints; BadInput says which to install."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        raise BadInput(
            "--pdf needs Chromium on the PATH: apt-get install chromium, or print the HTML to a file"
        )
    return found


def to_pdf(page: str) -> bytes:
    """The page on paper, as its own style says."""
    program = browser()
    with tempfile.TemporaryDirectory(prefix="farthing-pdf-") as temporary:
        folder = Path(temporary)
        html, pdf = folder / "page.html", folder / "page.pdf"
        html.write_text(page, encoding="utf-8")
        root = getattr(os, "geteuid", lambda: 1)() == 0  # as root, Chromium starts without its sandbox only
        asked = [
            program, "--headless", *_QUIET, *(["--no-sandbox"] if root else []), "--no-pdf-header-footer",
            f"--user-data-dir={folder / 'profile'}", f"--print-to-pdf={pdf}", html.as_uri(),
        ]  # fmt: skip
        try:
            done = subprocess.run(asked, capture_output=True, text=True, timeout=_LONGEST_S, check=False)  # noqa: S603
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BadInput(f"--pdf: {program} did not print: {error}") from error
        if not pdf.is_file():
            said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise BadInput(f"--pdf: {program} ended with {done.returncode} and no PDF: {said}")
        return pdf.read_bytes()
