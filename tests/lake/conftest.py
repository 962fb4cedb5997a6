"""What holds in every test of the lake."""

from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest


@pytest.fixture(autouse=True)
def _no_python_file_for_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test whose code hands pyarrow a Python file object: now and then that aborts the
    process at its end (see backtestdb/lake/__init__.py), too seldom for a test to wait for."""
    for module, name in ((pq, "read_table"), (pq, "ParquetFile"), (pa_csv, "read_csv")):
        monkeypatch.setattr(module, name, refuse_python_files(getattr(module, name)))


def refuse_python_files(read: Any) -> Any:
    def checked(source: Any, *arguments: Any, **options: Any) -> Any:
        assert isinstance(source, pa.NativeFile) or not hasattr(source, "read"), (
            f"pyarrow reads {source!r}: its threads may outlive Python"
        )
        return read(source, *arguments, **options)

    return checked
