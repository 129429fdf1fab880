"""The rows of every file that phases hand to each other and to the report (docs/data.md).

What people query is Parquet (``parquet``). What a phase keeps for itself, or what has fields by somebody else's
names, is JSON lines: one object a line, its fields in the order in which they stand here, in ASCII. Texts are a
model's, lone surrogates too, which UTF-8 cannot hold and pydantic's JSON parser refuses: lines are parsed by `json`.

A field of a newer version, which this one does not know, is no error. It stays with the row and is written again,
behind the fields that are known, so that a rollout that finishes a newer version's chunks loses nothing. The report
ignores it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError

from selfevo_contract import reasons
from selfevo_contract.artifacts import MANIFEST_NAME, Manifest
from selfevo_contract.errors import InputError
from selfevo_contract.parquet import read_table, write_table

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Votes = Annotated[tuple[Annotated[tuple[str, Count], Strict(False)], ...], Strict(False)]

_RAW = 2000
"""Characters of an invalid completion that are kept."""


class Row(BaseModel):
    """One line of a file. Frozen; types are not coerced; unknown fields stay with it."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow")

    left_out: ClassVar[frozenset[str]] = frozenset()
    """Fields that are not written while they have their default. All others always are, as null if need be."""

    def wire(self) -> dict[str, Any]:
        """The row as it is written."""
        fields = type(self).model_fields
        return {name: value for name, value in self if name not in self.left_out or value != fields[name].get_default()}


class Tally(Row):
    """How many answers of a model there are, and how many of them went wrong on their way to a verdict."""

    left_out = frozenset({"ill_formed"})

    answers: Count = 0
    unboxed: Count = 0
    """No answer in a box."""
    truncated: Count = 0
    """Cut at maxCompletionLength: by the reason for which generation ended, not by length."""
    timed_out: Count = 0
    """Comparisons over the time limit."""
    crashed: Count = 0
    """Comparisons whose worker died."""
    ill_formed: Count = 0
    """Answers in a box that rollout.wellFormed refuses a vote."""

    def __add__(self, other: Tally) -> Tally:
        return Tally(**{name: getattr(self, name) + getattr(other, name) for name in Tally.model_fields})

    def shares(self, prefix: str = "") -> dict[str, float]:
        """Each count but ``answers`` as a share of the answers; 0 without any."""
        wrong = [name for name in Tally.model_fields if name != "answers"]
        return {f"{prefix}{name}": getattr(self, name) / (self.answers or 1) for name in wrong}


class InvalidCompletion(Row):
    """A completion of the Challenger that is no valid question."""

    question: None = None
    """Always null: it distinguishes the two kinds of rows of questions.parquet."""
    raw: str = ""
    """The completion; of a long one its first 2000 characters."""

    @classmethod
    def of(cls, completion: str) -> InvalidCompletion:
        return cls(raw=completion[:_RAW])


class WrittenQuestion(Row):
    """A question of the Challenger that the Solver has not answered yet."""

    question: str
    proposed: str | None = None
    """The Challenger's own answer."""


class Question(Row):
    """A question of the Challenger with the Solver's answers, as a rollout's chunk has it."""

    left_out = frozenset({"too_long", "answers", "second", "second_share", "agrees"})

    question: str
    proposed: str | None = None
    """The Challenger's own answer."""
    too_long: bool = False
    """The prompt with it is longer than solver.maxPromptLength: it was not answered."""
    answers: Tally | None = None
    """Counts over its answers, rollout.samples of them; none when it was not answered. Time-outs and crashes of a whole
    chunk's comparisons stand with its first answered question."""
    majority: str | None = None
    """The answer of the largest class; null when no answer had a box."""
    share: Share
    """p: answers of the largest class over all answers, those without a box too."""
    votes: Votes = ()
    """Classes of equal answers, each with its number of answers."""
    truth: str | None = None
    """By rollout.oracle; null when that is not set, or the question is malformed."""
    second: str | None = None
    """With labels committee: the majority of the other Solver."""
    second_share: Share | None = None
    """With labels committee: its majority share."""
    agrees: bool | None = None
    """With labels committee: whether both majorities are there and equal."""

    def checked(self, dropped: str | None) -> CheckedQuestion:
        """With the result of the curriculum's checks."""
        return CheckedQuestion(**{**dict(self), "dropped": dropped})


class CheckedQuestion(Question):
    """A question as the whole rollout has it, when all chunks are there."""

    dropped: str | None = None
    """Why it is not in the curriculum (``curriculum.REASONS``); null when it passed all checks."""


class CurriculumRow(Row):
    """A question that the Solver is trained on."""

    left_out = frozenset({"replayed"})

    question: str
    answer: str
    """The label, by rollout.labels: majority, another question's majority, or truth."""
    share: Share
    """Of the majority."""
    truth: str | None = None
    replayed: bool = False
    """It comes from an earlier iteration's curriculum."""


