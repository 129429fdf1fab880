"""Rows of a data set -> the JSON lines that a task names, and what is kept beside them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from selfevo.data.base import DataSet, Row
from selfevo.data.hub import Fetched
from selfevo_contract.errors import InputError

UNREADABLE = 0.01
"""The largest share of rows without a question or an answer of the data set's kind."""
SUFFIX = ".jsonl"


@dataclass(frozen=True)
class Prepared:
    """A task's file."""

    data: bytes
    """A row for each question: question, answer, answers, source, revision, licence."""
    rows: int
    skipped: int
    """Rows that had no question or no answer."""

    @property
    def digest(self) -> str:
        """sha256 of the file, as a task's data.digest takes it."""
        return hashlib.sha256(self.data).hexdigest()


def prepare(entry: DataSet, fetched: Fetched) -> Prepared:
    """The file of a data set's rows, the same bytes for the same commit.

    Raises:
        InputError: there are no rows, or more than UNREADABLE of them have no answer.
    """
    from selfevo_trainer.answers.kinds import truth_of

    lines: list[str] = []
    first: tuple[int, Row] | None = None
    for number, row in enumerate(fetched.rows):
        pair = entry.pair(row)
        answer = truth_of(entry.answers, pair[1]) if pair is not None else None
        if pair is None or answer is None:
            first = first or (number, row)
            continue
        lines.append(_line(entry, fetched, pair[0], answer))
    skipped = len(fetched.rows) - len(lines)
    where = f"{entry.repository} at {fetched.revision[:12]}"
    if first is not None and (not lines or skipped > UNREADABLE * len(fetched.rows)):
        shown = json.dumps({column: first[1][column] for column in entry.columns}, default=str)[:160]
        raise InputError(
            f"{skipped} of {len(fetched.rows)} rows of {where} have no question or no {entry.answers} answer, "
            f"the first of them row {first[0]}: {shown}; the data set has changed, name an earlier commit by --revision"
        )
    if not lines:
        raise InputError(f"{where} has no rows; choose another --split or a larger --limit")
    return Prepared("".join(lines).encode(), len(lines), skipped)


def _line(entry: DataSet, fetched: Fetched, question: str, answer: str) -> str:
    row = {
        "question": question,
        "answer": answer,
        "answers": entry.answers,
        "source": entry.repository,
        "revision": fetched.revision,
        "licence": fetched.licence,
    }
    # In ASCII, as every file of rows is: what UTF-8 cannot encode is an escape, and a line ends where it ends.
    return json.dumps(row) + "\n"


def source_of(entry: DataSet, fetched: Fetched, split: str, made: Prepared) -> dict[str, Any]:
    """Where the file comes from, for people: <name>.source.json."""
    return {
        "name": entry.name,
        "source": entry.repository,
        "config": entry.config,
        "split": split,
        "revision": fetched.revision,
        "licence": fetched.licence,
        "answers": entry.answers,
        "rows": made.rows,
        "skipped": made.skipped,
        "digest": made.digest,
    }


def task_of(entry: DataSet, uri: str, made: Prepared) -> str:
    """The task's lines for a manifest's spec.evaluation.tasks."""
    return (
        f"- name: {entry.name}\n"
        f"  data:\n    uri: {json.dumps(uri)}\n    digest: {made.digest}\n"
        f"  answers: {entry.answers}\n"
        f"  group: {entry.group}\n"
    )


def put(uri: str, made: Prepared, source: dict[str, Any], *, endpoint: str | None, region: str | None) -> bool:
    """Put the file at ``uri`` and <name>.source.json beside it; False when the same bytes were there already.

    Each appears whole or not at all. What a digest in a manifest may stand for is never replaced.

    Raises:
        InputError: another file is there, or the place cannot be written.
        ServiceError: the store does not answer.
    """
    from selfevo_store import open_store

    folder, _, name = uri.rpartition("/")
    if uri.startswith("file:"):
        folder = folder.replace("%", "%25")  # the store reads %41 as A; a run opens its data by the path as it stands
    try:
        store = open_store(folder, endpoint=endpoint, region=region, require_conditional_put=False)
    except ModuleNotFoundError as error:
        raise InputError(
            f"--to is {uri!r}, which needs the package {error.name}; pip install 'selfevo[trainer]'"
        ) from None
    there = store.exists(name)
    if there and store.digest_of(name).sha256 != made.digest:
        raise InputError(f"--to is {uri!r}, and another file is there; name a new one, or remove it")
    if not there:
        store.put_bytes(name, made.data)
    store.put_bytes(name.removesuffix(SUFFIX) + ".source.json", (json.dumps(source, indent=1) + "\n").encode())
    return not there
