"""About how long a run takes: sequences as the method says, speeds as published, and what settings do to them."""

from __future__ import annotations

from contextlib import suppress
from copy import deepcopy
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from harness import specs
from runs import by_transformers, merged
from selfevo_contract.errors import InputError
from selfevo_contract.plan import plan
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.sizing import speeds
from selfevo_contract.sizing.architecture import MODELS, Architecture
from selfevo_contract.sizing.fit import checkpoint_bytes, refuse_what_does_not_fit, trainings
from selfevo_contract.sizing.hours import Lengths, Machine, Took, estimate, wall_hours
from selfevo_contract.sizing.memory import CARDS, PROMPT_TOKENS, named_gpus, needs
from selfevo_contract.sizing.suggestions import with_settings
from selfevo_contract.sizing.traffic import checkpoints, traffic
from selfevo_contract.sizing.work import work_of
from selfevo_contract.spec.grpo import ChallengerGrpo, Grpo
from selfevo_contract.spec.run import RunSpec

QWEN = MODELS["Qwen3-4B-Base"]
REFERENCE = by_transformers("qwen3-4b-base")
VLLM = {"kind": "vllm", "gpuMemoryUtilization": 0.9}
SERVED = {"kind": "server", "replicas": 4}


def spec_of(**changes: Any) -> RunSpec:
    """The reference's example with ``changes``; an engine takes the place of the one that is there."""
    document = deepcopy(REFERENCE)
    for part, change in changes.items():
        if isinstance(change, dict) and "engine" in change:
            del document["spec"][part]["engine"]
    return SelfEvolutionRun.model_validate(merged(document, {"spec": changes})).spec


def steps_of(spec: RunSpec, lengths: Lengths | None = None, **more: Any) -> dict[str, Took]:
    found = estimate(spec, plan(spec), QWEN, "80 GB", lengths or Lengths(), **more)
    return {one.step.name: one for one in found}


def test_sequences_are_those_of_the_method() -> None:
    steps = plan(spec_of()).by_name
    counts = {name: [part.sequences for part in work_of(step.inputs).asked] for name, step in steps.items()}
    assert counts["challenger-train-1"] == [10_240, 102_400]
    assert counts["solver-rollout-1"] == [8_000, 80_000]
    assert counts["solver-train-1"] == [38_400]
    # math500, gsm8k, minerva and olympiad by 4 samples, amc23, aime24 and aime25 by 32; each with the greedy one
    assert sum(counts["evaluate-1"]) == (500 + 1319 + 272 + 674) * 5 + (40 + 30 + 30) * 33


@pytest.mark.parametrize(("at_once", "published"), [(128, 4474), (256, 5760)])
def test_vllm_is_as_fast_as_somebody_measured(at_once: int, published: float) -> None:
    """ML.ENERGY's leaderboard: Qwen3-14B in bfloat16 on one H100, completions of 613 to 625 tokens."""
    model = Architecture(5120, 17408, 40, 40, 8, 128, 151936, False, True)
    assert model.parameters / 1e9 == pytest.approx(14.77, abs=0.01)
    many = 100 * at_once
    seconds = Machine(model, "80 GB").by_vllm(many, at_once, 618, 0.95)
    assert many * 618 / seconds == pytest.approx(published, rel=0.10)


def test_transformers_is_as_fast_as_somebody_measured() -> None:
    """Qwen2's documentation: Qwen2-0.5B in bfloat16, one sequence of 2,048 tokens, 49.94 tokens a second on an A100,
    which are 0.834 ms a layer. We say 1.0 ms, between the 0.87 and 1.20 ms that an H200 showed in two phases
    (speeds.LAYER), so that we expect 0.834 of the published speed; weights and cache of so small a model are read in
    a small part of that time, and do not count."""
    model = Architecture(896, 4864, 24, 14, 2, 64, 151936, True, False)
    expected = 2048 / Machine(model, "80 GB").by_transformers(1, 64, 2048, 2)
    assert expected == pytest.approx(49.94 * 0.834, rel=0.02)


def test_training_is_as_fast_as_somebody_measured() -> None:
    """torchtitan: Llama 3.1 8B on 8 H100 by FSDP without torch.compile, sequences of 8,192 tokens, 5,762 a second."""
    llama = MODELS["OctoThinker-8B-Hybrid-Base"]
    grpo = Grpo(beta=0.0, promptsPerStep=8)
    seconds = Machine(llama, "80 GB").pass_seconds(grpo, 10, 8192 - PROMPT_TOKENS)
    assert 10 * 8192 / seconds == pytest.approx(5762, rel=0.10)


def test_what_a_pass_does_besides() -> None:
    def seconds(**grpo: Any) -> float:
        return Machine(QWEN, "80 GB").pass_seconds(Grpo(**{"beta": 0.0, **grpo}), 64, 1024)

    once = seconds()
    assert seconds(beta=0.01) == pytest.approx(once * 4 / 3)
    assert seconds(gradientCheckpointing=True) == pytest.approx(once * 4 / 3)
    assert seconds(promptsPerUpdate=128) == pytest.approx(once * 4 / 3)
    assert seconds(lora={}) == pytest.approx(once * 2 / 3)
    assert seconds(numIterations=3) == pytest.approx(once * 10 / 3)


