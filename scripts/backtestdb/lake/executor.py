"""Run one function over many parts: on processes of this machine, or on a Dask cluster. The same call for both.

Of Dask only `Client.get_executor` is used, an executor as in the standard library, so that another cluster can take
its place. A worker that dies costs its part once more: Dask gives the part to another worker, a process pool breaks
and is made anew for the parts that are left.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from backtestdb.errors import ProjectError

Task, Result = TypeVar("Task"), TypeVar("Result")
PROCESSES = "processes"
TRIES = 3
CONNECT_SECONDS = 10


class EngineError(ProjectError):
    """The engine cannot be reached, or parts failed on it again and again."""


@contextmanager
def open_executor(engine: str, processes: int | None = None) -> Iterator[Executor]:
    """`engine`: "processes", or the address of a Dask scheduler. Raise EngineError when it does not answer."""
    if engine == PROCESSES:
        # spawn: pyarrow has threads, and a forked child would inherit their locks in whatever state they are.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(processes or os.cpu_count(), mp_context=context)
        try:
            yield pool
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        return
    with connect_to_cluster(engine) as client:
        yield client.get_executor(pure=False, retries=TRIES)


@contextmanager
def connect_to_cluster(engine: str) -> Iterator[Any]:
    from distributed import Client  # noqa: PLC0415  only a cluster pays for it

    try:
        client = Client(engine, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise EngineError(
            f"no Dask scheduler answers at ENGINE={engine} ({error or type(error).__name__})",
            next_step="start it (dask scheduler), or leave ENGINE empty for processes of this machine",
        ) from error
    with client:
        if not client.scheduler_info()["workers"]:
            raise EngineError(
                f"the Dask scheduler at ENGINE={engine} has no worker",
                next_step=f"on each machine of the cluster: dask worker {engine}",
            )
        yield client


def run_parts(
    engine: str,
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    processes: int | None = None,
) -> Iterator[tuple[Task, Result]]:
    """Yield each task with its result, in order of completion. Tasks must be hashable. An exception of the function
    is raised here; a worker that dies is not one. Raise EngineError for tasks whose worker died TRIES times."""
    left = dict.fromkeys(tasks, 0)
    while left:
        with open_executor(engine, processes) as executor:
            futures = {executor.submit(function, task): task for task in left}
            try:
                for future in as_completed(futures):
                    task = futures[future]
                    result = future.result()
                    del left[task]
                    yield task, result
            except (BrokenProcessPool, CancelledError):
                # Which of the running parts took the worker down is not known: all that are left get a try less.
                left = {task: tries + 1 for task, tries in left.items()}
        if any(tries >= TRIES for tries in left.values()):
            raise EngineError(
                f"workers died {TRIES} times; {len(left)} parts are not done, the first is {next(iter(left))}",
                next_step="look for memory that ran out (dmesg), then start the same command again",
            )
