"""Market data beyond one file: Parquet in Delta tables, written here and read by any engine.

From the bottom up: `layout` says what lies where; `store` knows the place, a folder or S3; `table`
commits versions; `read_sqlite` and `flat_files` bring data in, `publish` and `backfill` put them
there; `executor` runs work on processes or a cluster and `compute` is that work; `scan` reads.
Nothing outside of this room imports pyarrow, deltalake, duckdb or dask.

pyarrow reads files and buffers of its own, never a Python file object (open(), BytesIO, gzip.open):
its threads let go of such an object after the call has returned, and when Python is ending by then,
the whole process is aborted, "terminate called without an active exception"
(https://github.com/apache/arrow/issues/33975 and 34314).
"""
