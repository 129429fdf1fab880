"""A run is refused where its pods say how much memory their GPUs have and a phase takes more."""

from __future__ import annotations

from typing import Any

import pytest

from harness.runs import TRIAD, document, make_run
from selfevo_contract.errors import ExitCode, InputError
from selfevo_contract.sizing.architecture import known
from selfevo_contract.sizing.fit import gib, refuse_what_does_not_fit
from selfevo_contract.sizing.memory import named_gpus, needs
from selfevo_core.invalid_spec import parse_run

QWEN = {"spec__model__uri": "hf://Qwen/Qwen3-4B-Base@main", "spec__model__dtype": "bfloat16"}


def refused(changes: dict[str, Any], reason: str) -> str:
    """The sentence with which a run is."""
    with pytest.raises(InputError) as error:
        parse_run(document(**QWEN, **changes))
    assert (error.value.reason, error.value.exit_code) == (reason, ExitCode.INPUT)
    return str(error.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"spec__pods": {"gpuMemory": "40Gi"}},
            "spec.pods.gpuMemory is 40Gi, and challenger-train takes at least ",
        ),
        (
            {"spec__pods": {"gpuMemory": "1Ti"}, "spec__solver__pods": {"gpuMemory": "40G"}},
            "spec.solver.pods.gpuMemory is 40G, and solver-train takes at least ",
        ),
        (
            {"spec__pods": {"gpuMemory": "1Ti"}, "spec__rollout__pods": {"gpuMemory": 4_000_000_000}},
            "spec.rollout.pods.gpuMemory is 4000000000, and solver-rollout takes at least 7.5 GiB",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_field_value_and_remedy(changes: dict[str, Any], sentence: str) -> None:
    message = refused(changes, "GpuTooSmall")
    assert message.startswith(sentence) and "take larger GPUs, or " in message and "`selfevo size`" in message


OF_64 = {"kind": "transformers", "batchSize": 64}
ADAPTED: dict[str, Any] = {
    f"spec__{role}__grpo": {"lora": {}, "gradientCheckpointing": True, "perDeviceTrainBatchSize": 2}
    for role in ("challenger", "solver")
}


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        # 32 of 64 sequences of 4352 tokens, 160 KiB each, beside twice the base and an adapter: 37.2 GiB
        ({"spec__pods": {"gpuMemory": "38Gi"}}, None),
        ({"spec__pods": {"gpuMemory": "37Gi"}}, "or lower spec.challenger.engine.batchSize (`selfevo size`"),
        ({"spec__pods": {"gpuMemory": "37Gi"}, "spec__challenger__engine": {**OF_64, "batchSize": 62}}, None),
        # less of the engine alone is not enough
        (
            {"spec__pods": {"gpuMemory": "16Gi"}},
            "or lower spec.challenger.engine.batchSize and set spec.challenger.grpo smaller (`selfevo size`",
        ),
        # what is trained takes the most
        (
            {"spec__pods": {"gpuMemory": "16Gi"}, "spec__challenger__engine": {**OF_64, "batchSize": 1}},
            "or set spec.challenger.grpo smaller (`selfevo size`",
        ),
    ],
)
def test_of_an_engine_that_halves_its_batches_half_counts_and_it_is_named(
    changes: dict[str, Any], remedy: str | None
) -> None:
    changes = {**ADAPTED, "spec__challenger__grpo__generationBatchTokens": 32_768, **changes}
    if remedy is None:
        refuse_what_does_not_fit(make_run(**{**QWEN, **changes}).spec)
    else:
        assert remedy in refused(changes, "GpuTooSmall")


def test_of_a_judge_the_settings_are_named_that_it_has() -> None:
    judge = {**TRIAD["spec__verifier"], "pods": {"gpuMemory": "40Gi"}}
    message = refused({**TRIAD, "spec__verifier": judge}, "GpuTooSmall")
    assert "verifier-train takes" in message and "set spec.verifier smaller" in message


