"""The CRD says what the models say, in the form that Kubernetes asks for. What a server makes of it: tests/cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.defaulting import defaulted
from harness.full_run import FULL as FULL_DOCUMENT
from harness.full_run import RUBRIC
from harness.mutations import places
from harness.runs import TRIAD, document
from selfevo_contract.crd.of_fields import messages_of
from selfevo_contract.crd.resource import FILE, definition, to_yaml
from selfevo_contract.crd.transitions import FROZEN, MAY_CHANGE, MAY_GROW
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.spec.run import RunSpec

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))

Schema = dict[str, Any]
(VERSION,) = definition()["spec"]["versions"]
SCHEMA: Schema = VERSION["schema"]["openAPIV3Schema"]


def nodes(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from nodes(field, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from nodes(schema["additionalProperties"], f"{path}{{}}")


NODES = dict(nodes(SCHEMA))
OF_SPEC = {path: node for path, node in NODES.items() if path.startswith(".spec")}


@pytest.mark.slow
def test_the_file_is_what_the_models_say() -> None:
    assert (ROOT / FILE).read_text() == to_yaml(definition()), "write it again: python -m selfevo_contract.crd"


def test_every_field_has_a_description() -> None:
    fields = {path for path in NODES if path and not path.endswith(("[]", "{}"))} - {".metadata"}
    assert len(fields) > 250
    assert [path for path in sorted(fields) if not NODES[path].get("description")] == []
    assert {NODES[path]["description"][-1] for path in fields} == {"."}


def test_the_schema_is_structural() -> None:
    for path, node in NODES.items():
        assert ("type" in node) != node.get("x-kubernetes-int-or-string", False), path
        assert not {"$ref", "anyOf", "oneOf", "allOf", "not", "nullable"} & set(node), path
        assert not ("properties" in node and "additionalProperties" in node), path
        assert node.get("type") != "object" or path == ".metadata" or {"properties", "additionalProperties"} & set(node)
        assert node.get("type") != "array" or "items" in node, path


def test_no_default_lies_below_the_items_of_a_list() -> None:
    """`kubectl apply` compares lists as a whole: a default that only the server has would always be a difference."""
    below = [path for path in NODES if "[]" in path]
    assert len(below) > 50
    assert [path for path in below if "default" in NODES[path]] == []
    assert NODES[".spec.rollout.shards"]["default"] == 1


def test_everything_in_the_spec_is_bounded() -> None:
    bounds = {
        "string": "maxLength",
        "array": "maxItems",
        "integer": "maximum",
        "number": "maximum",
        None: "maxLength",
    }
    unbounded = [
        path
        for path, node in OF_SPEC.items()
        if node.get("type") not in ("object", "boolean") and not {bounds[node.get("type")], "enum"} & set(node)
    ]
    unbounded += [
        path for path, node in OF_SPEC.items() if "additionalProperties" in node and "maxProperties" not in node
    ]
    assert unbounded == []


def test_lists_are_distinguished_by_what_their_items_differ_in() -> None:
    keys = {path: node.get("x-kubernetes-list-map-keys") for path, node in NODES.items() if node.get("type") == "array"}
    assert keys[".spec.pods.env"] == keys[".spec.evaluation.tasks"] == ["name"]
    assert keys[".status.conditions"] == ["type"]
    assert keys[".status.steps"] == keys[".status.attempts"] == ["name"]
    assert keys[".status.iterations"] == ["iteration"]
    for path, found in keys.items():
        assert found is None or set(found) <= set(NODES[f"{path}[]"]["required"]), path


def test_the_columns_of_kubectl_get() -> None:
    columns = VERSION["additionalPrinterColumns"]
    assert [c["name"] for c in columns if not c.get("priority")] == [
        "Phase",
        "Iteration",
        "Best",
        "Score",
        "Queue",
        "Age",
    ]
    assert [c["name"] for c in columns if c.get("priority")] == [
        "Reason",
        "Message",
        "Progress",
        "Guards",
        "Verifier",
        "Base",
        "Model",
    ]
    for column in columns:
        assert column["jsonPath"].split("[")[0] in NODES or column["jsonPath"].startswith(".metadata."), column


def with_defaults(made: Schema) -> Schema:
    return {**made, "spec": defaulted(made["spec"], SCHEMA["properties"]["spec"])}


FULL = {
    **TRIAD,
    "spec__finetune": {"data": {"uri": "s3://bucket/key"}},
    "spec__evaluation__sampling": {},
    "spec__rollout__answerSampling": {"topK": 5},
    "spec__rollout__oracle": {"kind": "arithmetic"},
    "spec__pods": {"tolerations": [{"operator": "Exists"}], "env": [{"name": "A"}]},
    "spec__solver__engine": {"kind": "vllm"},
    "spec__challenger__engine": {"kind": "server"},
}


@pytest.mark.parametrize(
    "made",
    [
        *(yaml.safe_load(path.read_text()) for path in EXAMPLES),
        document(spec__challenger=None, spec__rollout=None, spec__solver=None, spec__evaluation=None),
        document(**FULL),
    ],
    ids=[*(path.stem for path in EXAMPLES), "nothing-given", "everything-given"],
)
def test_the_defaults_are_those_of_the_models(made: Schema) -> None:
    wanted = SelfEvolutionRun.model_validate(made)
    full = with_defaults(made)
    assert SelfEvolutionRun.model_validate(full) == wanted
    assert with_defaults(full) == full
    # and they are all there: the models have nothing to add but what says nothing, and the members of a union
    added = {path for path in missing(wanted.wire(), full) if not path.endswith((".batchSize", ".batchTokens"))}
    assert {path.rsplit(".", 1)[-1] for path in added} <= {
        *("metadata", "namespace", "uid", "generation"),
        *(
            "exclude",
            "wellFormed",
            "tracking",
            "pods",
            "resources",
            "requests",
            "limits",
            "env",
            "tolerations",
            "nodeSelector",
        ),
        *("imagePullSecrets", "gpuMemoryUtilization", "fingerprint", "value", "labels", "annotations"),
        "examples",
        *("volumes", "nodeAffinity", "podAffinity", "podAntiAffinity", "topologySpreadConstraints", "values"),
        *("maxSequences", "enforceEager", "enableSleepMode"),
        *("resourceClaims", "maxConcurrency", "requestTimeout", "startupSeconds"),
    }


def missing(wanted: Any, found: Any, path: str = "") -> Iterator[str]:
    if isinstance(wanted, dict):
        for name, item in wanted.items():
            if isinstance(found, dict) and name in found:
                yield from missing(item, found[name], f"{path}.{name}")
            else:
                yield f"{path}.{name}"


def test_a_member_of_a_union_has_no_default_that_another_would_get() -> None:
    engines = [node for path, node in OF_SPEC.items() if path.endswith(".engine")]
    assert len(engines) == 5
    for engine in engines:
        assert engine["default"] == {"kind": "transformers"}
        assert not [name for name, field in engine["properties"].items() if "default" in field]


def test_what_is_not_named_as_free_to_change_is_held() -> None:
    def held(path: str) -> bool:
        if path.startswith(".spec.rollout.oracle."):
            path = ".spec.rollout.oracle"  # as a whole, of whichever kind it is
        *_, name = path.split(".")
        parent = path.rsplit(".", 1)[0]
        own = any("oldSelf" in rule["rule"] for rule in NODES[path].get("x-kubernetes-validations", []))
        rules = NODES[parent].get("x-kubernetes-validations", [])
        return own or any(f"has(oldSelf.{name})" in rule["rule"] for rule in rules)

    leaves = {p for p, node in OF_SPEC.items() if not {"properties"} & set(node) and not set("[{") & set(p)}
    free = {path.removeprefix(".spec.") for path in leaves if not held(path)}
    shared = {
        path
        for path in free
        if {"pods", "engine", "checkpointEvery", "queue", "sharding", "cpuOffload"} & set(path.split("."))
    }
    assert free - shared == {
        *("suspend", "parallelSteps", "backoffLimit", "ttlSecondsAfterFinished", "priorityClass"),
        *("approvedIteration", "review.before", "review.every"),
        *("storage.credentialsSecret", "storage.region", "storage.requireConditionalPut", "storage.checksum"),
        *("storage.keepAnswers", "tracking", "engines"),
        *("evaluation.metric", "evaluation.shards", "evaluation.minShards", "evaluation.chunkQuestions"),
        *("rollout.shards", "rollout.minShards", "rollout.chunkQuestions"),
        *(f"budget.{name}" for name in ("wallTime", "gpuHours", "tokens", "dollars", "dollarsPerGpuHour")),
        *(path for path in free - shared if path.startswith(("guards.", "publish.", "verifier.rubric.endpoint."))),
        "verifier.rubric.maxUnscored",
        *(f"verifier.server.{name}" for name in ("gpus", "replicas", "gpuMemoryUtilization")),
        *("verifier.server.requestTimeout", "verifier.server.startupSeconds"),
    }
    assert {"iterations"} == MAY_GROW and held(".spec.iterations")
    assert all(f".spec.{name}" in NODES for name in MAY_CHANGE)


def test_every_message_is_one_sentence_with_a_remedy() -> None:
    rules = [rule for node in NODES.values() for rule in node.get("x-kubernetes-validations", [])]
    messages = {message for rule in rules for message in messages_of(rule)}
    assert FROZEN in messages and len(messages) > 30
    remedies = (
        "write ",
        "start a new run",
        "; choose",
        "; remove",
        "; add",
        "; put",
        "; lower",
        " swap ",
        "; set",
        "needs",
    )
    assert [text for text in sorted(messages) if not any(remedy in text for remedy in remedies)] == []
    assert [text for text in messages if text.endswith(".") or len(text) > 200] == []


def test_the_document_that_is_fuzzed_sets_every_field() -> None:
    def parts(path: tuple[str | int, ...]) -> str:
        return "." + ".".join("[]" if isinstance(part, int) else str(part) for part in path).replace(".[]", "[]")

    given = {parts(path) for document in (FULL_DOCUMENT, RUBRIC) for path, _ in places(document)}
    leaves = {path for path, node in OF_SPEC.items() if "properties" not in node and not path.endswith(("{}", "[]"))}
    repeated = ("challenger", "rollout", "solver", "verifier", "evaluation", "finetune", "publish")
    wanted = {path for path in leaves if not path.startswith(tuple(f".spec.{part}.pods." for part in repeated))}
    engines = {path for path in wanted if ".engine." in path}
    wanted -= {path for path in wanted if ".oracle.data." in path}  # of another kind
    assert wanted - engines <= given
    assert {path.rsplit(".", 1)[1] for path in engines} == {p.rsplit(".", 1)[1] for p in engines & given}


def test_the_names_of_the_models_fields_are_those_of_the_schema() -> None:
    assert set(SCHEMA["properties"]["spec"]["properties"]) == {f.alias for f in RunSpec.model_fields.values()}
