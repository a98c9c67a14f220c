"""A PostgreSQL server of a test's own: made in a temporary folder, reached by a socket in it, ended by its own pid."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

WAIT_S = 30


@contextmanager
def postgres_server() -> Iterator[str]:
    """Its address, for `psycopg.connect`. The test is skipped where there is no server to run."""
    debian = sorted(str(folder) for folder in Path("/usr/lib/postgresql").glob("*/bin"))
    path = os.pathsep.join((os.environ.get("PATH", ""), *debian))
    initdb, server = shutil.which("initdb", path=path), shutil.which("postgres", path=path)
    if not initdb or not server:
        pytest.skip("no PostgreSQL server: install postgresql (its initdb and postgres on the path)")
    pytest.importorskip("psycopg")
    user = "nobody" if os.geteuid() == 0 else None  # the server refuses to run as root
    folder = Path(tempfile.mkdtemp(prefix="farthing-pg-"))
    try:
        if user:
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
        data = folder / "data"
        made: list[str | Path] = [
            initdb,
            "-D",
            data,
            "-U",
            "farthing",
            "-A",
            "trust",
            "--no-sync",
            "-E",
            "UTF8",
            "--locale=C",
        ]
        subprocess.run(made, check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL)
        run: list[str | Path] = [
            server,
            "-D",
            data,
            "-k",
            folder,
            "-c",
            "listen_addresses=",
            "-c",
            "fsync=off",
        ]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(run, user=user, cwd=folder, stdout=log, stderr=log)
        try:
            url = f"postgresql://farthing@/postgres?host={folder}"
            _wait(url, folder)
            yield url
        finally:
            process.send_signal(signal.SIGINT)  # ends connections, then itself
            process.wait(WAIT_S)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(url: str, folder: Path) -> None:
    import psycopg

    end = time.monotonic() + WAIT_S
    while True:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            if time.monotonic() > end:
                raise RuntimeError((folder / "log").read_text(errors="replace")) from None
            time.sleep(0.05)
        else:
            return
