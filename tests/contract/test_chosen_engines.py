"""`engines: auto`: vLLM answers for frozen models where the pods' GPUs have room for it, and no key knows of it."""

from __future__ import annotations

from typing import Any

import pytest

from harness.runs import RUBRIC, TRIAD, document
from harness.states import NOW
from selfevo_contract.errors import ExitCode, InputError
from selfevo_contract.plan import plan
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.sizing.architecture import MODELS, known
from selfevo_contract.sizing.engines import engine_lines, engines_of
from selfevo_contract.sizing.fit import gib
from selfevo_contract.sizing.hours import Lengths, estimate
from selfevo_contract.sizing.layout import laid_out, layout_lines
from selfevo_contract.sizing.memory import CONTEXT_GIB, GIB, JUDGED_TOKENS
from selfevo_contract.spec.engines import TransformersEngine, VllmEngine
from selfevo_core.invalid_spec import parse_run
from selfevo_core.reconcile import reconcile

REFERENCE = {"promptsPerStep": 512, "perDeviceTrainBatchSize": 4, "maxCompletionLength": 4096}
KINDS = {"vllm": "vllm", "t": "transformers"}


def on(model: str, memory: str | None, gpus: int, **changes: Any) -> dict[str, Any]:
    """A document with the reference's sizes, whose layout is chosen, too; changes as of `harness.runs.document`."""
    return document(**{
        "spec__model": {"uri": f"hf://owner/{model}@main", "dtype": "bfloat16"},
        "spec__layout": "auto",
        "spec__engines": "auto",
        "spec__pods": {"gpuMemory": memory, "resources": {"limits": {"nvidia.com/gpu": gpus} if gpus else {}}},
        "spec__challenger__grpo": {**REFERENCE, "numGenerations": 4},
        "spec__solver__grpo": {**REFERENCE, "numGenerations": 5},
        **changes,
    })  # fmt: skip


def chosen(*arguments: Any, **changes: Any) -> SelfEvolutionRun:
    return laid_out(SelfEvolutionRun.model_validate(on(*arguments, **changes)))


def kinds(run: SelfEvolutionRun) -> list[str]:
    found = engines_of(run.spec)
    assert found is not None and found.evaluation is not None
    return [found.challenger, found.rollout, found.evaluation]


@pytest.mark.parametrize(
    ("arguments", "changes", "expected"),
    [
        # of the challenger, the rollout, the evaluation
        (("Qwen3-0.6B-Base", "80Gi", 1), {}, "vllm vllm vllm"),
        (("Qwen3-4B-Base", "80Gi", 8), {}, "vllm vllm vllm"),
        (("Qwen3-4B-Base", "80Gi", 1), {}, "vllm vllm vllm"),  # beside an adapter
        # Half of the card and what is trained are more than the card.
        (("Qwen3-4B-Base", "128Gi", 1), {"spec__layout": None}, "t vllm vllm"),
        (("Qwen3-8B-Base", "24Gi", 1), {}, "t t t"),
        (("Qwen3-8B-Base", "24Gi", 8), {}, "t vllm vllm"),  # split over eight, where nothing trains
        (("Qwen3-4B-Base", "80Gi", 0), {}, "t t t"),
        (("Qwen3-4B-Base", "80Gi", 8), {"spec__model": {"uri": "hf://o/Qwen3-4B-Base@main"}}, "vllm vllm vllm"),
        (("Qwen3-4B-Base", "80Gi", 8), {"spec__solver__grpo": {**REFERENCE, "temperature": 2.5}}, "t t t"),
        (
            ("Qwen3-0.6B-Base", "80Gi", 1),
            {"spec__challenger__grpo": {**REFERENCE, "numGenerations": 4, "generation": "vllm"}},
            "t vllm vllm",
        ),
        (("Qwen3-4B-Base", "80Gi", 8), {"spec__challenger__engine": {"kind": "server"}}, "server vllm vllm"),
    ],
)
def test_vllm_answers_where_there_is_room_for_it(
    arguments: tuple[Any, ...], changes: dict[str, Any], expected: str
) -> None:
    run = chosen(*arguments, **changes)
    assert kinds(run) == [KINDS.get(kind, kind) for kind in expected.split()]
    line = "engines: " + ", ".join(f"{part} {kind}" for part, kind in zip(PARTS, kinds(run), strict=True))
    assert engine_lines(run.spec) == [line]


