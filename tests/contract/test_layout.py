"""`layout: auto`: how both roles are trained on the GPUs that the manifest names, chosen once."""

from __future__ import annotations

from typing import Any

import pytest

from harness.runs import document, make_run
from harness.states import NOW
from selfevo_contract.errors import ExitCode, InputError
from selfevo_contract.plan import plan
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.sizing.architecture import MODELS
from selfevo_contract.sizing.fit import gib
from selfevo_contract.sizing.layout import laid_out, layout_lines, layout_of
from selfevo_contract.sizing.memory import needs
from selfevo_contract.status import Layout, RoleLayout, RunStatus
from selfevo_core.invalid_spec import parse_run
from selfevo_core.reconcile import reconcile

REFERENCE = {"promptsPerStep": 512, "perDeviceTrainBatchSize": 4, "maxCompletionLength": 4096}


def on(model: str, memory: str | None, gpus: int, **changes: Any) -> dict[str, Any]:
    """A document with the reference's sizes; changes as of `harness.runs.document`."""
    return document(**{
        "spec__model": {"uri": f"hf://owner/{model}@main", "dtype": "bfloat16"},
        "spec__layout": "auto",
        "spec__pods": {"gpuMemory": memory, "resources": {"limits": {"nvidia.com/gpu": gpus}}},
        "spec__challenger__grpo": {**REFERENCE, "numGenerations": 4},
        "spec__challenger__engine": {"kind": "transformers", "batchSize": 64},
        "spec__solver__grpo": {**REFERENCE, "numGenerations": 5},
        **changes,
    })  # fmt: skip


def run_on(*arguments: Any, **changes: Any) -> SelfEvolutionRun:
    return SelfEvolutionRun.model_validate(on(*arguments, **changes))


@pytest.mark.parametrize(
    ("model", "memory", "gpus", "challenger", "solver"),
    [
        # lora, sharding, gradientCheckpointing
        ("Qwen3-0.6B-Base", "180Gi", 1, (False, "none", False), (False, "none", False)),
        ("Qwen3-4B-Base", "180Gi", 1, (False, "none", True), (False, "none", True)),
        ("Qwen3-4B-Base", "80Gi", 8, (False, "fsdp", True), (False, "fsdp", True)),
        ("Qwen3-4B-Base", "80Gi", 1, (True, "none", True), (True, "none", True)),
        ("Qwen3-4B-Base", "48Gi", 4, (True, "none", True), (False, "fsdp", True)),
        ("Qwen3-8B-Base", "80Gi", 8, (False, "fsdp", True), (False, "fsdp", True)),
        ("Qwen3-8B-Base", "80Gi", 1, (True, "none", True), (True, "none", True)),
    ],
)
def test_the_first_layout_that_fits_is_taken(
    model: str, memory: str, gpus: int, challenger: tuple[Any, ...], solver: tuple[Any, ...]
) -> None:
    run = laid_out(run_on(model, memory, gpus))
    found = layout_of(run.spec)
    assert found is not None
    roles = [(each.lora, each.sharding, each.gradient_checkpointing) for each in (found.challenger, found.solver)]
    assert roles == [challenger, solver]
    trained = [need for need in needs(run.spec, MODELS[model]) if need.backward]
    assert all(need.total <= gib(memory) for need in trained)
    assert len(layout_lines(run.spec)) == 2


def test_batches_of_the_challengers_engine_are_smaller_where_that_is_enough() -> None:
    run = laid_out(run_on("Qwen3-8B-Base", "80Gi", 8))
    assert (engine := run.spec.challenger.engine).kind == "transformers" and engine.batch_size == 32
    assert "engine.batchSize 32" in layout_lines(run.spec)[0]


@pytest.mark.parametrize(
    ("memory", "changes", "lora", "offload"),
    [
        ("500Gi", {}, False, True),  # an adapter over shares does not fit either: all weights come first again
        ("160Gi", {}, False, True),  # 20 bytes a parameter over the GPUs of the pod: 152.6 GiB
        ("150Gi", {}, True, True),  # an adapter's take less
        ("10Gi", {}, True, False),
        (None, {}, True, False),  # nobody says how much there is
        ("500Gi", {"cpuOffload": False}, True, False),
        ("500Gi", {"sharding": "none"}, True, False),
        ("500Gi", {"generation": "vllm"}, True, False),  # it goes with no shares
        (None, {"sharding": "fsdp", "cpuOffload": True}, False, True),  # who writes it may
    ],
)
def test_shares_in_cpu_memory_are_the_last_resort(
    memory: str | None, changes: dict[str, Any], lora: bool, offload: bool
) -> None:
    limits = {"nvidia.com/gpu": 2, **({"memory": memory} if memory else {})}
    written = run_on(
        *("Qwen3-8B-Base", "48Gi", 2),
        spec__pods={"gpuMemory": "48Gi", "resources": {"limits": limits}},
        spec__challenger__grpo={**REFERENCE, "numGenerations": 4, **changes},
    )
    run = laid_out(written)
    chosen = layout_of(run.spec)
    assert chosen is not None
    assert (chosen.challenger.lora, chosen.challenger.cpu_offload) == (lora, offload)
    assert ("cpuOffload" in layout_lines(run.spec)[0]) == offload
    assert offload <= (chosen.challenger.sharding == "fsdp")
    SelfEvolutionRun.model_validate(run.model_dump(by_alias=True))  # what is chosen could have been written
    # It stands in the status, and holds from then on, with any pods.
    grown = run_on("Qwen3-8B-Base", "180Gi", 8, spec__challenger__grpo=written.spec.challenger.grpo.wire())
    recorded = grown.model_copy(update={"status": RunStatus(layout=chosen)})
    assert layout_of(laid_out(recorded).spec) == chosen