class OracleRow(Row):
    """A question of the curriculum that an oracle was asked, with its verdict. Nothing is trained on it."""

    question: str
    label: str
    """The curriculum's answer."""
    answer: str | None = None
    """The oracle's: the answer on which more than half of its samples agree; null when there is none."""
    right: bool | None = None
    """Whether the label equals it; null when there is none."""
    votes: Votes = ()
    """Classes of its equal answers, each with its number of answers."""
    unboxed: Count = 0
    """Its answers without a box."""
    truncated: Count = 0
    """Its answers that were cut at maxCompletionLength."""
    tokens_read: Count = 0
    """Of the prompts of all its answers, as the server counts them; 0 where it does not."""
    tokens_written: Count = 0
    """Of all its answers, likewise."""


class HeldOut(Row):
    """A question of an evaluation's task."""

    question: str
    answer: str
    """The true answer."""


class ScoreRow(HeldOut):
    """A held-out question with the evaluated model's answers."""

    left_out = frozenset({"answers", "majority", "majority_right", "votes"})

    greedy: str
    """The greedy completion's first 4000 characters."""
    greedy_right: bool
    samples_right: Count
    """Of the task's sampled answers."""
    answers: Tally | None = None
    """Counts over the sampled answers. Time-outs and crashes of a whole task's comparisons stand with its first row."""
    mean_tokens: Annotated[float, Field(ge=0)]
    """Mean length of a sampled answer in tokens, the end token included."""
    majority: str | None = None
    """The answer of the largest class of equal sampled answers; null when none had a box."""
    majority_right: bool | None = None
    """Whether that answer is right; false when there is none, null when it is unknown."""
    votes: Votes = ()
    """Classes of equal sampled answers, each with its number of answers, in the order first seen."""


class TextRow(Row):
    """An answer of a model as it stands, of a rollout or an evaluation."""

    number: Count
    """Of the question: its row in questions.parquet, or in the task's data, from 0."""
    sample: Count | None = None
    """Which of the question's sampled answers, from 0; null for the greedy one."""
    question: str
    text: str
    """The whole answer."""
    answer: str | None = None
    """What stands in its last box; null without one."""
    vote: Count | None = None
    """Which of the question's ``votes`` it is one of, from 0; null without a box, when rollout.wellFormed refuses
    it, and for a greedy answer."""
    right: bool | None = None
    """Whether the answer is the true one; null in a rollout."""
    tokens: Count
    """Generated tokens, the end token included."""
    truncated: bool
    """It was cut at maxCompletionLength."""


class UpdateRow(Row):
    """One optimizer update of a training: TRL's metrics by TRL's names, then where it stands."""

    step: Annotated[int, Field(ge=1)]
    """The step that it belongs to, from 1."""
    update: Annotated[int, Field(ge=1)]
    """Its number in the phase, from 1."""

    @property
    def metrics(self) -> dict[str, float]:
        """TRL's numbers. What is measured once a step stands in the row of its first update."""
        return {name: value for name, value in (self.model_extra or {}).items() if isinstance(value, int | float)}

    def wire(self) -> dict[str, Any]:
        return {**(self.model_extra or {}), "step": self.step, "update": self.update}


R = TypeVar("R", bound=Row)


@dataclass(frozen=True)
class RowFile(Generic[R]):
    """A file of rows."""

    name: str
    """In the committed directory; Parquet when it ends so, else JSON lines."""
    types: tuple[type[R], ...]
    """What its rows are. Of two the second has no question, by which its type is known."""

    @property
    def is_table(self) -> bool:
        """Whether it is Parquet."""
        return self.name.endswith(TABLE)

    @property
    def lines(self) -> RowFile[R]:
        """The same rows as JSON lines, as versions wrote them that had no Parquet."""
        return replace(self, name=self.name.removesuffix(TABLE) + ".jsonl") if self.is_table else self

    def as_in(self, manifest: Manifest) -> RowFile[R] | None:
        """The table or its lines, whichever ``manifest`` has; None when it has neither."""
        return next((file for file in (self, self.lines) if manifest.file(file.name) is not None), None)

    def type_of(self, row: Mapping[str, Any]) -> type[R]:
        """Which type ``row`` has."""
        return self.types[-1 if len(self.types) > 1 and row.get("question") is None else 0]

    def write(self, folder: Path, rows: Iterable[R]) -> dict[str, Path]:
        """Write ``rows``, in order, below ``folder``: name -> path, as a commit wants it."""
        path = folder / self.name
        return {self.name: write_table(path, self.types, rows) if self.is_table else write_rows(path, rows)}


