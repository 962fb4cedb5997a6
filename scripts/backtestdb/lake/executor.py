"""Run one function over many parts: on processes of this machine, or on a Dask cluster. The same
call for both.

Of Dask only `Client.get_executor` is used, an executor as in the standard library, so that another
cluster can take its place. A worker that dies costs its part once more: Dask gives the part to
another worker, a process pool breaks and is made anew for the parts that are left.
"""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from backtestdb.errors import ProjectError

Task = TypeVar("Task")
Result = TypeVar("Result")
PROCESSES = "processes"
TRIES = 3
CONNECT_SECONDS = 10


class EngineError(ProjectError):
    """The engine cannot be reached, or parts failed on it again and again."""


class Engine:
    """Where parts are computed. Processes are started once and serve one `run` after the other."""

    def __init__(self, address: str = PROCESSES, processes: int | None = None) -> None:
        """`address`: "processes", or that of a Dask scheduler. `processes`: one for each core when
        left out; with 0 the work is done in this process."""
        self.address = address
        self.processes = processes if processes is not None else os.cpu_count() or 1
        self.opened = ExitStack()
        self.executor: Executor | None = None

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.executor = None
        self.opened.close()

    def open(self) -> Executor:
        """Raise EngineError when the cluster does not answer."""
        if self.executor is None and self.address == PROCESSES:
            # spawn: pyarrow has threads, and a forked child would inherit their locks in whatever
            # state they are.
            context = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(
                self.processes, mp_context=context, initializer=end_with_parent
            )
            self.opened.callback(pool.shutdown, wait=True, cancel_futures=True)
            self.executor = pool
        elif self.executor is None:
            client = self.opened.enter_context(connect_to_cluster(self.address))
            self.executor = client.get_executor(pure=False, retries=TRIES)

        assert self.executor is not None  # noqa: S101
        return self.executor

    def run(
        self, function: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Iterator[tuple[Task, Result]]:
        """Yield each task with its result, in order of completion. Tasks must be hashable. An
        exception of the function is raised here; a worker that dies is not one. Raise EngineError
        when workers died TRIES times."""
        if self.address == PROCESSES and not self.processes:
            yield from ((task, function(task)) for task in tasks)
            return

        left, tries = dict.fromkeys(tasks), 0
        while left:
            executor = self.open()
            futures = {executor.submit(function, task): task for task in left}
            try:
                for future in as_completed(futures):
                    result = future.result()
                    del left[futures[future]]
                    yield futures[future], result
            except (BrokenProcessPool, CancelledError) as error:
                # Which of the running parts took the worker down is not known: all that are left go
                # again.
                tries += 1
                self.close()
                if tries == TRIES:
                    raise EngineError(
                        f"workers died {TRIES} times; {len(left)} parts are not done, one is "
                        f"{next(iter(left))}",
                        next_step="look for memory that ran out (dmesg), then start the same "
                        "command again",
                    ) from error
            except BaseException:
                for future in futures:
                    future.cancel()
                raise


def end_with_parent() -> None:
    """Watch the command: a killed one's worker would wait for ever, with all of its memory."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def connect_to_cluster(engine: str) -> Iterator[Any]:
    """Yield a client of a scheduler. Raise EngineError when it does not answer or has no worker."""
    from distributed import Client  # noqa: PLC0415  only a cluster pays for it

    try:
        client = Client(  # type: ignore[no-untyped-call]
            engine, timeout=CONNECT_SECONDS, set_as_default=False
        )
    except (OSError, TimeoutError, ValueError) as error:
        raise EngineError(
            f"no Dask scheduler answers at ENGINE={engine} ({error or type(error).__name__})",
            next_step="start it (dask scheduler), or leave ENGINE empty for processes of this "
            "machine",
        ) from error

    with client:
        if not client.scheduler_info()["workers"]:
            raise EngineError(
                f"the Dask scheduler at ENGINE={engine} has no worker",
                next_step=f"on each machine of the cluster: dask worker {engine}",
            )
        yield client
