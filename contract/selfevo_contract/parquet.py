"""Rows as Parquet: typed columns that DuckDB, pandas, polars and `datasets` read (docs/data.md, docs/decisions/0012).

A column for each field of the file's types, in their order, then ``more``. Counts of answers are a struct, votes a list
of structs. zstd, `_GROUP` rows a row group: the bytes follow from the rows and the version of pyarrow alone.

UTF-8 holds no half of a surrogate pair: in its place stands U+FFFD. pyarrow is imported where it is needed, for the
contract is used without it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel

MORE = "more"
"""Column with the fields of another version, which have no column here: a JSON object, null without any."""
_GROUP = 4096
_PLAIN = {str: "string", bool: "bool_", int: "int64", float: "float64"}


def write_table(path: Path, types: Iterable[type[BaseModel]], rows: Iterable[BaseModel]) -> Path:
    """``rows``, each of one of ``types``, in order, as they come: one row group is in memory at a time."""
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema([*_columns(types), pa.field(MORE, pa.string())])
    path.parent.mkdir(parents=True, exist_ok=True)
    with parquet.ParquetWriter(path, schema, compression="zstd", store_schema=False) as writer:
        left = iter(rows)
        while group := [_cells(row, schema.names) for row in islice(left, _GROUP)]:
            writer.write_table(pa.Table.from_pylist(group, schema))
    return path


def read_table(data: bytes) -> Iterator[dict[str, Any]]:
    """The rows of what ``write_table`` wrote, of this version or another, with null for what a row has not.

    Raises:
        ValueError: it is no Parquet, or what ``more`` holds is no JSON object.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(pa.BufferReader(data), use_threads=False, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(str(error)) from error
    votes = [field.name for field in table.schema if _is_votes(field.type)]
    for batch in table.to_batches(_GROUP):
        for row in batch.to_pylist():
            for name in votes:
                row[name] = row[name] and [(vote["answer"], vote["count"]) for vote in row[name]]
            more = row.pop(MORE, None)
            yield row if more is None else _merged(row, json.loads(more))


def plain(text: str) -> str:
    r"""``text`` as UTF-8 can hold it.

    >>> plain("lone \ud800 half, \ud83d\ude00 pair") == "lone \ufffd half, \U0001f600 pair"
    True
    """
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _columns(types: Iterable[type[BaseModel]]) -> list[Any]:
    import pyarrow as pa

    found: dict[str, Any] = {}
    for kind in types:
        for name, field in kind.model_fields.items():
            column = _type_of(field.annotation)
            if column is not None:
                found.setdefault(name, column)
    return [pa.field(name, column) for name, column in found.items()]


def _type_of(annotation: Any) -> Any:
    """None for a field that is always null."""
    import pyarrow as pa

    if annotation is None or annotation is type(None):
        return None
    if get_origin(annotation) is tuple and get_args(annotation)[0] is float:
        return pa.list_(pa.field("element", pa.float64()))
    if get_origin(annotation) is tuple:  # rows.Votes
        return pa.list_(pa.field("element", pa.struct([("answer", pa.string()), ("count", pa.int64())])))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return pa.struct(_columns([annotation]))
    if annotation in _PLAIN:
        return getattr(pa, _PLAIN[annotation])()
    [inner] = [each for each in get_args(annotation)[:2] if isinstance(each, type) or get_args(each)][:1]
    return _type_of(inner)


def _is_votes(column: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(column) and pa.types.is_struct(column.value_type))


def _cells(row: BaseModel, names: Iterable[str]) -> dict[str, Any]:
    known = type(row).model_fields
    more = _unknown(row)
    cells = {name: _cell(getattr(row, name)) if name in known else None for name in names}
    return {**cells, MORE: json.dumps(more) if more else None}


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, BaseModel):
        return {name: _cell(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, tuple) and not any(isinstance(each, tuple) for each in value):
        return list(value)  # numbers, or nothing
    if isinstance(value, tuple):
        return [{"answer": plain(answer), "count": count} for answer, count in value]
    return value


def _unknown(row: BaseModel) -> dict[str, Any]:
    """What ``row`` has beyond its type's fields, within its rows too."""
    inner = {name: _unknown(value) for name, value in row if isinstance(value, BaseModel)}
    return {**{name: value for name, value in inner.items() if value}, **(row.model_extra or {})}


def _merged(row: Mapping[str, Any], more: Any) -> dict[str, Any]:
    if not isinstance(more, Mapping):
        raise ValueError(f"{MORE} is {json.dumps(more)[:60]}, which is no object")
    both = {name for name in row.keys() & more.keys() if isinstance(row[name], Mapping)}
    return {**row, **more, **{name: _merged(row[name], more[name]) for name in both}}