TABLE = ".parquet"
WRITTEN = RowFile[WrittenQuestion | InvalidCompletion]("questions.jsonl", (WrittenQuestion, InvalidCompletion))
"""Of a rollout's chunk ``questions``: a row for each completion of the Challenger, in order."""
ANSWERED = RowFile[Question | InvalidCompletion]("questions.jsonl", (Question, InvalidCompletion))
"""Of a rollout's chunk ``answers``: the same rows, questions with the Solver's answers."""
QUESTIONS = RowFile[CheckedQuestion | InvalidCompletion]("questions.parquet", (CheckedQuestion, InvalidCompletion))
"""Of a rollout: its chunks' rows, in order. Of a failed training: some completions, all invalid."""
CURRICULUM = RowFile[CurriculumRow]("curriculum.parquet", (CurriculumRow,))
"""Of a rollout: what solver-train reads."""
POOL = RowFile[CurriculumRow]("pool.parquet", (CurriculumRow,))
"""Of a rollout with rollout.replay: the newest questions of its own and earlier curricula, from which the next rollout
replays."""
ORACLE = RowFile[OracleRow]("oracle.parquet", (OracleRow,))
"""Of a rollout with an oracle that is asked: a row for each question of its sample."""
TEXTS = RowFile[TextRow]("texts.parquet", (TextRow,))
"""Of a rollout, and of chunks ``answers``: the answers that storage.keepAnswers keeps, by question and sample."""
SCORED = RowFile[ScoreRow]("scores.jsonl", (ScoreRow,))
"""Of an evaluation's chunk ``answers``: a row for each question, counted through all tasks in their order."""
METRICS = RowFile[UpdateRow]("metrics.jsonl", (UpdateRow,))
"""Of a training: a row for each optimizer update, in order."""


def answers_of(task: str) -> RowFile[ScoreRow]:
    """Of an evaluation: a row for each question of ``task``, in the order of its data."""
    return RowFile[ScoreRow](f"answers/{task}.parquet", (ScoreRow,))


def texts_of(task: str) -> RowFile[TextRow]:
    """Of an evaluation: the answers to each question of ``task``, the greedy one first."""
    return RowFile[TextRow](f"texts/{task}.parquet", (TextRow,))


def write_rows(path: Path, rows: Iterable[Row]) -> Path:
    """JSON lines: one object a line, in order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="ascii") as file:
        for row in rows:
            file.write(_ENCODE(row.wire()) + "\n")
    return path


def _nested(value: Any) -> Any:
    if isinstance(value, Row):
        return value.wire()
    raise TypeError(f"a row holds {value!r:.80}, which JSON has no form for")


_ENCODE = json.JSONEncoder(default=_nested).encode
"""Kept: `json.dumps` with a ``default`` makes an encoder for each row."""


def read_rows(data: bytes, file: RowFile[R], where: str) -> list[R]:
    """What was written as ``file``, by this version or another.

    Args:
        data: the content of ``file``.
        where: the committed directory, for messages.

    Raises:
        InputError: it is no Parquet, a line is no object, or a row lacks a field or has a wrong value in one.
    """
    where = f"{where}: file {file.name!r}"
    if not file.is_table:
        return [
            _read(line, file, f"{where}, line {number}")
            for number, line in enumerate(data.splitlines(), 1)
            if line.strip()
        ]
    try:
        rows = list(read_table(data))
    except (ValueError, RecursionError):
        raise _damaged(f"{where} is no Parquet that selfevo wrote") from None
    return [_row(value, file, f"{where}, row {number}") for number, value in enumerate(rows, 1)]


def _read(line: bytes, file: RowFile[R], where: str) -> R:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise _damaged(f"{where} is not JSON") from None
    if not isinstance(value, dict):
        raise _damaged(f"{where} is {_short(value)}, which is no object")
    return _row(value, file, where)


def _row(value: dict[str, Any], file: RowFile[R], where: str) -> R:
    kind = file.type_of(value)
    if file.is_table:  # a column that only another type or version has is null
        value = {name: cell for name, cell in value.items() if cell is not None or name in kind.model_fields}
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
    field = ".".join(map(str, problem["loc"]))
    if problem["type"] == "missing":
        raise _damaged(f"{where} has no field {field!r}")
    what = problem["msg"].removeprefix("Input ")
    raise _damaged(f"{where} has {_short(problem['input'])} in the field {field!r}, which {what}")


def _short(value: Any) -> str:
    return json.dumps(value, default=repr)[:60]


def _damaged(what: str) -> InputError:
    return InputError(
        f"{what}, though the file's digest is right; remove {MANIFEST_NAME} there to have it made again",
        reason=reasons.CORRUPT_ARTIFACT,
    )
