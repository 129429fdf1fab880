"""JSON-lines data that a person names: held-out tasks and questions to exclude. Other columns are ignored."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from decimal import Context as Precision
from decimal import Decimal
from pathlib import Path

from selfevo_contract.errors import InputError
from selfevo_contract.phases import ChallengerTrainInputs, FinetuneInputs, SolverRolloutInputs
from selfevo_contract.rows import HeldOut
from selfevo_contract.spec.data import Data
from selfevo_store import open_store
from selfevo_trainer.contamination import HeldOutQuestions
from selfevo_trainer.context import Context, errors_named_after

ORACLE_FIELD = "spec.rollout.oracle.data"


def read_held_out(context: Context, data: Data, field: str) -> list[HeldOut]:
    """The rows of a task's ``data``, numbers as text with the digits that were written.

    Args:
        field: the spec's field that names it, for messages.

    Raises:
        InputError: it is not there, not JSON lines, lacks a column, is empty, or has another digest.
    """
    rows = read_columns(context, data, field, ("question", "answer"))
    return [HeldOut(question=question, answer=answer) for question, answer in rows]


def read_columns(
    context: Context, data: Data, field: str, columns: tuple[str, ...], optional: tuple[str, ...] = ()
) -> list[tuple[str, ...]]:
    """``columns`` of each row of ``data``, and the ``optional`` ones, empty where they are missing.

    Raises:
        InputError: as `read_held_out`.
    """
    raw = read_bytes(context, data, field)
    rows = [
        _row(line, number, field, data.uri, columns, optional)
        for number, line in enumerate(raw.splitlines(), 1)
        if line.strip()
    ]
    if not rows:
        raise InputError(f"{field}.uri is {data.uri!r}, which holds no rows; name a file with at least one")
    return rows


def read_bytes(context: Context, data: Data, field: str) -> bytes:
    """The file that ``data`` names.

    Raises:
        InputError: it is not there, or has another digest.
    """
    with context.clock.during("store"):
        raw = _read(context, data.uri, field)
    if data.digest is not None and hashlib.sha256(raw).hexdigest() != data.digest:
        raise InputError(
            f"{field}.digest is {data.digest[:12]}... and the file at {data.uri} has "
            f"{hashlib.sha256(raw).hexdigest()[:12]}...; correct the digest or restore the file"
        )
    return raw


def _read(context: Context, uri: str, field: str) -> bytes:
    if uri.startswith("file://"):
        try:
            return Path(uri.removeprefix("file://")).read_bytes()
        except OSError as error:
            raise InputError(f"{field}.uri is {uri!r}, which cannot be read: {error.strerror}; correct it") from None
    folder, _, name = uri.rpartition("/")
    storage = context.config.storage
    with errors_named_after(f"{field}.uri"):
        store = open_store(folder, endpoint=storage.endpoint, region=storage.region, require_conditional_put=False)
        if store.exists(name):
            return store.read_bytes(name)
    raise InputError(f"{field}.uri is {uri!r}, and there is no such object; correct it")


def _row(
    line: bytes, number: int, field: str, uri: str, columns: tuple[str, ...], optional: tuple[str, ...] = ()
) -> tuple[str, ...]:
    try:
        row = json.loads(line, parse_float=plain_number, parse_int=plain_number, parse_constant=_NoNumber)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        raise InputError(f"{field}.uri is {uri!r}, whose line {number} is not JSON; write one object a line") from None
    for column in columns:
        if not isinstance(row, dict) or column not in row:
            raise InputError(f"{field}.uri is {uri!r}, whose line {number} has no column {column!r}; add it")
        value = row[column]
        if isinstance(value, _NoNumber):
            raise InputError(
                f"{field}.uri is {uri!r}, whose line {number} holds {value.what}, which no answer equals; correct it"
            )
        if not isinstance(value, str) or not _is_text(value):
            raise InputError(
                f"{field}.uri is {uri!r}, whose line {number} has {json.dumps(value)[:40]} in column {column!r}; "
                "write a string or a number"
            )
    return (*(str(row[column]) for column in columns), *(_optional(row.get(column)) for column in optional))


def _optional(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, str) else ""


@dataclass(frozen=True)
class _NoNumber:
    """In place of a number that no answer equals: an error in a column that is read, and nothing elsewhere."""

    what: str


def plain_number(literal: str) -> str | _NoNumber:
    """A JSON number with the digits that were written, without an exponent: no float rounds it.

    >>> plain_number("0.00001"), plain_number("2.5e19"), plain_number("10000000000000000.0"), plain_number("1E-5")
    ('0.00001', '25000000000000000000', '10000000000000000.0', '0.00001')
    """
    mantissa, _, exponent = literal.lower().partition("e")
    if not exponent:
        return literal
    if len(literal) > 400 or len(exponent) > 4 or abs(int(exponent)) > 400:
        return _NoNumber(f"{literal[:40]}, a number with an exponent beyond 400")
    return format(Decimal(mantissa).scaleb(int(exponent), Precision(prec=1000)), "f")


def _is_text(value: str) -> bool:
    # Half of a surrogate pair, which JSON can spell and no tokenizer reads.
    return all(not "\ud800" <= character <= "\udfff" for character in value) and bool(value.strip())


def held_out_questions(
    context: Context, inputs: ChallengerTrainInputs | SolverRolloutInputs | FinetuneInputs
) -> HeldOutQuestions:
    """The questions that may not be asked: those of ``spec.exclude`` and of the tasks that scores are made of."""

    def read(data: Data, field: str) -> list[str]:
        return [question for (question,) in read_columns(context, data, field, ("question",))]

    exclude = [
        question for index, data in enumerate(inputs.exclude) for question in read(data, f"spec.exclude[{index}]")
    ]
    tasks = [read(data, f"spec.evaluation.tasks[{index}].data") for index, data in enumerate(inputs.held_out)]
    return HeldOutQuestions(tasks, exclude, inputs.contamination)