def test_a_policy_that_its_servers_gpus_do_not_hold_is_refused() -> None:
    small = {"lora": {}, "gradientCheckpointing": True, "perDeviceTrainBatchSize": 1, "maxCompletionLength": 512}
    policy = {"generation": "vllm", "vllmMode": "server", "sharding": "fsdp", **small}
    asked: dict[str, Any] = {f"spec__solver__grpo__{name}": value for name, value in policy.items()}
    asked["spec__pods"] = {"gpuMemory": "1Ti"}
    asked["spec__solver__pods"] = {"gpuMemory": "8Gi", "resources": {"limits": {"nvidia.com/gpu": 8}}}
    assert refused(asked, "GpuTooSmall") == (
        "spec.solver.pods.gpuMemory is 8Gi, of which the policy's server takes 90%, and solver-train needs 7.6 GiB on "
        "each of its 1 GPUs; take larger GPUs, or raise spec.solver.grpo.vllmTensorParallelSize"
    )
    refuse_what_does_not_fit(make_run(**{**QWEN, **asked, "spec__solver__grpo__vllmTensorParallelSize": 2}).spec)


def test_a_judge_that_its_servers_gpus_do_not_hold_is_refused() -> None:
    judge = {**TRIAD["spec__verifier"], "model": {"uri": "hf://owner/Qwen3-8B-Base@main"}, "server": {"gpus": 2}}
    asked: dict[str, Any] = {**TRIAD, "spec__pods": {"gpuMemory": "1Ti"}, "spec__rollout__pods": {"gpuMemory": "8Gi"}}
    assert refused({**asked, "spec__verifier": judge}, "GpuTooSmall") == (
        "spec.rollout.pods.gpuMemory is 8Gi, of which the judge's server takes 90%, and solver-rollout needs 8.1 GiB "
        "on each of its 2 GPUs; take larger GPUs, or raise spec.verifier.server.gpus"
    )
    for fits in ({"gpus": 4}, {"gpus": 0}):
        changes = {**QWEN, **asked, "spec__verifier": {**judge, "server": fits}}
        refuse_what_does_not_fit(make_run(**changes).spec)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"spec__pods": {"gpuMemory": "1Ti"}},
        {"spec__pods": {"gpuMemory": "1Gi"}, "spec__model__uri": "hf://somebody/else@main"},
        # what a server's GPUs hold is split over them by itself
        {"spec__rollout__engine": {"kind": "server", "gpus": 8}, "spec__rollout__pods": {"gpuMemory": "1Gi"}},
    ],
)
def test_what_is_not_known_not_to_fit_goes_on(changes: dict[str, Any]) -> None:
    refuse_what_does_not_fit(make_run(**{**QWEN, **changes}).spec)


@pytest.mark.parametrize(
    ("run", "part", "gpus"),
    [
        ({}, {}, 0),
        ({"nvidia.com/gpu": 8}, {}, 8),
        ({"nvidia.com/gpu": 8}, {"nvidia.com/gpu": 0}, 0),
        ({"nvidia.com/gpu": 8}, {"amd.com/gpu": "2", "cpu": "500m", "memory": "1Gi"}, 10),
        ({"nvidia.com/gpu": "500m"}, {}, 0),  # refused where pods are made of it
    ],
)
def test_gpus_of_a_pod_are_counted_as_pods_are_made(run: dict[str, Any], part: dict[str, Any], gpus: int) -> None:
    spec = make_run(
        **QWEN, spec__pods={"resources": {"limits": run}}, spec__solver__pods={"resources": {"limits": part}}
    )
    assert named_gpus(spec.spec, spec.spec.solver.pods) == gpus
    claims = [{"name": "gpu", "resourceClaimTemplateName": "gpus", "gpus": 4}]
    refuse_what_does_not_fit(spec.spec)
    claimed = make_run(**QWEN, spec__pods={"resourceClaims": claims})
    assert named_gpus(claimed.spec, claimed.spec.solver.pods) == 4


