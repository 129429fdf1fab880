"""What the tables of the pages have in common: DuckDB in memory, filled from files whose digests were checked."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb

from selfevo.tables import copy_table
from selfevo_contract.artifacts import Manifest
from selfevo_contract.rows import R, RowFile
from selfevo_store import ObjectStore


def connected(*tables: str) -> duckdb.DuckDBPyConnection:
    """An empty base with ``tables``; it fetches nothing from elsewhere."""
    base = duckdb.connect(":memory:", config={"autoinstall_known_extensions": "false"})
    for table in tables:
        base.execute(table)
    return base


def table_at(store: ObjectStore, prefix: str, manifest: Manifest, file: RowFile[R], folder: Path) -> Path:
    """The file as Parquet in ``folder``."""
    copy_table(store, prefix, manifest, file, folder)
    return folder / file.name


def rows_of(found: Any) -> list[SimpleNamespace]:
    """What a query found, by the names of its columns."""
    names = [column[0] for column in found.description]
    return [SimpleNamespace(**dict(zip(names, row, strict=True))) for row in found.fetchall()]
