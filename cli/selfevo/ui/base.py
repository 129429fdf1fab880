"""What the tables of the pages have in common: DuckDB in memory, filled from files whose digests were checked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb

from selfevo.tables import copy_table
from selfevo_contract.artifacts import Manifest
from selfevo_contract.errors import InputError
from selfevo_contract.rows import R, RowFile
from selfevo_store import ObjectStore


def connected(*tables: str) -> duckdb.DuckDBPyConnection:
    """An empty base with ``tables``; it fetches nothing from elsewhere."""
    base = duckdb.connect(":memory:", config={"autoinstall_known_extensions": "false"})
    for table in tables:
        base.execute(table)
    return base


def table_at(store: ObjectStore, prefix: str, manifest: Manifest, file: RowFile[R], folder: Path) -> Path:
    """The file as Parquet in ``folder``.

    Raises:
        SelfevoError: the step has no such file, or what it has is damaged.
    """
    if not copy_table(store, prefix, manifest, file, folder):
        raise InputError(f"{store.uri_of(prefix)} was committed without {file.name}, and there are no rows to show")
    return folder / file.name


@contextmanager
def readable(place: str) -> Iterator[None]:
    """Within it rows of the step at ``place``, its address, are read.

    Raises:
        InputError: they are not what this version reads, though their digest is the manifest's.
    """
    try:
        yield
    except duckdb.Error as error:
        why = str(error).partition("\n")[0]
        raise InputError(f"{place} has rows that this version of selfevo cannot read ({why})") from error


def rows_of(found: Any) -> list[SimpleNamespace]:
    """What a query found, by the names of its columns."""
    names = [column[0] for column in found.description]
    return [SimpleNamespace(**dict(zip(names, row, strict=True))) for row in found.fetchall()]