def test_quantities_of_memory() -> None:
    assert [gib("80Gi"), gib("512Mi"), gib(2**30), gib("1.5Ti")] == [80, 0.5, 1, 1536]
    assert gib("80G") == pytest.approx(74.5, abs=0.01)
    assert gib("1e11") == float("inf")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"spec__pods": {"scratch": "40Gi"}},
            "spec.pods.scratch is 40Gi, and a checkpoint of challenger-train takes 48.3 GB; raise pods.scratch",
        ),
        (
            {"spec__pods": {"scratch": "1Gi"}, "spec__challenger__pods": {"scratch": "50G"}},
            "spec.pods.scratch is 1Gi, and a checkpoint of solver-train takes 48.3 GB; ",
        ),
        (
            {"spec__solver__pods": {"scratch": 48_000_000_000}},
            "spec.solver.pods.scratch is 48000000000, and a checkpoint of solver-train takes 48.3 GB; ",
        ),
    ],
)
def test_a_working_folder_that_holds_no_checkpoint_is_refused(changes: dict[str, Any], sentence: str) -> None:
    assert refused(changes, "DiskTooSmall").startswith(sentence)


ON_EIGHT = {"nvidia.com/gpu": 8}
IN_CPU = {
    f"spec__{role}__grpo__{name}": value
    for role in ("challenger", "solver")
    for name, value in (("sharding", "fsdp"), ("cpuOffload", True))
}


@pytest.mark.parametrize(
    ("memory", "sentence"),
    [
        # 4 bytes each of weights, reference and gradients and 8 of moments of 4.02 billion parameters.
        (
            {"spec__pods": {"resources": {"limits": {**ON_EIGHT, "memory": "74Gi"}}}},
            "spec.pods.resources.limits.memory is 74Gi, and challenger-train with grpo.cpuOffload keeps 74.9 GiB in "
            "each pod's CPU memory; raise pods.resources.limits.memory, ",
        ),
        (
            {
                "spec__pods": {"resources": {"limits": {**ON_EIGHT, "memory": "1Ti"}}},
                "spec__solver__pods": {"nodes": 2, "resources": {"limits": {"memory": "37Gi"}}},
            },
            "spec.solver.pods.resources.limits.memory is 37Gi, and solver-train with grpo.cpuOffload keeps 37.5 GiB",
        ),
        ({"spec__pods": {"resources": {"limits": {**ON_EIGHT, "memory": "75Gi"}}}}, ""),
        ({"spec__pods": {"resources": {"limits": ON_EIGHT}}}, ""),
    ],
)
def test_a_pod_whose_memory_does_not_hold_what_is_kept_there_is_refused(memory: dict[str, Any], sentence: str) -> None:
    if sentence:
        assert refused({**IN_CPU, **memory}, "CpuMemoryTooSmall").startswith(sentence)
    else:
        refuse_what_does_not_fit(make_run(**{**QWEN, **IN_CPU, **memory}).spec)


@pytest.mark.parametrize(
    "changes",
    [
        {"spec__pods": {"scratch": "46Gi"}},
        {"spec__pods": {"scratch": "1Gi"}, "spec__model__uri": "hf://somebody/else@main"},
        {"spec__rollout__pods": {"scratch": "1Gi"}},
        {"spec__pods": {"scratch": "2Gi"}, "spec__challenger__grpo__lora": {}, "spec__solver__grpo__lora": {}},
        {
            "spec__pods": {"scratch": "1Gi"},
            "spec__challenger__grpo__maxSteps": 0,
            "spec__solver__grpo__maxSteps": 0,
        },
    ],
)
def test_a_working_folder_that_may_do_goes_on(changes: dict[str, Any]) -> None:
    refuse_what_does_not_fit(make_run(**{**QWEN, **changes}).spec)


def test_a_reward_model_counts_by_its_own_sizes_wherever_it_is_read_or_trained() -> None:
    base = known(QWEN["spec__model__uri"])
    assert base is not None
    held: list[dict[str, int]] = []
    for name in ("hf://owner/other@main", "hf://Skywork/Skywork-Reward-V2-Llama-3.1-8B@main"):
        judge = {**TRIAD["spec__verifier"], "model": {"uri": name}}
        spec = make_run(**{**TRIAD, **QWEN, "spec__verifier": judge}).spec
        held.append({need.phase: need.held for need in needs(spec, base)})
    like_the_base, its_own = held
    larger = 7_504_924_672 - base.parameters  # transformers' LlamaForSequenceClassification, less its head
    for phase in ("challenger-train", "solver-rollout", "solver-train"):
        assert its_own[phase] - like_the_base[phase] == 2 * larger, phase
    assert its_own["verifier-train"] - like_the_base["verifier-train"] == 12 * larger
