"""The API server and the command take the same documents, and read the same in them.

A valid document is changed at every place, in every way that tests/harness/mutations.py knows, then at several places
at once; each result goes to the server (a strict create that is not stored) and to the models.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import ValidationError

from harness.cluster.client import ApiError
from harness.cluster.controlplane import ControlPlane
from harness.full_run import FULL, RUBRIC, SMALL, Document
from harness.mutations import changed, places, schema_at, values_for
from selfevo_contract.crd.resource import definition
from selfevo_contract.explain import explain
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.spec.engines import ENGINES
from selfevo_contract.spec.tracking import MlflowTracker, TensorboardTracker, TrackioTracker, WandbTracker

pytestmark = pytest.mark.slow

SCHEMA = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]

SEED = int(os.environ.get("SELFEVO_FUZZ_SEED", "0"))
DOCUMENTS = int(os.environ.get("SELFEVO_FUZZ_DOCUMENTS", "750"))
"""Of each kind: one change, several changes. SELFEVO_FUZZ_DOCUMENTS=100000 tries every single one."""


def single_changes() -> list[Document]:
    """Every place of both documents, in every way."""
    found = []
    for document in (FULL, SMALL, RUBRIC):
        for path, given in places(document):
            if path[:1] != ("spec",) and path[:2] != ("metadata", "name"):
                continue
            found += [changed(document, path, value) for value in values_for(given, schema_at(SCHEMA, path))]
    return found


def several_changes(rng: random.Random, count: int) -> Iterator[Document]:
    """Up to five changes that leave a document valid, one after the other, and on half of them one that may not."""
    for _ in range(count):
        document = rng.choice((FULL, SMALL, RUBRIC))
        for _ in range(rng.randint(1, 5)):
            tried = (_change(rng, document) for _ in range(20))
            document = next((made for made in tried if not isinstance(read(on_the_wire(made)), str)), document)
        yield _change(rng, document) if rng.random() < 0.5 else document


def _change(rng: random.Random, document: Document) -> Document:
    path, given = rng.choice([one for one in places(document) if one[0][:1] == ("spec",) and len(one[0]) > 1])
    options = list(values_for(given, schema_at(SCHEMA, path)))
    alike = [value for value in options if type(value) is type(given)]
    return changed(document, path, rng.choice(alike or options))


def on_the_wire(document: Document) -> Document:
    return json.loads(json.dumps(document))


def served(plane: ControlPlane, document: Document) -> Document | str:
    """What the API server would store, or why it refuses."""
    try:
        return plane.admin.create(document, "default", dryRun="All", fieldValidation="Strict")
    except ApiError as error:
        assert error.status in (400, 422), error
        return error.message


def read(document: Document) -> SelfEvolutionRun | str:
    """What the command reads, or why it refuses."""
    try:
        return SelfEvolutionRun.model_validate(document)
    except ValidationError as error:
        return "; ".join(explain(error, SelfEvolutionRun))


def _part(document: Document, name: str) -> Document:
    spec = document.get("spec")
    part = spec.get(name) if isinstance(spec, dict) else None
    return part if isinstance(part, dict) else {}


def _has_half_a_pair(document: Document) -> bool:
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def _read_by_rules(document: Document) -> Iterator[Any]:
    """The whole numbers that rules in CEL read."""
    for part, names in {
        "rollout": ("shards", "minShards", "questions", "minCurriculum"),
        "challenger": ("promptsPerStep", "promptsPerUpdate", "numGenerations", "perDeviceTrainBatchSize"),
        "solver": ("promptsPerStep", "promptsPerUpdate", "numGenerations", "perDeviceTrainBatchSize"),
        "finetune": ("batch", "perDeviceTrainBatchSize"),
        "evaluation": ("shards", "minShards"),
        "forkFrom": ("iteration",),
    }.items():
        place = _part(document, part)
        place = place.get("grpo") if part in ("challenger", "solver") else place
        yield from (place.get(name) for name in names) if isinstance(place, dict) else ()
    tasks = _part(document, "evaluation").get("tasks")
    yield from (task.get("shards") for task in tasks if isinstance(task, dict)) if isinstance(tasks, list) else ()
    spec = document.get("spec")
    yield from (spec.get(name) for name in ("iterations", "approvedIteration")) if isinstance(spec, dict) else ()
    before = _part(document, "review").get("before")  # a set: the server takes 3 and 3.0 for two
    yield from before if isinstance(before, list) else ()


def _engines(document: Document) -> Iterator[Document]:
    """And trackers, whose fields belong to kinds as well."""
    for part in ("challenger", "rollout", "solver", "verifier", "evaluation"):
        place = _part(document, part)
        if isinstance(place.get("engine"), dict):
            yield place["engine"]
    spec = document.get("spec")
    trackers = spec.get("tracking") if isinstance(spec, dict) else None
    yield from (each for each in trackers if isinstance(each, dict)) if isinstance(trackers, list) else ()


TRACKERS = (MlflowTracker, TensorboardTracker, TrackioTracker, WandbTracker)
_KINDS = ENGINES | {tracker.model_fields["kind"].annotation.__args__[0]: tracker for tracker in TRACKERS}
_FIELDS_OF = {kind: {f.alias for f in of.model_fields.values()} - {"kind"} for kind, of in _KINDS.items()}

KNOWN_DIFFERENCES: dict[str, tuple[Callable[[Document], bool], Document]] = {
    # CEL does not take 3.0 for a whole number. kubectl sends 3, so only other clients meet it.
    "the server refuses 3.0 where a rule reads the number": (
        lambda document: any(isinstance(value, float) for value in _read_by_rules(document)),
        changed(FULL, ("spec", "rollout", "shards"), 2.0),
    ),
    # The server drops it before it reads the kind.
    "the command refuses the field of another kind with nothing behind it": (
        lambda document: any(
            value is None and name not in _FIELDS_OF.get(str(engine.get("kind")), ())
            for engine in _engines(document)
            for name, value in engine.items()
            if name in set().union(*_FIELDS_OF.values())
        ),
        changed(FULL, ("spec", "rollout", "engine"), {"kind": "vllm", "batchSize": None}),
    ),
    # The server puts U+FFFD in its place. YAML cannot write it.
    "the command refuses half a surrogate pair": (
        _has_half_a_pair,
        changed(FULL, ("spec", "challenger", "prompt", "user"), "\ud800"),
    ),
}
"""What the two do differently: whether a document has it, and one that does."""


def difference(plane: ControlPlane, document: Document) -> str | None:
    document = on_the_wire(document)
    ours, theirs = read(document), served(plane, document)
    if isinstance(ours, str) != isinstance(theirs, str):
        return " | ".join(
            f"{who} {result if isinstance(result, str) else 'takes it'}"
            for who, result in (("command:", ours), ("server:", theirs))
        )
    if isinstance(ours, str) or isinstance(theirs, str):
        return None
    if SelfEvolutionRun.model_validate(theirs).spec != ours.spec:
        return f"both take it and read different things: {ours.spec} {theirs['spec']}"
    return None


def test_both_take_the_documents_that_are_changed(control_plane: ControlPlane) -> None:
    for document in (FULL, SMALL, RUBRIC):
        assert not isinstance(read(document), str)
        assert difference(control_plane, document) is None


@pytest.mark.parametrize("kind", ["one", "several"])
def test_no_document_is_taken_by_one_and_refused_by_the_other(control_plane: ControlPlane, kind: str) -> None:
    rng = random.Random(SEED)
    if kind == "one":
        documents = single_changes()
        assert len(documents) > 10_000
        documents = rng.sample(documents, min(DOCUMENTS, len(documents)))
    else:
        documents = list(several_changes(rng, DOCUMENTS))
    documents = [document for document in documents if not any(has(document) for has, _ in KNOWN_DIFFERENCES.values())]
    taken = sum(not isinstance(read(on_the_wire(document)), str) for document in documents)
    assert 0.05 < taken / len(documents) < 0.95, "nearly all are valid, or nearly none: that tries little"
    with ThreadPoolExecutor(4) as pool:
        found = [what for what in pool.map(lambda document: difference(control_plane, document), documents) if what]
    assert not found, Counter(found).most_common(20)


@pytest.mark.parametrize("what", KNOWN_DIFFERENCES)
def test_a_known_difference_is_still_one(control_plane: ControlPlane, what: str) -> None:
    has, document = KNOWN_DIFFERENCES[what]
    assert has(document)
    refuses = "server" if what.startswith("the server") else "command"
    assert f"{'command' if refuses == 'server' else 'server'}: takes it" in (difference(control_plane, document) or "")
