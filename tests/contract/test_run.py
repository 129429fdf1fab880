"""What a person can get wrong in a run, each as the sentence that they read."""

from __future__ import annotations

import copy
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from harness import unbuilt
from harness.runs import document, make_run
from selfevo_contract.errors import ExitCode, InputError
from selfevo_contract.explain import explain
from selfevo_contract.run import SelfEvolutionRun, refuse_what_is_not_built
from selfevo_contract.spec.run import RunSpec


def sentences(made: dict[str, Any]) -> list[str]:
    with pytest.raises(ValidationError) as error:
        SelfEvolutionRun.model_validate(made)
    return explain(error.value, SelfEvolutionRun)


BAD: list[tuple[dict[str, Any], str]] = [
    # unknown fields
    ({"spec__rollot": {}}, "spec.rollot is not a field; did you mean 'rollout'?"),
    ({"spec__queue": "a", "spec__qeue": "a"}, "spec.qeue is not a field; did you mean 'queue'?"),
    (
        {"spec__solver__grpo__learning_rate": 1.0},
        "spec.solver.grpo.learning_rate is not a field; did you mean 'learningRate'?",
    ),
    (
        {"spec__challenger__engine": {"kind": "transformers", "batchsize": 8}},
        "spec.challenger.engine.batchsize is not a field; did you mean 'batchSize'?",
    ),
    ({"spec__rollout__band": {"x": 1}}, "spec.rollout.band.x is not a field; remove it, or use one of: max, min"),
    (
        {"spec__challenger__engine": {"kind": "vllm", "batchSize": 8}},
        "spec.challenger.engine.batchSize is a field of kind transformers; remove it or choose that kind",
    ),
    # missing ones
    ({"spec__model": None}, "spec.model is missing; add it"),
    ({"spec__evaluation__tasks": [{"name": "a"}]}, "spec.evaluation.tasks[0].data is missing; add it"),
    ({"spec__challenger__engine": {"batchSize": 8}}, "spec.challenger.engine has no 'kind'; add it"),
    # wrong types: nothing is coerced
    ({"spec__iterations": "3"}, 'spec.iterations is "3"; it must be a whole number'),
    ({"spec__rollout__samples": 10.5}, "spec.rollout.samples is 10.5; it must be a whole number"),
    ({"spec__rollout__samples": True}, "spec.rollout.samples is true; it must be a whole number"),
    ({"spec__suspend": "yes"}, 'spec.suspend is "yes"; it must be true or false'),
    ({"spec__solver__grpo__learningRate": "1e-6"}, 'spec.solver.grpo.learningRate is "1e-6"; it must be a number'),
    ({"spec__exclude": {"uri": "x"}}, 'spec.exclude is {"uri": "x"}; it must be a list'),
    ({"spec": "x"}, 'spec is "x"; it must be a mapping'),
    ({"metadata__name": 5}, "metadata.name is 5; it must be a string; put it in quotes"),
    # out of range
    ({"spec__iterations": 0}, "spec.iterations is 0; it must be at least 1"),
    ({"spec__rollout__samples": 1}, "spec.rollout.samples is 1; it must be at least 2"),
    (
        {"spec__challenger__reward": {"solverSamples": 1}},
        "spec.challenger.reward.solverSamples is 1; it must be at least 2",
    ),
    ({"spec__solver__grpo__learningRate": 0.0}, "spec.solver.grpo.learningRate is 0.0; it must be above 0.0"),
    ({"spec__solver__grpo__topP": 1.5}, "spec.solver.grpo.topP is 1.5; it must be at most 1.0"),
    ({"spec__solver__grpo__lora": {"rank": 0}}, "spec.solver.grpo.lora.rank is 0; it must be at least 1"),
    (
        {"spec__challenger__engine": {"kind": "transformers", "batchSize": 0}},
        "spec.challenger.engine.batchSize is 0; it must be at least 1",
    ),
    ({"spec__rollout__band": {"min": float("nan")}}, "spec.rollout.band.min is NaN; input should be a finite number"),
    # not one of the choices
    (
        {"spec__challenger__engine": {"kind": "tpu"}},
        "spec.challenger.engine.kind is 'tpu'; choose one of 'transformers', 'vllm', 'server'",
    ),
    ({"spec__model__dtype": "fp8"}, "spec.model.dtype is \"fp8\"; choose 'float32', 'bfloat16' or 'float16'"),
    ({"kind": "Run"}, "kind is \"Run\"; choose 'SelfEvolutionRun'"),
    ({"apiVersion": "v1"}, "apiVersion is \"v1\"; choose 'selfevo.dev/v1alpha1'"),
    # not well formed
    (
        {"spec__model__uri": "Qwen/Qwen3-4B-Base"},
        'spec.model.uri is "Qwen/Qwen3-4B-Base"; write it as hf://<owner>/<model>@<revision> or '
        "s3://<bucket>/<prefix> or file:///<absolute path>",
    ),
    (
        {"spec__storage__uri": "s3://bucket/../x"},
        "spec.storage.uri is \"s3://bucket/../x\"; write the path without '..'",
    ),
    (
        {"spec__storage__uri": "s3:///B"},
        'spec.storage.uri is "s3:///B"; write it as s3://<bucket>/<prefix> or file:///<absolute path>',
    ),
    # buckets' names that are legal elsewhere
    *(
        (
            {"spec__storage__uri": f"s3://{name}/x"},
            f'spec.storage.uri is "s3://{name}/x"; {where}, and not at S3 stores of today, whose host names hold the '
            "bucket's; choose a bucket with 3 to 63 of a-z, 0-9, '.' and '-', with a letter or digit at both ends",
        )
        for name, where in (
            (
                "my_runs",
                "'_' is legal at Google Cloud Storage, in some Ceph stores, and in AWS's us-east-1 before March 2018",
            ),
            (
                "MyRuns",
                "capitals are legal in buckets that AWS made in us-east-1 before March 2018, and in some Ceph stores",
            ),
            ("team:runs", "a tenant or an ARN before ':' is Ceph's or AWS's own way to name a bucket"),
            ("a" * 32 + "." + "b" * 32, "65 characters are legal at Google Cloud Storage in names with dots"),
        )
    ),
    (
        {"spec__storage__uri": "s3://runs-"},
        "spec.storage.uri is \"s3://runs-\"; 'runs-' is no bucket's name at any S3 store of today; choose a bucket "
        "with 3 to 63 of a-z, 0-9, '.' and '-', with a letter or digit at both ends",
    ),
    (
        {"spec__model__digest": "D" * 64},
        f'spec.model.digest is "{"D" * 64}"; write it as 64 lower-case hexadecimal digits',
    ),
    (
        {"spec__storage__endpoint": "s3.example.com"},
        'spec.storage.endpoint is "s3.example.com"; write it as http(s)://<host>:<port>, without a path',
    ),
    (
        {"spec__queue": "Team A"},
        "spec.queue is \"Team A\"; write it as lower-case letters, digits, '-' and '.', with a letter or digit at both "
        "ends of each part",
    ),
    (
        {"spec__pods": {"resources": {"limits": {"memory": "64 GB"}}}},
        'spec.pods.resources.limits.memory is "64 GB"; write a quantity such as 8, 500m or 64Gi',
    ),
    (
        {"spec__pods": {"sharedMemory": -1}},
        "spec.pods.sharedMemory is -1; write a quantity such as 8, 500m or 64Gi",
    ),
    (
        {"spec__pods": {"env": [{"name": "WORLD_SIZE", "value": "8"}]}},
        'spec.pods.env[0].name is "WORLD_SIZE"; selfevo sets this variable itself; remove it (credentials come from '
        "storage.credentialsSecret)",
    ),
    # at odds with one another
    (
        {
            "spec__pods": {
                "env": [{"name": "A", "value": "1", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}]
            }
        },
        "spec.pods.env[0]: value and valueFrom are both given; remove one",
    ),
    (
        {"spec__pods": {"labels": {"selfevo.dev/run": "x"}}},
        'spec.pods.labels is "selfevo.dev/run"; keys of Kubernetes, container runtimes and selfevo are not set by '
        "hand; choose another (a queue is named by spec.queue)",
    ),
    (
        {"spec__pods": {"env": [{"name": "A"}, {"name": "A", "value": "1"}]}},
        "spec.pods.env: 'A' is there twice; give each a name of its own",
    ),
    (
        {"spec__pods": {"tolerations": [{"effect": "NoSchedule"}]}},
        "spec.pods.tolerations[0]: a toleration without a key needs operator Exists; add either",
    ),
    (
        {"spec__rollout__band": {"min": 0.8, "max": 0.2}},
        "spec.rollout.band: min 0.8 is above max 0.2; no question could enter, so swap or widen them",
    ),
    ({"spec__rollout__shards": 99}, "spec.rollout: shards 99 is above questions 16; lower shards"),
    (
        {"spec__rollout__labels": "truth"},
        "spec.rollout: labels 'truth' needs an oracle that knows it, for example {kind: arithmetic}",
    ),
    (
        {"spec__solver__grpo__perDeviceTrainBatchSize": 7},
        "spec.solver.grpo: perDeviceTrainBatchSize 7 does not divide the 16 completions of an update "
        "(promptsPerStep 4 x numGenerations 4); choose a divisor of 16",
    ),
    (
        {"spec__solver__prompt__user": "Answer!"},
        "spec.solver: prompt.user never shows the question; put {question} into it",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "sentence"), BAD, ids=[next(iter(changes)) for changes, _ in BAD])
