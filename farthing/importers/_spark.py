"""Tasks to the executors of a Spark cluster and their frames back: what worker processes are on one machine."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from farthing.importers._pool import NOTHING, Done
from farthing.importers._task import Task, run
from farthing.importers._wire import pack_frame, pack_task, unpack_frame, unpack_task

TASKS_AT_ONCE = 8  # for each slot of the cluster: as many frames as the driver has room for


def on_spark(session: Any, tasks: Iterator[Task]) -> Iterator[Done]:
    """Run the tasks on the session's executors, which need farthing, and see the files under the same names.

    A task whose executor is lost runs again elsewhere, and is told once.
    """
    context = session.sparkContext
    while wave := list(islice(tasks, TASKS_AT_ONCE * context.defaultParallelism)):
        packed = context.parallelize(list(enumerate(map(pack_task, wave))), len(wave))
        for place, frames in packed.map(_run).collect():
            for data in frames:
                yield Done(wave[place], unpack_frame(data), last=False)
            yield Done(wave[place], NOTHING, last=True)


def _run(placed: tuple[int, bytes]) -> tuple[int, list[bytes]]:
    place, task = placed
    return place, [pack_frame(frame) for frame in run(unpack_task(task))]