PARTS = ("challenger", "rollout", "evaluation")


def test_float32_stays_with_transformers() -> None:
    model = {"uri": "hf://owner/SmolLM2-135M-Instruct@main", "dtype": "float32"}
    assert kinds(chosen("", "80Gi", 1, spec__model=model)) == ["transformers"] * 3


def test_what_is_written_stays_and_what_is_chosen_gives_the_memory_back() -> None:
    written = {"kind": "vllm", "maxSequences": 17}
    run = chosen("Qwen3-4B-Base", "80Gi", 8, spec__rollout__engine=written)
    spec = run.spec
    assert isinstance(spec.rollout.engine, VllmEngine) and spec.rollout.engine.max_sequences == 17
    assert isinstance(spec.challenger.engine, VllmEngine) and spec.challenger.engine.enable_sleep_mode
    assert spec.challenger.engine.gpu_memory_utilization == 0.5
    assert spec.evaluation is not None and isinstance(spec.evaluation.engine, VllmEngine)
    assert (spec.evaluation.engine.gpu_memory_utilization, spec.evaluation.engine.enable_sleep_mode) == (0.9, False)
    assert laid_out(run).spec == spec


def test_no_key_knows_of_it_and_the_run_is_over_sooner() -> None:
    run, plain = chosen("Qwen3-4B-Base", "80Gi", 8), chosen("Qwen3-4B-Base", "80Gi", 8, spec__engines=None)
    assert [step.key for step in plan(run.spec).steps] == [step.key for step in plan(plain.spec).steps]
    assert engines_of(plain.spec) is None and engine_lines(plain.spec) == []
    quick, slow = (
        sum(one.hours for one in estimate(each.spec, plan(each.spec), MODELS["Qwen3-4B-Base"], "80 GB", Lengths()))
        for each in (run, plain)
    )
    assert quick < slow


def test_the_choice_is_in_the_status_and_follows_the_pods() -> None:
    run = parse_run(on("Qwen3-4B-Base", "80Gi", 8))
    status = reconcile(run, plan(run.spec), [], NOW).status
    assert status.engines == engines_of(run.spec) and status.layout is not None
    assert status.layout.challenger.engine_batch_size == 64  # of the engine that is back where the field goes
    smaller = {"gpuMemory": "12Gi", "resources": {"limits": {"nvidia.com/gpu": 1}}}
    later = parse_run(on("Qwen3-4B-Base", "80Gi", 8, spec__rollout__pods=smaller), status)
    assert kinds(later) == ["vllm", "transformers", "vllm"]
    assert reconcile(later, plan(later.spec), [], NOW).status.engines == engines_of(later.spec)
    without = parse_run(on("Qwen3-4B-Base", "80Gi", 8, spec__engines=None), status)
    assert without.spec.rollout.engine.kind == "transformers"
    assert reconcile(without, plan(without.spec), [], NOW).status.engines is None


@pytest.mark.parametrize(
    ("model", "memory"),
    [("Qwen3-4B-Base", "40Gi"), ("Qwen3-4B-Base", "48Gi"), ("OctoThinker-3B-Hybrid-Base", "40Gi")],
)
def test_a_run_whose_layout_has_smaller_batches_goes_on_without_it(model: str, memory: str) -> None:
    run = parse_run(on(model, memory, 8))
    status = reconcile(run, plan(run.spec), [], NOW).status
    assert kinds(run)[0] == "vllm" and "engine.batchSize" not in layout_lines(run.spec)[0]
    assert status.layout is not None and status.layout.challenger.engine_batch_size == 32
    again = parse_run(on(model, memory, 8), status)
    assert again.spec == run.spec and reconcile(again, plan(again.spec), [], NOW).status.layout == status.layout
    without = parse_run(on(model, memory, 8, spec__engines=None), status)  # GpuTooSmall with batches of 64
    assert isinstance(without.spec.challenger.engine, TransformersEngine)
    assert without.spec.challenger.engine.batch_size == 32 and "engine.batchSize 32" in layout_lines(without.spec)[0]
    assert [step.key for step in plan(without.spec).steps] == [step.key for step in plan(run.spec).steps]


