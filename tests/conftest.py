"""What several tests need: the shared data, golden files, one Spark session."""

import functools
import gc
import os
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.held_stores import opened, postgres, store  # noqa: F401  fixtures of the tests of live budgets

ROOT = Path(__file__).resolve().parent.parent

# Tests start programs over and over: without bytecode, each compiles all that it imports.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.pop("COLUMNS", None)  # readline sets it where a worker of xdist has no terminal
gc.disable()  # until tests run: nothing of what is loaded before them is garbage

# A slow machine must not fail a law, so no deadline; derandomised, so that a run can be repeated.
settings.register_profile("farthing", deadline=None, derandomize=True, max_examples=100)
settings.register_profile(
    "fuzz", deadline=None, max_examples=5000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("farthing")


def pytest_addoption(parser):
    parser.addoption("--golden", action="store_true", help="write the expected files instead of comparing")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config, items):
    """Tests that ask for Spark share one worker, and so one session; those that ask for a browser another.

    With --golden, only what has something to write is run.
    """
    if config.getoption("--golden"):
        others = [item for item in items if "accepts" not in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if "accepts" in getattr(item, "fixturenames", ())]
    for item in items:
        for shared in ("spark", "browser"):
            if shared in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.xdist_group(shared))


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop():
    """Seven thousand tests and their modules stay to the end: no collection has to look at them again."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure():
    gc.unfreeze()  # or the end of the program would take what is left for leaks


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of sample data, read in place: it is not part of the repository."""
    folder = Path(os.environ.get("FARTHING_SHARED") or ROOT.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"no sample data at {folder}: set FARTHING_SHARED or put it beside the clone")
    return folder


@pytest.fixture(autouse=True)
def no_session_of_another_test():
    """Sessions and clients are held for a program's life; tests have their own credentials and servers."""
    aws = sys.modules.get("farthing.aws")
    if aws:
        for held in (aws._session, aws._client):
            held.cache_clear()
        aws._REGIONS.clear()


@pytest.fixture(autouse=True)
def descriptions_of_aws_are_read_once():
    """Megabytes of JSON, which botocore keeps with a session; but a test has sessions of its own."""
    loaded = sys.modules.get("botocore.session")
    if loaded:
        vars(loaded)["create_loader"] = _loader


@functools.cache
def _loader(folders=None):
    from botocore.loaders import create_loader

    return create_loader(folders)


@pytest.fixture
def accepts(request) -> bool:
    """Whether what differs is written, and not compared."""
    return bool(request.config.getoption("--golden"))


@pytest.fixture
def golden(accepts):
    """golden(path, text): what a person reads stays as it was; `make golden` accepts the change."""

    def check(path, text):
        path = ROOT / path
        if accepts:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        else:
            assert path.is_file(), f"{path} is missing: make golden writes it"
            assert text == path.read_text(encoding="utf-8"), f"{path} differs: read it, then make golden"

    return check


@pytest.fixture(scope="module")
def moto():
    """The address of an emulated AWS."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def spark():
    """One small Spark session, in UTC, for the whole run."""
    if not (shutil.which("java") or os.environ.get("JAVA_HOME")):
        pytest.skip("Spark needs Java 17 or newer (Debian: apt-get install openjdk-17-jre-headless)")
    pyspark_sql = pytest.importorskip("pyspark.sql")
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    session = (
        pyspark_sql.SparkSession.builder.master("local[2]")
        .appName("farthing")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()
