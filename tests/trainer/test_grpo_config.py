"""Our settings as TRL's, and the order in which rows are trained on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from selfevo_contract.phases import Loading
from selfevo_contract.spec.grpo import ChallengerGrpo, Grpo

pytestmark = pytest.mark.slow

LOADING = Loading(dtype="float32", trust_remote_code=False)

# Every field at a value that is neither its default nor TRL's, and TRL's arguments then.
MAPPED: dict[str, tuple[Any, dict[str, Any]]] = {
    "maxSteps": (7, {"max_steps": 7}),
    "promptsPerUpdate": (
        128,
        {"max_steps": 15 * 4, "gradient_accumulation_steps": 128 * 5 // 8, "steps_per_generation": 512 * 5 // 8},
    ),
    "delta": (4.0, {"delta": 4.0}),
    "lora": ({}, {"learning_rate": 1e-5}),
    "learningRate": (3e-5, {"learning_rate": 3e-5}),
    "lrSchedulerType": ("cosine", {"lr_scheduler_type": "cosine"}),
    "warmupSteps": (4, {"warmup_steps": 4}),
    "weightDecay": (0.25, {"weight_decay": 0.25}),
    "adamEpsilon": (1e-6, {"adam_epsilon": 1e-6}),
    "maxGradNorm": (0.5, {"max_grad_norm": 0.5}),
    "beta": (0.125, {"beta": 0.125}),
    "epsilon": (0.1, {"epsilon": 0.1}),
    "epsilonHigh": (0.4, {"epsilon_high": 0.4}),
    "lossType": ("dr_grpo", {"loss_type": "dr_grpo"}),
    "scaleRewards": ("none", {"scale_rewards": "none"}),
    "numIterations": (3, {"num_iterations": 3, "max_steps": 15 * 3}),
    "maskTruncatedCompletions": (True, {"mask_truncated_completions": True}),
    "gradientCheckpointing": (True, {"gradient_checkpointing": True}),
    "temperature": (0.7, {"temperature": 0.7}),
    "topP": (0.9, {"top_p": 0.9}),
    "topK": (40, {"top_k": 40}),
    "maxCompletionLength": (99, {"max_completion_length": 99}),
    "vllmImportanceSamplingMode": ("sequence_mask", {"vllm_importance_sampling_mode": "sequence_mask"}),
    "vllmImportanceSamplingClipMax": (2.0, {"vllm_importance_sampling_clip_max": 2.0}),
    "numGenerations": (4, {"num_generations": 4, "generation_batch_size": 512 * 4}),
    "promptsPerStep": (64, {"generation_batch_size": 64 * 5, "gradient_accumulation_steps": 40}),
    "perDeviceTrainBatchSize": (
        64,
        {"per_device_train_batch_size": 64, "gradient_accumulation_steps": 40, "steps_per_generation": 40},
    ),
}


def config(tmp_path: Path, processes: int = 1, **settings: Any) -> Any:
    from selfevo_trainer.grpo.config import grpo_config

    return grpo_config(Grpo.model_validate(settings), LOADING, 11, tmp_path, processes)


NOT_TRLS = {"generationBatchTokens", "generation", "sharding", "cpuOffload"} | {
    "vllmMode",
    "vllmTensorParallelSize",
    "vllmGpuMemoryUtilization",
    "vllmEnableSleepMode",
}
"""tests/trainer/test_policy_generation.py, test_vllm_policy.py, test_vllm_served.py and test_sharding.py have
their cases: TRL does not open
vLLM, and gets several arguments for sharding."""


def test_every_setting_has_its_case() -> None:
    assert {field.alias for field in Grpo.model_fields.values()} == set(MAPPED) | NOT_TRLS


@pytest.mark.parametrize("field", MAPPED)
def test_a_setting_reaches_trl(tmp_path: Path, field: str) -> None:
    value, expected = MAPPED[field]
    made, default = config(tmp_path, **{field: value}), config(tmp_path)
    assert {name: getattr(made, name) for name in expected} == expected
    assert {name: getattr(default, name) for name in expected} != expected


def test_the_defaults_are_the_references_and_not_trls(tmp_path: Path) -> None:
    made = config(tmp_path)
    expected = {
        "loss_type": "grpo",
        "beta": 0.01,
        "use_bias_correction_kl": False,
        "epsilon": 0.2,
        "epsilon_high": 0.3,
        "delta": 3.0,
        "scale_rewards": "group",
        "learning_rate": 1e-6,
        "weight_decay": 0.01,
        "adam_epsilon": 1e-8,
        "max_grad_norm": 1.0,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "temperature": 1.0,
        "top_p": 0.99,
        "top_k": 0,
        "num_generations": 5,
        "max_steps": 15,
        "mask_truncated_completions": False,
    }
    assert {name: getattr(made, name) for name in expected} == expected


def test_trl_leaves_order_saves_and_reports_to_us(tmp_path: Path) -> None:
    made = config(tmp_path)
    assert (made.seed, made.output_dir, made.logging_nan_inf_filter) == (11, str(tmp_path), False)
    assert made.shuffle_dataset is False and made.report_to == [] and made.disable_tqdm
    assert (str(made.save_strategy.value), str(made.logging_strategy.value), made.logging_steps) == ("no", "steps", 1)
    assert made.gradient_checkpointing is False  # TRL's own default is True


def test_on_a_cpu_training_is_in_float32(tmp_path: Path) -> None:
    import torch

    from selfevo_trainer.grpo.config import grpo_config

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    for dtype in ("float32", "bfloat16", "float16"):
        made = grpo_config(Grpo(), Loading(dtype=dtype, trust_remote_code=False), 0, tmp_path)
        assert (made.use_cpu, made.bf16, made.fp16) == (True, False, False)


@pytest.mark.parametrize(
    ("processes", "accumulation"),
    [(1, 320), (2, 160), (4, 80), (16, 20)],
)
def test_a_step_consumes_the_same_completions_on_any_number_of_processes(
    tmp_path: Path, processes: int, accumulation: int
) -> None:
    made = config(tmp_path, processes)
    assert made.gradient_accumulation_steps == made.steps_per_generation == accumulation
    assert processes * made.per_device_train_batch_size * accumulation == Grpo().completions_per_step == 2560


def test_a_batch_that_does_not_divide_over_the_processes_is_refused_with_its_numbers(tmp_path: Path) -> None:
    from selfevo_contract.errors import InputError

    with pytest.raises(
        InputError, match=r"^perDeviceTrainBatchSize 8 x 3 processes does not divide the 2560 .*; choose"
    ):
        config(tmp_path, 3)


@pytest.mark.parametrize(
    ("kind", "updates", "a_step", "accumulation"), [(ChallengerGrpo, 160, 32, 16 * 4), (Grpo, 60, 4, 128 * 5)]
)
def test_the_schedule_of_the_reference(
    tmp_path: Path, kind: type[Grpo], updates: int, a_step: int, accumulation: int
) -> None:
    from selfevo_trainer.grpo.config import grpo_config

    prompts = 16 if kind is ChallengerGrpo else 128
    grpo = kind.model_validate({"promptsPerStep": 512, "promptsPerUpdate": prompts, "perDeviceTrainBatchSize": 1})
    made = grpo_config(grpo, LOADING, 0, tmp_path)
    assert (made.max_steps, made.gradient_accumulation_steps) == (updates, accumulation)
    assert made.steps_per_generation == a_step * accumulation
    assert [grpo.step_of(update) for update in (1, a_step, a_step + 1, updates)] == [1, 1, 2, grpo.max_steps]


def test_a_dual_clip_of_0_is_off(tmp_path: Path) -> None:
    assert config(tmp_path, delta=0).delta is None


def test_the_challengers_defaults_are_its_own(tmp_path: Path) -> None:
    from selfevo_trainer.grpo.config import grpo_config

    made = grpo_config(ChallengerGrpo(), LOADING, 0, tmp_path)
    assert (made.max_steps, made.num_generations) == (5, 4)
    assert made.gradient_accumulation_steps * made.per_device_train_batch_size == 512 * 4


# --- schedule ---------------------------------------------------------------------------------------------------------

sizes = st.fixed_dictionaries(
    {
        "maxSteps": st.integers(0, 30),
        "promptsPerStep": st.integers(1, 40),
        "numIterations": st.integers(1, 5),
        "numGenerations": st.just(2),
        "perDeviceTrainBatchSize": st.just(1),
    }
)


@hypothesis_settings(deadline=None)
@given(sizes=sizes, rows=st.integers(1, 100), seed=st.integers(0, 2**31 - 1))
def test_a_schedule_is_whole_permutations_one_after_another(sizes: dict[str, int], rows: int, seed: int) -> None:
    from selfevo_trainer.grpo.dealing import schedule

    grpo = Grpo.model_validate(sizes)
    order = schedule(rows, grpo, seed)
    assert len(order) == grpo.max_steps * grpo.prompts_per_step
    for start in range(0, len(order), rows):
        part = order[start : start + rows]
        assert len(set(part)) == len(part)
        if len(part) == rows:
            assert sorted(part) == list(range(rows))
    assert schedule(rows, grpo, seed) == order


def test_another_seed_is_another_order() -> None:
    from selfevo_trainer.grpo.dealing import schedule

    orders = {tuple(schedule(50, Grpo(), seed)) for seed in range(20)}
    assert len(orders) == 20


def test_a_longer_training_begins_as_the_shorter_one() -> None:
    from selfevo_trainer.grpo.dealing import schedule

    short, long = (schedule(37, Grpo.model_validate({"maxSteps": steps}), 3) for steps in (4, 9))
    assert long[: len(short)] == short


def test_the_global_random_state_neither_matters_nor_moves() -> None:
    import torch

    from selfevo_trainer.grpo.dealing import schedule

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = schedule(20, Grpo(), 5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert schedule(20, Grpo(), 5) == first


@given(
    updates=st.integers(1, 6),
    blocks=st.integers(1, 6),
    processes=st.sampled_from([1, 2, 3]),
    seed=st.integers(0, 9),
)
@hypothesis_settings(max_examples=50, deadline=None)
def test_an_update_has_the_same_completions_however_many_processes_there_are(
    updates: int, blocks: int, processes: int, seed: int
) -> None:
    from selfevo_trainer.grpo.dealing import deal

    rows = updates * blocks  # of each process
    alone = deal(processes * rows, updates, 0, seed)
    assert sorted(alone) == list(range(processes * rows))
    a_share = len(alone) // updates
    for update in range(updates):
        together = [
            rank * rows + row
            for rank in range(processes)
            for row in deal(rows, updates, rank * rows, seed)[update * blocks : (update + 1) * blocks]
        ]
        assert together == alone[update * a_share : (update + 1) * a_share]


def test_completions_are_dealt_out_anew_in_each_step() -> None:
    from selfevo_trainer.grpo.dealing import deal

    assert len({tuple(deal(24, 4, 0, seed)) for seed in range(5)}) == 5


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        ("float32", "grpo.sharding is 'fsdp', and there is no GPU here; remove grpo.sharding"),
        ("float16", "grpo.sharding is 'fsdp', and spec.model.dtype is 'float16'; set spec.model.dtype to bfloat16"),
    ],
)
def test_sharding_that_would_be_none_is_refused(tmp_path: Path, dtype: Any, message: str) -> None:
    from selfevo_contract.errors import InputError
    from selfevo_trainer.grpo.config import grpo_config

    with pytest.raises(InputError) as refused:
        grpo_config(Grpo(sharding="fsdp"), Loading(dtype=dtype, trust_remote_code=False), 11, tmp_path, 2)
    assert str(refused.value) == message


def test_shares_in_cpu_memory_are_summed_there_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """accelerate opens gloo beside NCCL where these say so before it opens the process group."""
    from selfevo_trainer.grpo import sharding

    monkeypatch.setattr(sharding, "check_machine", lambda _: None)
    names = ("ACCELERATE_USE_FSDP", "FSDP_OFFLOAD_PARAMS")
    for name in names:
        monkeypatch.setenv(name, "before")
    made = [sharding.arguments(LOADING, offloaded=offloaded)["fsdp_config"] for offloaded in (False, True)]
    assert made[1] == {**made[0], "cpu_offload": True} and "cpu_offload" not in made[0]
    assert [os.environ[name] for name in names] == ["true", "true"]
