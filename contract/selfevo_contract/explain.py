"""A pydantic ValidationError as sentences: each names the field, the value and the remedy."""

from __future__ import annotations

import difflib
import json
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from selfevo_contract.rules import of_kinds

_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "string": "a string; put it in quotes",
    "bool": "true or false",
    "list": "a list",
    "dict": "a mapping",
    "model": "a mapping",
}


def explain(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One sentence for each thing that is wrong, in the order of the document's fields."""
    return [_sentence(detail, model) for detail in error.errors(include_url=False)]


def _sentence(detail: ErrorDetails, model: type[BaseModel]) -> str:
    path = _path(_without_tags(detail["loc"], model))
    kind, value, context = detail["type"], detail.get("input"), detail.get("ctx", {})
    shown = _shown(value)
    if kind == "extra_forbidden":
        if kinds := _kinds_with(detail["loc"], model):
            return f"{path} {of_kinds(kinds)}"
        return f"{path} is not a field; {_suggestion(detail['loc'], model)}"
    if kind == "missing":
        return f"{path} is missing; add it"
    if kind.endswith(("_type", "_parsing")):
        wanted = _TYPES.get(kind.rsplit("_", 1)[0], detail["msg"].lower())
        return f"{path} is {shown}; it must be {wanted}"
    if kind in ("greater_than_equal", "less_than_equal", "greater_than", "less_than"):
        bound = next(iter(context.values()))
        words = {
            "greater_than_equal": "at least",
            "less_than_equal": "at most",
            "greater_than": "above",
            "less_than": "below",
        }[kind]
        return f"{path} is {shown}; it must be {words} {bound}"
    if kind == "literal_error":
        return f"{path} is {shown}; choose {context['expected']}"
    if kind == "union_tag_invalid":
        tag = str(context["discriminator"]).strip("'")
        return f"{path}.{tag} is {context['tag']!r}; choose one of {context['expected_tags']}"
    if kind == "union_tag_not_found":
        return f"{path} has no {context['discriminator']}; add it"
    if kind == "string_pattern_mismatch":
        return f"{path} is {shown}; it must match {context['pattern']}"
    if kind == "value_error":
        message = str(context.get("error", detail["msg"]))
        return f"{path} is {shown}; {message}" if isinstance(value, str | int | float) else f"{path}: {message}"
    return f"{path} is {shown}; {detail['msg'][:1].lower()}{detail['msg'][1:]}"


def _path(loc: tuple[int | str, ...]) -> str:
    text = ""
    if loc and loc[-1] == "[key]":  # pydantic puts it behind a mapping's key that is wrong; the sentence has the key
        loc = loc[:-2]
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "the document"


def _without_tags(loc: tuple[int | str, ...], model: type[BaseModel]) -> tuple[int | str, ...]:
    """``loc`` as the document has it: pydantic puts a union's tag between ``engine`` and ``batchSize``."""
    kept: list[int | str] = []
    found = [model]
    for part in loc:
        if len(found) > 1 and (tagged := [one for one in found if part in _tags(one)]):
            found = tagged
            continue
        kept.append(part)
        if isinstance(part, str):
            fields = [f for one in found for name, f in one.model_fields.items() if (f.alias or name) == part]
            found = _models_in(fields[0].annotation) if fields else []
    return tuple(kept)


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    tags = [get_args(model.model_fields[name].annotation) for name in ("kind", "phase") if name in model.model_fields]
    return tags[0] if tags else ()


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def _suggestion(loc: tuple[int | str, ...], model: type[BaseModel]) -> str:
    fields = _fields_at(loc[:-1], model)
    near = difflib.get_close_matches(str(loc[-1]), fields, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"remove it, or use one of: {', '.join(sorted(fields))}" if fields else "remove it"


def _kinds_with(loc: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    """The kinds that have the field at ``loc``, where that stands in a union and its own kind has none."""
    found = [model]
    for part in loc[:-1]:
        if len(found) > 1 and any(part in _tags(one) for one in found):
            continue
        fields = [f for one in found for name, f in one.model_fields.items() if (f.alias or name) == part]
        found = _models_in(fields[0].annotation) if fields else found
    having = [one for one in found if loc[-1] in {field.alias or name for name, field in one.model_fields.items()}]
    return [str(_tags(one)[0]) for one in having] if len(found) > 1 else []


def _fields_at(loc: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    found: list[type[BaseModel]] = [model]
    for part in loc:
        if len(found) > 1 and (tagged := [one for one in found if part in _tags(one)]):
            found = tagged
        elif isinstance(part, str):
            fields = {f.alias or name: f for one in found for name, f in one.model_fields.items()}
            found = _models_in(fields[part].annotation) if part in fields else found
    return [field.alias or name for one in found for name, field in one.model_fields.items()]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for arg in get_args(annotation) for model in _models_in(arg)]