def test_a_mistake_is_one_sentence_with_field_value_and_remedy(changes: dict[str, Any], sentence: str) -> None:
    assert sentences(document(**changes)) == [sentence]


def test_a_whole_number_may_be_written_with_a_point() -> None:
    assert repr(make_run(spec__rollout__samples=10.0).spec.rollout.samples) == "10"


def test_nothing_behind_a_name_is_as_if_it_were_not_there() -> None:
    made = document(spec__solver__engine={"kind": "transformers"}, spec__pods={"resources": {"limits": {"cpu": 1}}})
    spec = made["spec"]
    spec["queue"] = spec["seed"] = spec["pods"]["env"] = spec["pods"]["resources"]["limits"]["memory"] = None
    spec["solver"]["engine"]["batchSize"] = None
    run = SelfEvolutionRun.model_validate(made)
    assert run == make_run(spec__pods={"resources": {"limits": {"cpu": 1}}})
    spec["storage"] = None
    assert sentences(made) == ["spec.storage is missing; add it"]


def test_all_mistakes_are_reported_at_once() -> None:
    assert len(sentences(document(spec__rollout__samples=1, spec__iterations=0, spec__x=1))) == 3


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"spec__solver__engine": {"kind": "vllm"}}, "spec.solver.engine.kind asks for 'vllm'"),
        ({"spec__solver__engine": {"kind": "server"}}, "spec.solver.engine.kind asks for 'server'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_not_built_yet_validates_and_is_refused(changes: dict[str, Any], sentence: str) -> None:
    run = make_run(**changes)
    with pytest.raises(InputError) as error:
        refuse_what_is_not_built(run.spec)
    assert str(error.value).startswith(f"{sentence}, which this version of selfevo does not have yet; ")
    assert (error.value.reason, error.value.exit_code) == ("NotBuilt", ExitCode.INPUT)


def test_a_field_that_is_not_built_validates_and_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    field = unbuilt.unbuilt_field(monkeypatch)
    with pytest.raises(InputError) as error:
        refuse_what_is_not_built(make_run().spec)
    assert str(error.value) == (
        f"{field} asks for evaluations, which this version of selfevo does not have yet; remove {field}"
    )
    assert (error.value.reason, error.value.exit_code) == ("NotBuilt", ExitCode.INPUT)
    refuse_what_is_not_built(make_run(spec__evaluation=None).spec)


def test_the_rest_is_built() -> None:
    refuse_what_is_not_built(make_run().spec)
    server = {"kind": "server"}
    parts = ("challenger", "rollout", "evaluation")
    refuse_what_is_not_built(make_run(**{f"spec__{part}__engine": server for part in parts}).spec)


def test_metadata_keeps_what_kubernetes_adds_out_of_the_way() -> None:
    made = document(
        metadata={"name": "demo", "labels": {"a": "b"}, "uid": "7", "resourceVersion": "1", "generation": 4}
    )
    assert SelfEvolutionRun.model_validate(made).metadata.generation == 4


def test_a_spec_survives_the_wire() -> None:
    spec = make_run(spec__challenger__engine={"kind": "vllm"}, spec__queue="team-a").spec
    assert RunSpec.model_validate(spec.wire()) == spec
    assert "queue" in spec.wire() and "finetune" not in spec.wire()


def models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation, *(m for f in annotation.model_fields.values() for m in models_in(f.annotation))]
    return [model for argument in get_args(annotation) for model in models_in(argument)]


def test_every_field_of_the_spec_has_a_description() -> None:
    fields = {f"{model.__name__}.{name}": f for model in models_in(RunSpec) for name, f in model.model_fields.items()}
    assert len(fields) > 100
    assert [name for name, field in fields.items() if not field.description] == []


def test_runs_share_the_defaults_that_they_do_not_write() -> None:
    # A copy for each was two thirds of the time in which the operator reads a spec.
    one, other = make_run().spec, make_run().spec
    assert one.challenger.reward is other.challenger.reward
    assert copy.deepcopy(one) is one
