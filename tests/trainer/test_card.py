"""A GPU that is too small is reported before anything is computed, by the whole phase."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from harness.inprocess import Phases
from harness.tiny import settings, write_questions
from runs import EXAMPLES, arithmetic, by_transformers
from selfevo_contract.errors import InputError
from selfevo_contract.plan import plan
from selfevo_contract.process import phase_config
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.sizing.architecture import MODELS
from selfevo_contract.sizing.fit import least_gib
from selfevo_contract.sizing.memory import needs
from selfevo_trainer.inputs import card


@pytest.mark.parametrize("example", ["qwen3-4b-base", "qwen3-4b-lora"])
def test_the_trainer_asks_by_the_formula_that_the_operator_asks_by(example: str) -> None:
    spec = SelfEvolutionRun.model_validate(by_transformers(example)).spec
    model = MODELS["Qwen3-4B-Base"]
    asked = {need.phase: need for need in needs(spec, model)}
    for step in plan(spec).steps:
        config = phase_config(spec, "run", "namespace", step, attempt="test")
        here = card.need_of(step.inputs, config.engine, model, asked[step.phase].gpus)
        assert here is not None
        there = asked[step.phase]
        same = here if here.backward else replace(here, batch=there.batch, half_batch=there.half_batch)
        assert same == there
        assert least_gib(here) == least_gib(asked[step.phase])
    assert set(asked) == {step.phase for step in plan(spec).steps}


def test_cpu_memory_is_the_machines_or_its_limit(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    whole = card.cpu_memory(limit)
    assert whole > 1 << 28
    for written, there_is in (("max\n", whole), ("1048576\n", 1 << 20), (f"{2 * whole}\n", whole)):
        limit.write_text(written)
        assert card.cpu_memory(limit) == there_is


def test_a_pod_that_cannot_keep_its_shares_in_cpu_memory_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SelfEvolutionRun.model_validate(yaml.safe_load((EXAMPLES / "qwen3-4b-base.yaml").read_text())).spec
    step = next(step for step in plan(spec).steps if step.phase == "solver-train")
    config = phase_config(spec, "run", "namespace", step, attempt="test")
    inputs = step.inputs.model_copy(update={"grpo": step.inputs.grpo.model_copy(update={"cpu_offload": True})})
    context: Any = SimpleNamespace(config=config, rank=SimpleNamespace(size=8))
    monkeypatch.setattr(card, "card", lambda: ("NVIDIA H100", 79.0))
    monkeypatch.setattr(card, "architecture", lambda *_: MODELS["Qwen3-4B-Base"])
    monkeypatch.setattr(card, "cpu_memory", lambda: 60 << 30)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    card.check(context, inputs, Path())  # 37.5 GiB, for this pod has half of the processes
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    with pytest.raises(InputError) as refused:
        card.check(context, inputs, Path())
    assert str(refused.value).startswith(
        "this pod has 60.0 GiB of CPU memory, and solver-train with grpo.cpuOffload keeps 74.9 GiB in each pod's CPU"
    )
    assert refused.value.reason == "CpuMemoryTooSmall"


@pytest.mark.slow
@pytest.mark.parametrize("step", ["evaluate-0", "challenger-train-1"])
def test_a_phase_on_a_gpu_that_is_too_small_ends_with_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def run(memory: float) -> Any:
        monkeypatch.setattr(card, "card", lambda: ("NVIDIA T4", memory))
        return phases(step)

    questions = write_questions(tmp_path / "heldout.jsonl")
    phases = Phases(arithmetic(settings(questions=questions), store=tmp_path / "store"), tmp_path)
    ended = run(0.0001)
    assert (ended.code, ended.result.reason) == (2, "GpuTooSmall"), ended.log
    message = ended.result.message
    assert message.startswith("the GPU of this process (NVIDIA T4) has 0.0 GiB, and " + step.rpartition("-")[0])
    assert "selfevo size" in message and "Traceback" not in ended.log
    assert not ended.progress and phases.manifest(step) is None
    assert run(80.0).code == 0
