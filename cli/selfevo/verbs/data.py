"""`selfevo data`: held-out data sets of the hub, made into files that a run reads. A run itself downloads none."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from selfevo.data import DATA_SETS
from selfevo.data.base import DataSet
from selfevo.data.prepared import SUFFIX, prepare, put, source_of, task_of
from selfevo.text import aligned, count
from selfevo_contract.errors import InputError
from selfevo_contract.uris import StoreUri


def list_data_sets(*, as_json: bool) -> None:
    """The registered data sets."""
    rows = [
        {
            "name": entry.name,
            "source": entry.repository,
            "split": entry.split,
            "answers": entry.answers,
            "group": entry.group,
        }
        for entry in DATA_SETS.values()
    ]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    print(*aligned([list(rows[0]), *(list(row.values()) for row in rows)]), sep="\n")


def prepare_data(
    name: str,
    to: str,
    *,
    revision: str,
    split: str | None,
    limit: int | None,
    endpoint: str | None,
    region: str | None,
) -> None:
    """Download, write, and say what to put into a manifest.

    Raises:
        InputError: there is no such data set, revision, split or place, or its rows are not what they were.
        ServiceError: the hub or the store does not answer.
    """
    from selfevo.data.hub import fetch

    entry = _entry(name)
    uri = _target(to)
    split = split or entry.split
    with tempfile.TemporaryDirectory(prefix="selfevo-data-") as cache:
        fetched = fetch(entry, revision=revision, split=split, limit=limit, cache=Path(cache))
    made = prepare(entry, fetched)
    fresh = put(uri, made, source_of(entry, fetched, split, made), endpoint=endpoint, region=region)
    said = f"{count(made.rows, 'question')} of {entry.repository} at {fetched.revision[:12]}"
    skipped = f"; {count(made.skipped, 'row')} without an answer left out" if made.skipped else ""
    print(f"# {'wrote' if fresh else 'found'} {said}, licence {fetched.licence}{skipped}")
    print("# for spec.evaluation.tasks:")
    print(task_of(entry, uri, made), end="")


def _entry(name: str) -> DataSet:
    if name not in DATA_SETS:
        raise InputError(f"there is no data set {name!r}; it must be one of {', '.join(DATA_SETS)}")
    return DATA_SETS[name]


def _target(to: str) -> str:
    """``to`` as a manifest has it: s3://, file:///, or a path from the current folder."""
    uri = to
    if "://" not in to:
        uri = f"file://{Path(to.removeprefix('file:')).expanduser().resolve()}"
    try:
        uri = TypeAdapter(StoreUri).validate_python(uri)
    except ValidationError as error:
        why = str(error.errors()[0].get("ctx", {}).get("error", "write it as s3://<bucket>/<key>, or as a path"))
        raise InputError(f"--to is {to!r}; {why}") from None
    folder, _, name = uri.rpartition("/")
    if not name.endswith(SUFFIX) or name == SUFFIX or folder in ("s3:/", "file://"):
        raise InputError(f"--to is {to!r}; name a file that ends with {SUFFIX} in a folder or a bucket")
    return uri
