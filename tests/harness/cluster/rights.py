"""The operator's rights as they ship, held against what a whole run of the tests saw it use.

Granted and never used: too much. Denied: too little. Both are findings, one sentence each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness import chart
from harness.cluster.audit import BINDINGS, Access, read
from harness.cluster.operator_process import USER, manifests
from harness.gotools import ToolUnavailable

OPERATORS = (USER, f"system:serviceaccount:{chart.NAMESPACE}:{chart.RELEASE}")
"""The account of deploy/, and that of the chart."""
TESTS = "python-urllib3"
"""The tests' own client (harness/cluster/client.py), which sometimes asks with the operator's token: that is no use."""

Right = tuple[str, str, str]
"""Verb, group and resource."""
EXPLAINED: set[Right] = {("update", "selfevo.dev", "selfevolutionruns/finalizers")}
"""Granted, and in no log: nothing is written there. The API server asks for the right where owners that block a
deletion are named; test_the_right_on_finalizers_is_needed_where_owners_are_checked shows it."""


def rights(rules: Iterable[Mapping[str, Any]]) -> set[Right]:
    """Of the rules of a Role."""
    return {(v, g, r) for rule in rules for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]}


def granted() -> dict[str, set[Right]]:
    """What the operator may do, by who grants it. Without Helm, by deploy/ alone: a test holds the two equal."""
    shipped = {"deploy/rbac.yaml": manifests(), "deploy/rbac-namespaced.yaml": manifests("any")}
    try:
        for scope, everywhere in (("in namespaces", False), ("everywhere", True)):
            text = chart.template({"scope": {"allNamespaces": everywhere}})
            shipped[f"the chart {scope}"] = _of_operator(chart.manifests(text))
    except ToolUnavailable:
        pass
    return {
        place: set().union(*(rights(o["rules"]) for o in objects if o["kind"] in ("Role", "ClusterRole")))
        for place, objects in shipped.items()
    }


def _of_operator(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The Roles that are bound to the operator's account."""
    bound = {
        (o["roleRef"]["kind"], o["roleRef"]["name"])
        for o in objects
        if o["kind"] in ("RoleBinding", "ClusterRoleBinding")
        and any(subject["name"] == chart.RELEASE for subject in o["subjects"])
    }
    return [o for o in objects if (o["kind"], o["metadata"]["name"]) in bound]


def findings(granted: Mapping[str, set[Right]], planes: Iterable[Iterable[Access]]) -> list[str]:
    """What is wrong with these rights by what was asked of these control planes. Nothing asked is no finding."""
    used: set[Right] = set()
    denied: dict[str, None] = {}
    for accesses in planes:
        for access, provoked in _with_what_tests_took_away(accesses):
            if access.user not in OPERATORS or access.agent.startswith(TESTS):
                continue
            if not access.denied:
                used.add((access.verb, access.group, access.resource))
            elif not provoked:
                denied[_sentence(access)] = None
    if not used:
        return list(denied)
    unused = [
        f"{place} lets the operator {_words(right)}, and it never did; take the right away"
        for place, those in granted.items()
        for right in sorted(those - used - EXPLAINED)
    ]
    return [*unused, *denied]


def _with_what_tests_took_away(accesses: Iterable[Access]) -> Iterator[tuple[Access, bool]]:
    """Each access, and whether a test had taken rights away before it, where it was asked for, and not given them back.

    The namespace controller takes a namespace's RoleBindings before the namespace is gone. A log is in the order of the
    answers, and who takes a right away may get that answer after somebody else was denied.
    """
    taken: set[str] = set()
    for access in sorted(accesses, key=lambda access: access.received):
        if access.group and access.resource in BINDINGS:
            if access.verb in ("delete", "deletecollection"):
                taken.add(access.namespace)
            else:
                taken.discard(access.namespace)
        elif (access.verb, access.resource) == ("delete", "namespaces"):
            taken.add(access.name)
        yield access, bool(taken & {"", access.namespace})


def _words(right: Right) -> str:
    verb, group, resource = right
    return f"{verb} {resource}" + (f" of {group}" if group else "")


def _sentence(access: Access) -> str:
    where = f" in {access.namespace}" if access.namespace else ""
    right = _words((access.verb, access.group, access.resource))
    return f"{access.user} was denied to {right}{where}; grant it, or do not ask"


def of_session(folder: Path) -> list[str]:
    """What is wrong by the logs of a run of the tests, a folder for each control plane."""
    return findings(granted(), [read(plane) for plane in sorted(folder.iterdir()) if plane.is_dir()])
