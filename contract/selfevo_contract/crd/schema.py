"""A model as the structural schema of a CRD: what `kubectl explain` shows and the API server checks. Pure.

Differences to pydantic's own JSON schema, each asked for by Kubernetes: no ``$ref``, no ``anyOf`` with types, the
members of a union laid over each other, a default on every level down to the first list, and rules in CEL.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from selfevo_contract.base import Closed
from selfevo_contract.crd.of_fields import of_fields
from selfevo_contract.rules import IntOrString, Keyed, Rule, of_kinds

Schema = dict[str, Any]

_SCALARS: dict[type, Schema] = {
    bool: {"type": "boolean"},
    int: {"type": "integer", "format": "int64"},
    float: {"type": "number", "format": "double"},
    str: {"type": "string"},
}


def schema_of(model: type[BaseModel], *, checked: bool = True) -> Schema:
    """The schema of ``model``, without a description of its own.

    Args:
        checked: With bounds, choices, defaults and rules. The status has none of them: the operator alone writes it,
            and an update that is refused for a choice too new for the installed CRD would stop a run.
    """
    properties = {_alias(name, field): _property(field, checked) for name, field in model.model_fields.items()}
    required = [_alias(name, field) for name, field in model.model_fields.items() if field.is_required()]
    schema: Schema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required
    if checked and issubclass(model, Closed) and model.rules:
        schema["x-kubernetes-validations"] = [validation(rule) for rule in model.rules]
    return schema


def validation(rule: Rule) -> Schema:
    """A rule as an entry of x-kubernetes-validations."""
    return {"rule": rule.cel, "message": rule.message}


def _alias(name: str, field: FieldInfo) -> str:
    return field.alias or name


def _property(field: FieldInfo, checked: bool) -> Schema:
    schema = {"description": _text(field.description)}
    schema |= _type(field.annotation, field.metadata, checked)
    if checked and not field.is_required():
        default = _default(field)
        if default is not None:
            schema["default"] = default
    return schema


def _type(annotation: Any, metadata: Iterable[Any], checked: bool) -> Schema:
    annotation, metadata = _unwrap(annotation, metadata)
    schema = _bare_type(annotation, metadata, checked)
    if checked:
        for item in metadata:
            _constrain(schema, item)
    return schema


def _unwrap(annotation: Any, metadata: Iterable[Any]) -> tuple[Any, list[Any]]:
    """The annotation without Annotated and ``| None``, and all that stood beside it."""
    found = list(metadata)
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *more = get_args(annotation)
            found = [*_flat(more), *found]
        elif get_origin(annotation) in (Union, types.UnionType) and type(None) in get_args(annotation):
            rest = [arg for arg in get_args(annotation) if arg is not type(None)]
            annotation = Union[tuple(rest)]  # noqa: UP007 - the members are known at run time only
        else:
            return annotation, found


def _flat(metadata: Iterable[Any]) -> Iterator[Any]:
    for item in metadata:
        yield from item.metadata if isinstance(item, FieldInfo) else [item]


def _bare_type(annotation: Any, metadata: list[Any], checked: bool) -> Schema:
    if annotation in _SCALARS:
        return dict(_SCALARS[annotation])
    origin, args = get_origin(annotation), get_args(annotation)
    if any(isinstance(item, IntOrString) for item in metadata):
        return {"x-kubernetes-int-or-string": True}
    if origin is Literal:
        return {"type": "string", "enum": list(args)} if checked else {"type": "string"}
    if origin is list:
        items = _type(args[0], [], checked)
        _drop_defaults(items)
        if items["type"] == "object":
            kinds = items["properties"].get("kind", {}).get("enum", []) if _is_union(args[0]) else []
            about = f"One of these kinds: {', '.join(kinds)}." if kinds else _about(args[0])
            items = {"description": about, **items}
        return {"type": "array", "items": items}
    if origin is dict:
        return _mapping(args[0], args[1], checked)
    if origin in (Union, types.UnionType):
        return _union(args)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return schema_of(annotation, checked=checked)
    raise TypeError(f"{annotation!r} has no place in a CRD")


def _is_union(annotation: Any) -> bool:
    return get_origin(_unwrap(annotation, [])[0]) in (Union, types.UnionType)


def _drop_defaults(schema: Schema) -> None:
    """Takes every default out of a list's items, in place.

    `kubectl apply` compares a list as a whole: one that is stored with a default that the manifest does not have
    differs from it for ever, and every apply says "configured". Who reads a run fills in the models' own defaults.
    """
    schema.pop("default", None)
    within = [schema[name] for name in ("items", "additionalProperties") if name in schema]
    for field in (*within, *schema.get("properties", {}).values()):
        _drop_defaults(field)


def _mapping(key: Any, value: Any, checked: bool) -> Schema:
    values = _type(value, [], checked)
    if "properties" in values:
        values = {"description": _about(value), **values}
    schema: Schema = {"type": "object", "additionalProperties": values}
    names = _unwrap(key, [])[1] if checked else []
    # A schema has no place for a pattern of names.
    rules = [validation(item) for item in names if isinstance(item, Rule)]
    for rule in rules:
        rule["rule"] = f"self.all(name, {rule['rule'].replace('self.', 'name.')})"
    if rules:
        schema["x-kubernetes-validations"] = rules
    return schema


def _union(members: tuple[type[Closed], ...]) -> Schema:
    """A union discriminated by ``kind``: the fields of all, and rules that keep each to its kinds.

    Kinds may share a field: its schema is then the same in all of them, and its description stands once for each.
    """
    properties: Schema = {}
    kinds_of: dict[str, list[str]] = {}
    kinds: list[str] = []
    own_rules = []
    for member in members:
        fields = schema_of(member)["properties"]
        (kind,) = fields.pop("kind")["enum"]
        kinds.append(kind)
        for name, field in fields.items():
            _drop_defaults(field)  # they would be set on the other kinds too
            about = f"Of kind {kind}. {field.pop('description')}"
            if name in properties:
                shared = {key: value for key, value in properties[name].items() if key != "description"}
                assert shared == field, f"two kinds have a field {name}, each another one"
                about = f"{properties[name]['description']} {about}"
            properties[name] = {"description": about, **field}
            kinds_of.setdefault(name, []).append(kind)
        for rule in member.rules:
            own_rules.append({"rule": f"({rule.cel}) || self.kind != '{kind}'", "message": rule.message})
    rules = [*_of_their_kinds(kinds_of), *own_rules]
    about = " ".join(f"{kind}: {_about(member)}" for kind, member in zip(kinds, members, strict=True))
    kind_schema = {"description": f"Which one. {about}", "type": "string", "enum": kinds}
    schema = {"type": "object", "properties": {"kind": kind_schema, **properties}, "required": ["kind"]}
    return {**schema, "x-kubernetes-validations": rules} if rules else schema


def _of_their_kinds(kinds_of: dict[str, list[str]]) -> Iterator[Schema]:
    """The rules that other kinds do not have the fields, by name, of some: one for all fields of the same kinds."""
    names_of: dict[tuple[str, ...], list[str]] = {}
    for name, kinds in kinds_of.items():
        names_of.setdefault(tuple(kinds), []).append(name)
    for its, names in names_of.items():
        is_one = " || ".join(f"self.kind == '{kind}'" for kind in its)
        yield of_fields({name: f"!has(self.{name})" for name in names}, of_kinds(its), unless=is_one)


def _about(model: Any) -> str:
    return _text(_unwrap(model, [])[0].__doc__)


def _text(docstring: str | None) -> str:
    return " ".join((docstring or "").replace("``", "`").split())


def _constrain(schema: Schema, item: Any) -> None:
    length = {"string": "Length", "array": "Items", "object": "Properties"}.get(schema.get("type", ""), "")
    match item:
        case annotated_types.Ge():
            schema["minimum"] = item.ge
        case annotated_types.Gt():
            schema["minimum"], schema["exclusiveMinimum"] = item.gt, True
        case annotated_types.Le():
            schema["maximum"] = item.le
        case annotated_types.Lt():
            schema["maximum"], schema["exclusiveMaximum"] = item.lt, True
        case annotated_types.MinLen():
            schema[f"min{length}"] = item.min_length
        case annotated_types.MaxLen():
            schema[f"max{length}"] = item.max_length
        case Rule():
            schema.setdefault("x-kubernetes-validations", []).append(validation(item))
        case IntOrString():
            schema["maxLength"] = item.max_length
            schema["x-kubernetes-validations"] = [{"rule": item.cel, "message": item.message}]
        case Keyed(key=""):
            schema["x-kubernetes-list-type"] = "set"
        case Keyed():
            schema |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [item.key]}
        case BeforeValidator():
            pass  # 3.0 for 3 and nulls: the API server does the same by itself
        case _:
            if getattr(item, "discriminator", None) is None:
                raise TypeError(f"{item!r} has no form in the API server's schema")


def _default(field: FieldInfo) -> Any:
    """What the API server sets where the field is missing; None where that says nothing.

    It goes on to set the defaults within what it set, so a default holds only what differs from those, and what the
    rules read: they are checked on the default as it stands.
    """
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        if _is_empty(value):
            return None
        is_member = isinstance(_unwrap(field.annotation, [])[0], types.UnionType) or len(get_args(field.annotation)) > 1
        return {"kind": value.kind} if is_member else _beyond_own_defaults(value)  # type: ignore[attr-defined]
    return None if _is_empty(value) else value


def _is_empty(value: Any) -> bool:
    if isinstance(value, BaseModel):
        return all(_is_empty(getattr(value, name)) for name in type(value).model_fields)
    return value in (None, [], {})


def _beyond_own_defaults(value: BaseModel) -> Schema:
    rules = " ".join(rule.cel for rule in getattr(value, "rules", ()))
    default = {}
    for name, field in type(value).model_fields.items():
        given, alias = getattr(value, name), _alias(name, field)
        in_rules = given is not None and f"self.{alias}" in rules
        if in_rules or field.is_required() or given != field.get_default(call_default_factory=True):
            default[alias] = given.wire() if isinstance(given, Closed) else given
    return default