def test_what_settings_do() -> None:
    base = steps_of(spec_of())
    assert {name: one.gpus for name, one in base.items() if name.endswith("-1")} == {
        "challenger-train-1": 8,
        "solver-rollout-1": 8,
        "solver-train-1": 8,
        "evaluate-1": 1,
    }
    rollout = base["solver-rollout-1"]
    halved = steps_of(spec_of(rollout={"shards": 4}))["solver-rollout-1"]
    assert halved.hours == pytest.approx(2 * rollout.hours, rel=1e-3) and halved.gpu_hours == pytest.approx(
        rollout.gpu_hours, rel=1e-3
    )
    quick = steps_of(spec_of(rollout={"engine": VLLM}))["solver-rollout-1"]
    assert quick.hours < rollout.hours / 3 and quick.tokens == rollout.tokens
    # vLLM does not wait for the longest of a batch, transformers does.
    full = steps_of(spec_of(rollout={"engine": VLLM}), Lengths(full=True))["solver-rollout-1"]
    assert full.hours > 3 * quick.hours and full.tokens == 4 * quick.tokens
    assert steps_of(spec_of(), Lengths(full=True))["solver-rollout-1"].hours == rollout.hours
    nodes = steps_of(spec_of(solver={"pods": {"nodes": 2}}))["solver-train-1"]
    train = base["solver-train-1"]
    assert nodes.gpus == 16 and nodes.training == pytest.approx(train.training / 2) and nodes.hours < train.hours
    served = steps_of(spec_of(challenger={"engine": SERVED}))["challenger-train-1"]
    assert served.gpus == 8 + 4
    policy = steps_of(spec_of(solver={"grpo": {"generation": "vllm", "sharding": "none"}}))["solver-train-1"]
    assert policy.generating < train.generating / 2
    beside = {"generation": "vllm", "vllmMode": "server", "vllmTensorParallelSize": 2}
    policy = steps_of(spec_of(solver={"grpo": beside}))["solver-train-1"]
    assert policy.gpus == 8 + 2 and policy.generating < train.generating / 2


LABELLED = {"data": {"uri": "s3://bucket/labelled.jsonl"}, "maxSteps": 100, "batch": 32}


def test_finetuning_and_its_scores_are_in_the_estimate() -> None:
    base, tuned = steps_of(spec_of()), steps_of(spec_of(finetune=LABELLED))
    assert tuned.keys() - base.keys() == {f"{name}-{of}" for name in ("finetune", "finetune-evaluate") for of in (0, 3)}
    assert all(tuned[name].hours == one.hours for name, one in base.items())
    supervised = tuned["finetune-3"]
    assert (supervised.generating, supervised.tokens, supervised.gpus) == (0, 0, 1)
    sequences = work_of(supervised.step.inputs)
    assert (sequences.asked, sequences.given) == ((), 3200)
    assert tuned["finetune-evaluate-3"].hours == base["evaluate-3"].hours
    by_grpo = steps_of(spec_of(finetune={**LABELLED, "kind": "grpo"}))["finetune-3"]
    assert by_grpo.training > 5 * supervised.training and by_grpo.generating > 0
    # It generates nothing and has no reference, so that it takes less memory.
    small, large = (
        {
            need.phase: need
            for need in needs(with_settings(spec_of(finetune={**LABELLED, "kind": kind}), sharding=None), QWEN)
        }
        for kind in ("sft", "grpo")
    )
    assert small["finetune"].total < large["finetune"].total
    assert large["finetune"].total == pytest.approx(large["solver-train"].total, rel=0.2)
    alone = spec_of(finetune={**LABELLED, "pods": {"gpuMemory": "40Gi"}})
    with pytest.raises(
        InputError, match=r"spec\.finetune\.pods\.gpuMemory is 40Gi, and finetune takes at least .* set spec\.finetune"
    ):
        refuse_what_does_not_fit(alone)


def test_hours_of_the_run_go_by_how_many_steps_may_be_at_work() -> None:
    spec = spec_of(parallelSteps=1)
    steps = list(steps_of(spec).values())
    assert wall_hours(steps, 1) == pytest.approx(sum(one.hours for one in steps))
    beside = wall_hours(steps, 2)
    chain = sum(one.hours for one in steps if one.step.phase != "evaluate")
    assert chain < beside < wall_hours(steps, 1)  # scores do not hold up training, but the last one ends last
    assert wall_hours(steps, 9) <= beside and wall_hours([], 1) == 0
    left = steps_of(spec, done=["evaluate-0", "challenger-train-1"])
    assert set(left) == {one.step.name for one in steps} - {"evaluate-0", "challenger-train-1"}


def test_every_card_has_speeds_and_every_figure_a_source() -> None:
    assert list(speeds.SPEEDS) == list(CARDS)
    for card in CARDS:
        for figure in speeds.figures(card):
            assert figure.value > 0 and figure.source and figure.origin in get_args(speeds.Origin), figure
            assert str(figure).startswith(f"{figure.what}: ") and f"({figure.origin}: {figure.source})" in str(figure)


