"""The option that says what goes through all calls: this process, or Spark."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from farthing.cli._app import BadInput
from farthing.cli._shared import OUTPUT

if TYPE_CHECKING:
    from farthing.ledger import Ledger

_LACK = re.compile(r"ModuleNotFoundError: No module named '(\w+)")
# Of a machine with a cluster: by spark-submit, a client's address, or Spark's own settings.
_CLUSTER = ("PYSPARK_GATEWAY_PORT", "SPARK_REMOTE", "SPARK_HOME", "SPARK_CONF_DIR")


@Parameter(name="*")
@dataclass
class OnEngine:
    """What goes through all calls."""

    engine: Annotated[
        Literal["duckdb", "spark"],
        Parameter(
            group=OUTPUT,
            help="What goes through all calls: this process, or Spark (Java, farthing\\[spark]).",
        ),
    ] = "duckdb"

    @contextmanager
    def summing(self, ledger: Ledger) -> Iterator[None]:
        """Where the ledger's usage is summed and sifted, in this block."""
        with self.session() as session:
            if session:
                ledger.sum_on(session)
            yield

    @contextmanager
    def session(self) -> Iterator[Any]:
        """Spark's, in this block; None for this process."""
        with nullcontext() if self.engine == "duckdb" else spark_session() as session:
            yield session


@contextmanager
def spark_session() -> Iterator[Any]:
    """The session that is there; else one of the cluster that is set up, or of this machine, ended with the block."""
    try:
        import pandas  # noqa: F401, ICN001 - PySpark wants it wherever rows go as Arrow
        from pyarrow import Table  # noqa: F401 - by which Spark hands rows over
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise BadInput(
            f"--engine spark needs PySpark, pyarrow and pandas (no {error.name}): pip install 'farthing[spark]'"
        ) from error
    warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
    if there := SparkSession.getActiveSession():
        with _fit_executors():
            yield there
        return
    asked = SparkSession.builder.appName("farthing").config("spark.ui.showConsoleProgress", "false")
    if not any(name in os.environ for name in _CLUSTER):
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")  # Spark listens, and nobody else is to hear it
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # else the first of the path
        asked = asked.master("local[*]").config("spark.ui.enabled", "false")
        asked = asked.config("spark.log.level", "FATAL")  # what fails is told by the command, in a line
    try:
        made = asked.getOrCreate()
    except (PySparkException, OSError) as error:
        raise BadInput(f"Spark does not start: is Java 17 or newer installed? ({error})") from error
    try:
        with _fit_executors():
            yield made
    finally:
        made.stop()


@contextmanager
def _fit_executors() -> Iterator[None]:
    """What executors lack is told in one line; Spark tells it in many."""
    try:
        yield
    except Exception as error:
        if lack := _LACK.search(str(error)):
            there = "install farthing[spark,aws] there, for the Python that PYSPARK_PYTHON names"
            raise BadInput(f"Spark's executors have no {lack[1]}: {there}") from None
        raise
