"""`selfevo data`: held-out data sets of the hub, made into files that a run reads. A run itself downloads none."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from selfevo_contract.errors import InputError
from selfevo_contract.uris import StoreUri

if TYPE_CHECKING:
    from selfevo.data.base import DataSet

data = typer.Typer(help="Held-out data sets of the hub.", no_args_is_help=True, rich_markup_mode=None)


@data.command("ls")
def list_data_sets() -> None:
    """List the data sets that can be prepared."""
    from selfevo.data import DATA_SETS
    from selfevo.text import aligned

    rows = [
        [entry.name, entry.repository, entry.split, f"{entry.questions:,}", entry.answers, entry.group]
        for entry in DATA_SETS.values()
    ]
    head = ["name", "data set", "split", "questions", "answers", "group"]
    print(*aligned([head, *rows], right=(3,)), sep="\n")


@data.command("prepare")
def prepare_data(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which one; `selfevo data ls` lists them.")],
    to: Annotated[
        str,
        typer.Option(metavar="URI", help="The .jsonl file to write: s3://<bucket>/<key>, file:///<path>, or a path."),
    ],
    revision: Annotated[str, typer.Option(metavar="R", help="A branch, a tag or a commit of the data set.")] = "main",
    split: Annotated[
        str | None, typer.Option(metavar="S", help="Another split than the one that scores are published on.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="The first N rows only.")] = None,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="Of an S3-compatible store, as in spec.storage.endpoint.")
    ] = None,
    region: Annotated[str | None, typer.Option(metavar="NAME", help="Of the bucket.")] = None,
) -> None:
    """Download a held-out data set, write it as a task's file, and print the task for a manifest."""
    from selfevo.data.hub import fetch
    from selfevo.data.prepared import prepare, put, source_of, task_of
    from selfevo.text import count

    entry, uri = _entry(name), _target(to)
    split = split or entry.split
    with tempfile.TemporaryDirectory(prefix="selfevo-data-") as cache:
        fetched = fetch(entry, revision=revision, split=split, limit=limit, cache=Path(cache))
    made = prepare(entry, fetched)
    fresh = put(uri, made, source_of(entry, fetched, split, made), endpoint=endpoint, region=region)
    content = f"{count(made.rows, 'question')} of {entry.repository} at {fetched.revision[:12]}"
    skipped = f"; {count(made.skipped, 'row')} without an answer left out" if made.skipped else ""
    print(f"# {'wrote' if fresh else 'found'} {content}, licence {fetched.licence}{skipped}")
    if limit is None and split == entry.split and made.rows != entry.questions:
        print(f"# note: scores are published on {count(entry.questions, 'question')}")
    print("# for spec.evaluation.tasks:")
    print(task_of(entry, uri, made), end="")


def _entry(name: str) -> DataSet:
    from selfevo.data import DATA_SETS

    if name not in DATA_SETS:
        raise InputError(f"there is no data set {name!r}; it must be one of {', '.join(DATA_SETS)}")
    return DATA_SETS[name]


def _target(to: str) -> str:
    """``to`` as a manifest has it: s3://, file:///, or a path from the current folder."""
    from selfevo.data.prepared import SUFFIX

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
