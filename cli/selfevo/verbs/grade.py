"""`selfevo grade` and `selfevo vote`: why two answers are equal or not, and why a label came out as it did."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfevo_contract.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from selfevo_trainer.answers.values import Ruling


class Method(StrEnum):
    math_verify = "math-verify"
    exact = "exact"


MethodOption = Annotated[Method, typer.Option(help="The comparison, as in spec.grading.method.")]


def grade(
    answers: Annotated[
        list[str] | None, typer.Argument(metavar="A B", help="Two answers, as they stand in a box.", show_default=False)
    ] = None,
    pairs: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="A JSON list of objects with a, b and optionally method; - is standard input."
        ),
    ] = None,
    method: MethodOption = Method.math_verify,
) -> None:
    """Say whether two answers are equal, and by which rule."""
    answers = answers or []
    for answer in answers:
        if answer.startswith("--") and answer[2:3].isalpha():
            raise InputError(f"selfevo grade has no option {answer}; it takes two answers, --pairs FILE and --method")
    if pairs is None:
        if len(answers) != 2:
            raise InputError(
                f"{len(answers)} answers were given where two are compared; quote each, or give --pairs FILE"
            )
        [ruling] = decide([(answers[0], answers[1], method)])
        typer.echo(f"{'equal' if ruling.equal else 'different'}: {ruling.by}")
        return
    if answers:
        raise InputError(f"--pairs {pairs} and {len(answers)} answers were given; leave one of them out")
    for ruling in decide(_pairs(pairs, method)):
        typer.echo(json.dumps({"equal": ruling.equal, "by": ruling.by}))


def vote(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A JSON list of answers a line; - is standard input.")],
    method: MethodOption = Method.math_verify,
) -> None:
    """Say which answer wins each vote, with what share, and into which classes the answers fall."""
    from selfevo_trainer.answers.voting import vote_many

    ballots = []
    for number, line in enumerate(_read(file).splitlines(), 1):
        if not line.strip():
            continue
        where = f"{_name(file)} line {number}"
        answers = _json(line, where)
        if not isinstance(answers, list) or not answers:
            raise InputError(f"{where} is {line[:60]!r}; write one JSON list with at least one answer a line")
        ballots.append(
            [None if answer is None else _text(answer, f"{where} item {i}") for i, answer in enumerate(answers)]
        )
    with _grader(method) as grader:
        for outcome in vote_many(ballots, grader):
            classes = [{"answer": answer, "count": count} for answer, count in outcome.classes]
            result = {"answer": outcome.answer, "share": outcome.share, "classes": classes}
            typer.echo(json.dumps(result, ensure_ascii=False))


def decide(pairs: Sequence[tuple[str, str, Method]]) -> list[Ruling]:
    """The verdict on each pair by its own method, in order. No process starts where the rules suffice."""
    from dataclasses import replace

    from selfevo_trainer.answers.values import compare

    with _grader(Method.math_verify) as grader:
        symbolic = iter(grader.decide_many([(a, b) for a, b, method in pairs if method is Method.math_verify]))
    rulings = [next(symbolic) if method is Method.math_verify else compare(a, b) for a, b, method in pairs]
    return [replace(r, equal=False, by="forms differ") if r.equal is None else r for r in rulings]


def _grader(method: Method) -> Any:
    from selfevo_contract.spec.grading import Grading
    from selfevo_trainer.answers.grades import open_grader

    return open_grader(Grading(method=method.value))


def _pairs(file: str, default: Method) -> list[tuple[str, str, Method]]:
    name = _name(file)
    rows = _json(_read(file), name)
    if not isinstance(rows, list):
        raise InputError(f"{name} holds a JSON {type(rows).__name__}; write a list of objects with a and b")
    pairs = []
    for i, row in enumerate(rows):
        where = f"{name} item {i}"
        if not isinstance(row, dict) or "a" not in row or "b" not in row:
            raise InputError(f"{where} is {json.dumps(row)[:60]}; write an object with a and b")
        method = row.get("method", default.value)
        if method not in [each.value for each in Method]:
            raise InputError(f"{where} has method {json.dumps(method)[:60]}; write math-verify or exact")
        pairs.append((_text(row["a"], f"{where} field a"), _text(row["b"], f"{where} field b"), Method(method)))
    return pairs


def _json(text: str, where: str) -> Any:
    def refuse(constant: str) -> Any:
        raise InputError(f"{where} holds {constant}, which no answer equals; write the answer as text")

    # As written: no float rounds it.
    plain = str
    try:
        return json.loads(text, parse_float=plain, parse_int=plain, parse_constant=refuse)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{where} is no JSON: {error}") from error


def _text(answer: Any, where: str) -> str:
    if not isinstance(answer, str):
        raise InputError(f"{where} is {json.dumps(answer)[:60]}; an answer is text or a number")
    return answer


def _read(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text("utf-8")
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}; name a file, or - for standard input") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{_name(file)} is not UTF-8: {error.reason} at byte {error.start}") from error


def _name(file: str) -> str:
    return "standard input" if file == "-" else file
