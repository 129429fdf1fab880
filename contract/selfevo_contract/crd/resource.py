"""The CustomResourceDefinition of SelfEvolutionRun, made from the models.

`python -m selfevo_contract.crd` writes crds/selfevo.dev_selfevolutionruns.yaml; a test holds the two equal.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from selfevo_contract.crd.schema import Schema, schema_of
from selfevo_contract.crd.transitions import hold_still, keep_to_what_is_built
from selfevo_contract.phases import PHASES
from selfevo_contract.run import API_VERSION, KIND, SelfEvolutionRun
from selfevo_contract.spec.run import RunSpec
from selfevo_contract.status import RunStatus

GROUP, VERSION = API_VERSION.split("/")
PLURAL = "selfevolutionruns"
FILE = f"crds/{GROUP}_{PLURAL}.yaml"

_HEADER = """\
# Made by `python -m selfevo_contract.crd` from the models in contract/; a test holds the two equal.
# yamllint disable rule:line-length
"""

_STATUS_KEYS = {"conditions": "type", "steps": "name", "attempts": "name", "iterations": "iteration", "guards": "name"}
"""What the items of the status' lists differ in, so that several writers can share a list."""

_READY = '.status.conditions[?(@.type=="Ready")]'
_PROGRESS = '.status.steps[?(@.state=="Running")].progress.percent'
_COLUMNS = (
    # name, type, path, only with -o wide, description
    ("Phase", "string", ".status.phase", False, "Pending, Running, Suspended, Succeeded or Failed."),
    ("Iteration", "integer", ".status.iteration", False, "The iteration being worked on."),
    ("Best", "integer", ".status.best.iteration", False, "The iteration whose Solver is the best so far."),
    ("Score", "number", ".status.best.score", False, "The score of the best Solver."),
    ("Queue", "string", ".spec.queue", False, "The Kueue LocalQueue."),
    ("Age", "date", ".metadata.creationTimestamp", False, "When the run was created."),
    ("Reason", "string", f"{_READY}.reason", True, "Why it is ready, or is not."),
    ("Message", "string", f"{_READY}.message", True, "The same in a sentence."),
    ("Progress", "integer", _PROGRESS, True, "Per cent of the running step that are done, where it is known."),
    ("Guards", "string", ".status.watch", True, "What the guards say: passing, or which have warned or tripped."),
    (
        "Verifier",
        "string",
        ".status.judge",
        True,
        "The iteration whose judge scores, and later ones that were refused.",
    ),
    ("Base", "string", ".spec.model.uri", True, "The model that the run started from."),
    ("Model", "string", ".status.modelUri", True, "The best Solver so far."),
)


def definition() -> Schema:
    """The CRD as JSON-ready data."""
    names = {
        "kind": KIND,
        "listKind": f"{KIND}List",
        "plural": PLURAL,
        "singular": KIND.lower(),
        "shortNames": ["ser"],
        "categories": ["all"],
    }
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": _root()},
        "subresources": {"status": {}},
        "additionalPrinterColumns": [_column(*column) for column in _COLUMNS],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {"group": GROUP, "names": names, "scope": "Namespaced", "versions": [version]},
    }


def _root() -> Schema:
    about = SelfEvolutionRun.model_fields
    spec = schema_of(RunSpec)
    hold_still(spec)
    keep_to_what_is_built(spec, {phase.part: phase.engines for phase in PHASES.values()})
    status = schema_of(RunStatus, checked=False)
    for name, key in _STATUS_KEYS.items():
        status["properties"][name] |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}
    return {
        "description": SelfEvolutionRun.__doc__,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"description": about["api_version"].description, "type": "string"},
            "kind": {"description": about["kind"].description, "type": "string"},
            "metadata": {"type": "object"},  # Kubernetes describes it
            "spec": {"description": about["spec"].description, **spec},
            # Of no generation: before the first reconcile, kstatus must not take a run without conditions for done.
            "status": {"description": about["status"].description, "default": {"observedGeneration": 0}, **status},
        },
        "x-kubernetes-validations": [
            {
                "rule": "size(self.metadata.name) <= 63 && !self.metadata.name.contains('.')",
                "message": "metadata.name stands in labels and host names; write at most 63 lower-case letters, digits "
                "and '-'",
            }
        ],
    }


def _column(name: str, kind: str, path: str, wide: bool, description: str) -> Schema:
    column: Schema = {"name": name, "type": kind, "jsonPath": path, "description": description}
    return {**column, "priority": 1} if wide else column


def to_yaml(definition: Schema) -> str:
    """The file's text."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:
            return super().increase_indent(flow, False)

        def ignore_aliases(self, data: Any) -> bool:
            return True

    return _HEADER + yaml.dump(definition, Dumper=Dumper, sort_keys=False, width=118, allow_unicode=True)


def main() -> None:
    """Writes the file, below the current folder or where the first argument says."""
    path = Path(sys.argv[1] if len(sys.argv) > 1 else FILE)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_yaml(definition()))
    print(path)
