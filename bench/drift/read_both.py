"""Reads two Parquet files completely and does nothing else: the floor of any comparison.

    python bench/drift/read_both.py MODE REFERENCE CURRENT

columns: column by column, text as dictionaries, one thread, as `retrain drift` reads.
batches: all columns in batches of 65,536 rows, otherwise the same.
table-1: `pyarrow.parquet.read_table`, one thread; table: with its defaults.
"""

import sys

import pyarrow as pa
import pyarrow.parquet as pq


def text_columns(path):
    return [f.name for f in pq.read_schema(path) if pa.types.is_string(f.type)]


def columns(path):
    file = pq.ParquetFile(path, read_dictionary=text_columns(path))
    for name in file.schema_arrow.names:
        for group in range(file.num_row_groups):
            file.read_row_group(group, columns=[name], use_threads=False)


def batches(path):
    file = pq.ParquetFile(path, read_dictionary=text_columns(path))
    for _ in file.iter_batches(65_536, use_threads=False):
        pass


MODES = {
    "columns": columns,
    "batches": batches,
    "table-1": lambda path: pq.read_table(path, use_threads=False),
    "table": pq.read_table,
}

if __name__ == "__main__":
    for file_path in sys.argv[2:]:
        MODES[sys.argv[1]](file_path)
