"""What a judge with criteria is asked, and what is read of its answer. Pure.

The answer has to be one JSON object, the reason before the verdict: a score that is written before its reason is
justified by it, and not the other way round. Task and answers are JSON strings, which nothing in them can end.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from selfevo_contract.canonical import derive_seed
from selfevo_contract.spec.rubric import Pairwise, Rubric
from selfevo_trainer.inputs.criteria import Criterion, as_text

SCORES, PREFERRED = "scores", "preferences"
WORTH = {"A": 1.0, "B": -1.0, "tie": 0.0}
"""What the judge may prefer of two responses, and what that is worth to the first."""


def request(
    rubric: Rubric, criteria: Sequence[Criterion], task: str, answer: str, number: int, attempt: int
) -> dict[str, Any]:
    """The request for vote ``number`` on ``answer``. It depends on nothing but what it asks about."""
    shown = answer[: rubric.max_characters]
    form = {criterion.name: f"1 to {len(criterion.scale)}" for criterion in criteria}
    choices = {each.name: {"type": "integer", "minimum": 1, "maximum": len(each.scale)} for each in criteria}
    return {
        **_asked(rubric, rubric.system, as_text(criteria), task, {"Response": shown}, {"reason": "...", SCORES: form}),
        "seed": derive_seed(0, "verdict", task, shown, number, attempt),
        **_response_format(rubric, SCORES, choices),
    }


def comparison(
    rubric: Rubric,
    pairwise: Pairwise,
    criteria: Sequence[Criterion],
    task: str,
    answers: tuple[str, str],
    number: int,
    attempt: int,
) -> dict[str, Any]:
    """The request for vote ``number`` on which of two ``answers`` is better, in this order."""
    shown = {
        f"Response {letter}": text[: rubric.max_characters]
        for letter, text in zip(WORTH, answers, strict=False)  # the third is a tie
    }
    form = {criterion.name: " or ".join(WORTH) for criterion in criteria}
    choices = {each.name: {"type": "string", "enum": list(WORTH)} for each in criteria}
    return {
        **_asked(
            rubric, pairwise.system, as_text(criteria, numbered=False), task, shown, {"reason": "...", PREFERRED: form}
        ),
        "seed": derive_seed(0, "comparison", task, *shown.values(), number, attempt),
        **_response_format(rubric, PREFERRED, choices),
    }


def read_scores(text: str, criteria: Sequence[Criterion]) -> float | None:
    """The weighted mean of the choices in ``text``, in 0..1; None where it is not the JSON that was asked for."""

    def share(criterion: Criterion, choice: Any) -> float | None:
        if not isinstance(choice, int) or isinstance(choice, bool) or not 1 <= choice <= len(criterion.scale):
            return None
        return criterion.share(choice)

    return _weighted(text, SCORES, criteria, share)


def read_preference(text: str, criteria: Sequence[Criterion]) -> float | None:
    """The weighted mean of the preferences in ``text``: 1 for A, -1 for B, 0 for a tie; None where it is not the JSON
    that was asked for."""
    return _weighted(
        text,
        PREFERRED,
        criteria,
        lambda _, choice: WORTH.get(choice) if isinstance(choice, str) else None,
    )


def _weighted(
    text: str, name: str, criteria: Sequence[Criterion], value: Callable[[Criterion, Any], float | None]
) -> float | None:
    """The weighted mean of ``value`` of each criterion's choice, in the object ``name`` of ``text``."""
    try:
        verdict = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return None
    if not isinstance(verdict, dict) or list(verdict) != ["reason", name]:
        return None
    reason, choices = verdict["reason"], verdict[name]
    if not isinstance(reason, str) or not reason.strip() or not isinstance(choices, dict):
        return None
    if set(choices) != {criterion.name for criterion in criteria}:
        return None
    total = 0.0
    for criterion in criteria:
        found = value(criterion, choices[criterion.name])
        if found is None:
            return None
        total += criterion.weight * found
    return total / sum(criterion.weight for criterion in criteria)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a name is there twice")
    return dict(pairs)


def _asked(
    rubric: Rubric,
    system: str,
    criteria: str,
    task: str,
    answers: Mapping[str, str],
    form: Mapping[str, Any],
) -> dict[str, Any]:
    asked = [
        f"Criteria:\n{criteria}",
        *(f"{name}: {json.dumps(text, ensure_ascii=False)}" for name, text in {"Task": task, **answers}.items()),
        f"Answer in this form: {json.dumps(form, ensure_ascii=False)}",
    ]
    return {
        "model": rubric.model,
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": "\n\n".join(asked)}],
        "temperature": rubric.temperature,
        "max_tokens": rubric.max_completion_length,
    }


def _response_format(rubric: Rubric, name: str, choices: dict[str, Any]) -> dict[str, Any]:
    if rubric.response_format == "none":
        return {}
    if rubric.response_format == "json_object":
        return {"response_format": {"type": "json_object"}}
    schema = _object({"reason": {"type": "string"}, name: _object(choices)})
    return {
        "response_format": {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": schema}}
    }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
