"""Tasks to the executors of a Spark cluster and their frames back: what worker processes are on one machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any

from farthing.aws import Keys
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
        held = {task.keys.bucket: task.keys for task in wave if task.keys}  # of a bucket the last: the newest
        packed = context.parallelize(list(map(_packed, range(len(wave)), wave)), len(wave))
        for place, frames in packed.map(partial(_run, held)).collect():
            for data in frames:
                yield Done(wave[place], unpack_frame(data), last=False)
            yield Done(wave[place], NOTHING, last=True)


def _packed(place: int, task: Task) -> tuple[int, str, bytes]:
    """Spark writes what is spread to a file, so keys go by the code that is run instead."""
    return place, task.keys.bucket if task.keys else "", pack_task(task._replace(keys=None))


def _run(held: Mapping[str, Keys], packed: tuple[int, str, bytes]) -> tuple[int, list[bytes]]:
    place, bucket, data = packed
    task = unpack_task(data)._replace(keys=held.get(bucket))
    return place, [pack_frame(frame) for frame in run(task)]
