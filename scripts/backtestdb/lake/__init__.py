"""Market data beyond one file: Parquet in Delta tables, written here and read by any engine.

From the bottom up: `layout` says what lies where; `store` knows the place, a folder or S3; `table`
commits versions; `read_sqlite` and `flat_files` bring data in, `publish` and `backfill` put them
there; `executor` runs work on processes or a cluster and `compute` is that work; `scan` reads.
Nothing outside of this room imports pyarrow, deltalake, duckdb or dask.
"""