@pytest.mark.parametrize(
    ("grpo", "every", "hours", "count"),
    [
        (ChallengerGrpo(maxSteps=5), 1, (1, 1), 4),
        (Grpo(maxSteps=15), 1, (1, 1), 14),
        (Grpo(maxSteps=15), 5, (1, 1), 2),
        (Grpo(maxSteps=0), 1, (0, 0), 0),
        (Grpo(maxSteps=15), "10m", (0, 1.05), 6),
        (Grpo(maxSteps=15, promptsPerUpdate=128), "10m", (15, 0), 15),  # the first update after each generation
        (Grpo(maxSteps=5, promptsPerUpdate=8), "10m", (15, 5), 35),  # seven in each step
        (Grpo(maxSteps=2), "10m", (15, 15), 2),  # no more than there are updates
    ],
)
def test_checkpoints_of_a_training(grpo: Grpo, every: str | int, hours: tuple[float, float], count: int) -> None:
    assert checkpoints(grpo, every, *hours) == count


def test_traffic_of_an_iteration() -> None:
    def of(**changes: Any) -> dict[str, Any]:
        spec = spec_of(**changes)
        return {name: traffic(one, spec, QWEN, Lengths()) for name, one in steps_of(spec).items()}

    every = {"checkpointEvery": 1}
    whole = of(challenger=every, solver=every)
    trained = [whole["challenger-train-2"], whole["solver-train-2"]]
    assert sum(part.written for part in trained) == 224 * QWEN.parameters  # 4 + 14 checkpoints, two models
    assert [part.read for part in trained] == [8 * QWEN.parameters, 4 * QWEN.parameters]
    assert whole["challenger-train-1"].read == 4 * QWEN.parameters  # the base twice, in 16 bits
    assert whole["solver-rollout-2"].read == 8 * 8 * QWEN.parameters  # each of eight shards
    lora = {"grpo": {"lora": {}}, **every}
    small = of(challenger=lora, solver=lora)
    assert (
        small["solver-train-2"].written == 14 * checkpoint_bytes(Grpo(lora={}), QWEN) + small["solver-train-2"].models
    )
    assert small["solver-train-2"].written < whole["solver-train-2"].written / 20
    kept = [of(storage={"keepAnswers": keep})["solver-rollout-1"].rows for keep in ("votes", "sample", "all")]
    assert kept[0] < kept[1] < kept[2]
    questions, answers = 8000 * 1024 * 4, 80_000 * 1024 * 4
    assert kept[0] == questions and kept[2] == questions + answers


def test_a_judges_checkpoints_are_of_its_size() -> None:
    judged = {"reward": {"mode": "judged"}}
    anchors = {"data": {"uri": "s3://bucket/anchors.jsonl"}}
    spec = spec_of(
        challenger=judged, solver=judged, verifier={"anchors": anchors, "checkpointEvery": 1, "head": {"maxSteps": 3}}
    )
    steps = steps_of(spec)
    found = [traffic(steps[f"verifier-train-{t}"], spec, QWEN, Lengths()).checkpoints for t in (0, 1)]
    assert found == [2 * 12 * QWEN.parameters, 7 * 12 * QWEN.parameters]
    assert trainings(spec, QWEN)["verifier-train"].size == 12 * QWEN.parameters
    assert trainings(spec, QWEN)["verifier-train"].updates == 8


@pytest.mark.slow
def test_whatever_a_valid_run_asks_for_has_an_estimate_or_is_refused() -> None:
    """The operator asks it of every run of a known model, and `selfevo plan` works it out for each."""

    @given(document=specs.documents(), sampled=st.integers(2, 40), every=st.sampled_from([1, "1ms", "10m"]))
    @settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def search(document: dict[str, Any], sampled: int, every: str | int) -> None:
        document["spec"]["model"] |= {"uri": "hf://Qwen/Qwen3-4B-Base@main", "dtype": "bfloat16"}
        document["spec"]["rollout"]["samples"] = sampled
        document["spec"]["solver"]["checkpointEvery"] = every
        try:
            spec = SelfEvolutionRun.model_validate(document).spec
        except ValidationError:
            reject()
        with suppress(InputError):
            refuse_what_does_not_fit(spec)
        assert all(gpus >= 0 for gpus in (named_gpus(spec, spec.pods), named_gpus(spec, spec.solver.pods)))
        found = list(steps_of(spec).values())
        moved = [traffic(one, spec, QWEN, Lengths()) for one in found]
        figures = [
            (one.gpus, one.hours, one.tokens, part.written, part.read) for one, part in zip(found, moved, strict=True)
        ]
        assert found and all(0 <= value < float("inf") for row in figures for value in row), figures
        assert all(one.gpus > 0 and one.hours > 0 for one in found)
        longest = max(one.hours for one in found)
        assert longest <= wall_hours(found, spec.parallel_steps) <= sum(one.hours for one in found) * (1 + 1e-9)

    search()
