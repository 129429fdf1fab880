"""A rule that says the same of several fields of an object. Pure.

An API server evaluates every rule of a run at each write of it, of its status too (docs/lab-notes.md): fewer rules
make every write cheaper.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]


def of_fields(conditions: Mapping[str, str], sentence: str, unless: str = "") -> Schema:
    """An entry of x-kubernetes-validations: every condition holds.

    Args:
        conditions: the field -> CEL over ``self`` and ``oldSelf``, without strings in it.
        sentence: the message about the first field whose condition does not hold, behind its name.
        unless: CEL; where it is true, nothing is asked of the fields.
    """
    *others, last = conditions
    rule = " && ".join(conditions.values())
    if unless:
        rule = f"({rule}) || {unless}" if others else f"{rule} || {unless}"
    if not others:
        return {"rule": rule, "message": f"{last} {sentence}", "fieldPath": f".{last}"}
    named = f"'{last}'"
    for name in reversed(others):
        named = f"({conditions[name]} ? {named} : '{name}')"
    return {"rule": rule, "messageExpression": f"{named} + ' {sentence}'"}


def messages_of(rule: Mapping[str, Any]) -> list[str]:
    """Each sentence by which ``rule``, an entry of x-kubernetes-validations, may refuse something.

    >>> messages_of(of_fields({"a": "!has(self.a)", "b": "!has(self.b)"}, "is too much; remove it"))
    ['a is too much; remove it', 'b is too much; remove it']
    """
    expression = rule.get("messageExpression")
    if expression is None:
        return [rule["message"]]
    named, _, sentence = expression.partition(" + ' ")
    innermost, *others = re.findall(r"'(\w+)'", named)
    return [f"{name} {sentence[:-1]}" for name in (*reversed(others), innermost)]
