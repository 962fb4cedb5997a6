"""A process that holds something while a test looks: a lock, a database, a transaction."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from backtestdb.config import PROJECT_DIR


@contextmanager
def running_holder(program: str, *words: object) -> Iterator[subprocess.Popen[str]]:
    """Given the text of a program and its arguments, yield its process once it has said "held"; it
    is killed at the end of the block. The program reads its standard input to the end, and can
    import what the scripts import."""
    with subprocess.Popen(
        [sys.executable, "-c", program, *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(PROJECT_DIR / "scripts")},
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()
