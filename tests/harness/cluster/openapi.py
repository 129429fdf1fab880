"""The apiserver's own schemas as JSON schemas, one a kind, for kubeconform without a network."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.cluster.client import Api

LOCATION = "{{ .Group }}/{{ .ResourceKind }}_{{ .ResourceAPIVersion }}.json"
"""What kubeconform reads below the folder. For core's kinds its group is ``v1``."""
_REFERENCE = "#/components/schemas/"


def wait_for(api: Api, place: str, limit_s: float = 180.0) -> None:
    """Until the schemas of ``place`` (``apis/selfevo.dev/v1alpha1``) are there: those of CRDs come a little later."""
    deadline = time.monotonic() + limit_s
    while place not in _get(api, "/openapi/v3")["paths"]:
        assert time.monotonic() < deadline, f"no schemas of {place} after {limit_s} s"
        time.sleep(0.1)


def write_schemas(api: Api, folder: Path) -> list[tuple[str, str, str]]:
    """Writes the schemas of all kinds that the apiserver serves; returns their (group, version, kind)."""
    written = []
    for place, group in _get(api, "/openapi/v3")["paths"].items():
        if not place.startswith(("api/", "apis/")):
            continue
        document = _get(api, group["serverRelativeURL"])
        schemas = document.get("components", {}).get("schemas", {})
        definitions = {name: _strict(schema) for name, schema in schemas.items()}
        for name, schema in schemas.items():
            for found in schema.get("x-kubernetes-group-version-kind", []):
                if place not in (f"api/{found['version']}", f"apis/{found['group']}/{found['version']}"):
                    continue
                needed = _needed(name, definitions)
                text = {**definitions[name], "definitions": {one: definitions[one] for one in needed}}
                path = folder / (found["group"] or "v1") / f"{found['kind'].lower()}_{found['version']}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(text))
                written.append((found["group"], found["version"], found["kind"]))
    return written


def _get(api: Api, path: str) -> Any:
    found = api.request("GET", path)
    return json.loads(found) if isinstance(found, str) else found  # it does not always say that it is JSON


def _strict(schema: Any) -> Any:
    """Without defaults and Kubernetes' extensions; an object that lists its fields has no others."""
    strict = copy.deepcopy(schema)
    _walk(strict)
    return strict


def _walk(node: Any) -> None:
    if isinstance(node, list):
        for item in node:
            _walk(item)
        return
    if not isinstance(node, dict):
        return
    properties = node.get("properties")
    if isinstance(properties, dict) and not node.get("x-kubernetes-preserve-unknown-fields"):
        node.setdefault("additionalProperties", False)
    if node.get("x-kubernetes-int-or-string") or node.get("format") == "int-or-string":
        node.clear()
        node["type"] = ["string", "integer"]
        return
    if node.get("format") == "quantity" or node.get("oneOf") == [{"type": "string"}, {"type": "number"}]:
        node.clear()
        node["type"] = ["string", "number"]
        return
    if isinstance(node.get("$ref"), str):
        node["$ref"] = node["$ref"].replace(_REFERENCE, "#/definitions/")
    for name, child in node.items():
        if name == "properties":
            for below in child.values():
                _walk(below)
        else:
            _walk(child)


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"].removeprefix("#/definitions/")
        for child in node.values():
            yield from _references(child)
    elif isinstance(node, list):
        for child in node:
            yield from _references(child)


def _needed(name: str, definitions: dict[str, Any]) -> set[str]:
    """Names of all schemas that ``name`` leads to."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for reference in _references(definitions[waiting.pop()]):
            if reference not in found:
                found.add(reference)
                waiting.append(reference)
    return found
