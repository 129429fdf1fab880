"""Small runs for tests: documents as a person writes them, with changes by dotted path."""

from __future__ import annotations

import copy
from typing import Any

from selfevo_contract.run import SelfEvolutionRun

DIGEST = "d" * 64

DOCUMENT: dict[str, Any] = {
    "apiVersion": "selfevo.dev/v1alpha1",
    "kind": "SelfEvolutionRun",
    "metadata": {"name": "demo", "namespace": "default"},
    "spec": {
        "iterations": 2,
        "model": {"uri": "file:///models/base", "digest": DIGEST, "dtype": "float32"},
        "storage": {"uri": "file:///store"},
        "challenger": {
            "prompt": {"user": "ask"},
            "grpo": {"maxSteps": 2, "promptsPerStep": 4, "numGenerations": 4, "perDeviceTrainBatchSize": 16},
        },
        "rollout": {"questions": 16, "samples": 4, "shards": 2},
        "solver": {
            "prompt": {"user": "{question}"},
            "grpo": {"maxSteps": 2, "promptsPerStep": 4, "numGenerations": 4, "perDeviceTrainBatchSize": 16},
        },
        "evaluation": {
            "tasks": [{"name": "held-out", "data": {"uri": "file:///data/heldout.jsonl", "digest": DIGEST}}],
            "samples": 2,
        },
    },
}

TRIAD: dict[str, Any] = {
    "spec__verifier": {"anchors": {"data": {"uri": "file:///data/anchors.jsonl", "digest": DIGEST}}},
    "spec__challenger__reward": {"mode": "judged"},
    "spec__solver__reward": {"mode": "judged"},
}
"""For `document`: a run with a Verifier."""
RUBRIC: dict[str, Any] = {
    **TRIAD,
    "spec__verifier": {
        "kind": "rubric",
        "rubric": {
            "criteria": [{"uri": "file:///data/criteria.yaml", "digest": DIGEST}],
            "model": "strong",
            "endpoint": {"url": "https://llm", "tokenSecret": {"name": "llm"}},
        },
    },
}
"""One whose judge is not trained."""


def document(**changes: Any) -> dict[str, Any]:
    """A run as JSON-ready data. ``spec__rollout__shards=4`` sets a field, the value ``None`` removes it."""
    made = copy.deepcopy(DOCUMENT)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = made
        for name in parents:
            place = place.setdefault(name, {})
        if value is None:
            place.pop(last, None)
        else:
            place[last] = value
    return made


def make_run(**changes: Any) -> SelfEvolutionRun:
    """The same, validated."""
    return SelfEvolutionRun.model_validate(document(**changes))