def judged_by(model: str, **verifier: Any) -> dict[str, Any]:
    named = {"model": {"uri": f"hf://owner/{model}@main"}, **verifier}
    return {**TRIAD, "spec__verifier": {**TRIAD["spec__verifier"], **named}}


@pytest.mark.parametrize(
    ("arguments", "changes", "expected"),
    [
        # gpuMemoryUtilization of the challenger, the rollout, the evaluation; None is transformers
        (("Qwen3-4B-Base", "80Gi", 1), {}, (0.5, 0.9, 0.9)),
        (("Qwen3-4B-Base", "80Gi", 1), TRIAD, (0.5, 0.71, 0.9)),  # a judge as the base is: 14.9 GiB
        (("Qwen3-4B-Base", "80Gi", 1), judged_by("Qwen3-8B-Base"), (0.5, 0.59, 0.9)),  # 24.2 GiB
        (("Qwen3-4B-Base", "80Gi", 1), judged_by("mine"), (None, None, 0.9)),
        (("Qwen3-4B-Base", "80Gi", 1), judged_by("mine", server={}), (0.5, 0.9, 0.9)),  # has GPUs of its own
        (("Qwen3-4B-Base", "80Gi", 1), RUBRIC, (0.5, 0.9, 0.9)),  # elsewhere
        (("Qwen3-4B-Base", "24Gi", 1), {}, (None, 0.9, 0.9)),
        (("Qwen3-4B-Base", "24Gi", 1), TRIAD, (None, None, 0.9)),
        (("Qwen3-4B-Base", "40Gi", 8), TRIAD, (0.5, 0.52, 0.9)),
        (("Qwen3-4B-Base", "40Gi", 8), judged_by("Qwen3-8B-Base"), (None, 0.29, 0.9)),  # the weights in eight parts
        (("Qwen3-8B-Base", "80Gi", 8), judged_by("Qwen3-0.6B-Base"), (0.5, 0.83, 0.9)),
    ],
)
def test_what_a_trained_judge_takes_beside_vllm_is_left_free(
    arguments: tuple[Any, ...], changes: dict[str, Any], expected: tuple[float | None, ...]
) -> None:
    spec = chosen(*arguments, **changes).spec
    assert tuple(getattr(getattr(spec, part).engine, "gpu_memory_utilization", None) for part in PARTS) == expected
    if expected[1] is not None and spec.verifier is not None and spec.verifier.is_beside:
        named = spec.verifier.model
        judge = known(named.uri) if named is not None else MODELS[arguments[0]]
        assert judge is not None
        left = (1 - expected[1]) * gib(arguments[1]) - CONTEXT_GIB
        # A tenth of the card, which vLLM leaves in any case, and the judge's weights, keys and values.
        assert left > gib(arguments[1]) / 10 + (2 * judge.parameters + JUDGED_TOKENS * judge.cached(2)) / GIB


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("mine", "80Gi", 8),
            "spec.engines is 'auto', and spec.model.uri is 'hf://owner/mine@main', whose sizes are not ",
        ),
        (
            ("Qwen3-4B-Base", None, 8),
            "spec.engines is 'auto', and neither spec.pods.gpuMemory nor spec.challenger.pods.",
        ),
    ],
)
def test_what_cannot_be_chosen_is_one_sentence(arguments: tuple[Any, ...], sentence: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_run(on(*arguments, spec__layout=None))
    assert str(refused.value).startswith(sentence) and refused.value.exit_code == ExitCode.INPUT
