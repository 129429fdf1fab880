"""What a judge with criteria is asked, and what is read of its answer. Pure.

The answer has to be one JSON object, the reason before the scores: a score that is written before its reason is
justified by it, and not the other way round. Task and answer are JSON strings, which nothing in them can end.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from selfevo_contract.canonical import derive_seed
from selfevo_contract.spec.rubric import Rubric
from selfevo_trainer.judges.criteria import Criterion, as_text


def request(
    rubric: Rubric, criteria: Sequence[Criterion], task: str, answer: str, number: int, attempt: int
) -> dict[str, Any]:
    """The request for vote ``number`` on ``answer``. It depends on nothing but what it asks about."""
    shown = answer[: rubric.max_characters]
    asked = "\n\n".join(
        [
            f"Criteria:\n{as_text(criteria)}",
            f"Task: {json.dumps(task, ensure_ascii=False)}",
            f"Response: {json.dumps(shown, ensure_ascii=False)}",
            f"Answer in this form: {json.dumps(_form(criteria), ensure_ascii=False)}",
        ]
    )
    return {
        "model": rubric.model,
        "messages": [{"role": "system", "content": rubric.system}, {"role": "user", "content": asked}],
        "temperature": rubric.temperature,
        "max_tokens": rubric.max_completion_length,
        "seed": derive_seed(0, "verdict", task, shown, number, attempt),
        **_response_format(rubric, criteria),
    }


def read_scores(text: str, criteria: Sequence[Criterion]) -> float | None:
    """The weighted mean of the choices in ``text``, in 0..1; None where it is not the JSON that was asked for."""
    try:
        verdict = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return None
    if not isinstance(verdict, dict) or list(verdict) != ["reason", "scores"]:
        return None
    reason, scores = verdict["reason"], verdict["scores"]
    if not isinstance(reason, str) or not reason.strip() or not isinstance(scores, dict):
        return None
    if set(scores) != {criterion.name for criterion in criteria}:
        return None
    total = 0.0
    for criterion in criteria:
        choice = scores[criterion.name]
        if not isinstance(choice, int) or isinstance(choice, bool) or not 1 <= choice <= len(criterion.scale):
            return None
        total += criterion.weight * criterion.share(choice)
    return total / sum(criterion.weight for criterion in criteria)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a name is there twice")
    return dict(pairs)


def _form(criteria: Sequence[Criterion]) -> dict[str, Any]:
    return {"reason": "...", "scores": {criterion.name: f"1 to {len(criterion.scale)}" for criterion in criteria}}


def _response_format(rubric: Rubric, criteria: Sequence[Criterion]) -> dict[str, Any]:
    if rubric.response_format == "none":
        return {}
    if rubric.response_format == "json_object":
        return {"response_format": {"type": "json_object"}}
    choices = {each.name: {"type": "integer", "minimum": 1, "maximum": len(each.scale)} for each in criteria}
    schema = _object({"reason": {"type": "string"}, "scores": _object(choices)})
    return {
        "response_format": {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": schema}}
    }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