def test_what_a_person_wrote_stays() -> None:
    rank = {"rank": 8, "alpha": 16.0}
    run = run_on(
        *("Qwen3-4B-Base", "80Gi", 8),
        spec__solver__grpo={**REFERENCE, "lora": rank, "sharding": "none", "gradientCheckpointing": True},
    )
    grpo = laid_out(run).spec.solver.grpo
    assert grpo.lora is not None and (grpo.lora.rank, grpo.sharding) == (8, "none")
    assert laid_out(plain := make_run()) is plain


def test_it_is_chosen_once_and_its_keys_are_those_of_what_it_stands_for() -> None:
    run = run_on("Qwen3-4B-Base", "80Gi", 1)
    chosen = laid_out(run)
    lora = {"rank": 32, "alpha": 32.0, "dropout": 0.0}
    by_hand = SelfEvolutionRun.model_validate(
        on(
            *("Qwen3-4B-Base", "80Gi", 1),
            spec__layout=None,
            **{
                f"spec__{role}__grpo": {
                    **REFERENCE, "numGenerations": count, "lora": lora, "gradientCheckpointing": True
                }
                for role, count in (("challenger", 4), ("solver", 5))
            },
        )
    )  # fmt: skip
    keys = [step.key for step in plan(chosen.spec).steps]
    assert keys == [step.key for step in plan(by_hand.spec).steps]
    assert keys != [step.key for step in plan(run.spec).steps]
    assert laid_out(chosen).spec == chosen.spec
    # Other pods, later: what is recorded stays.
    grown = run_on("Qwen3-4B-Base", "180Gi", 8)
    recorded = grown.model_copy(update={"status": RunStatus(layout=layout_of(chosen.spec))})
    assert [step.key for step in plan(laid_out(recorded).spec).steps] == keys
    assert [step.key for step in plan(laid_out(grown).spec).steps] != keys


def test_the_choice_is_in_the_status_and_holds_from_then_on() -> None:
    asked = on("Qwen3-4B-Base", "80Gi", 1)
    run = parse_run(asked)
    status = reconcile(run, plan(run.spec), [], NOW).status
    assert status.layout == layout_of(run.spec)
    assert status.layout is not None and status.layout.solver.lora
    full = RoleLayout(sharding="none", gradient_checkpointing=True)
    other = status.model_copy(update={"layout": Layout(challenger=full, solver=full)})
    again = parse_run(on("Qwen3-4B-Base", "180Gi", 1), other)
    assert not again.spec.has_adapters
    assert reconcile(again, plan(again.spec), [], NOW).status.layout == layout_of(again.spec)


@pytest.mark.parametrize(
    ("arguments", "changes", "sentence"),
    [
        (("mine", "80Gi", 8), {}, "spec.layout is 'auto', and spec.model.uri is 'hf://owner/mine@main', whose sizes "),
        (
            ("Qwen3-4B-Base", None, 8),
            {},
            "spec.layout is 'auto', and neither spec.pods.gpuMemory nor spec.challenger.pods.gpuMemory is given; say",
        ),
        (
            ("Qwen3-4B-Base", "80Gi", 8),
            {"spec__forkFrom": {"run": "other", "iteration": 1}},
            "spec.layout is 'auto', and spec.forkFrom goes on from models of another run; remove spec.layout, and ",
        ),
        (("Qwen3-8B-Base", "16Gi", 1), {}, "spec.pods.gpuMemory is 16Gi, and challenger-train takes at least "),
    ],
)
def test_what_cannot_be_chosen_is_one_sentence(
    arguments: tuple[Any, ...], changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InputError) as refused:
        parse_run(on(*arguments, **changes))
    assert str(refused.value).startswith(sentence) and refused.value.exit_code == ExitCode.INPUT
