"""Every example is a run that can be started, and its keys move only on purpose.

Keys are what outputs are found by: a key that moves without a reason trains everything again. After a deliberate
change: SELFEVO_UPDATE_GOLDEN=1 pytest tests/contract/test_examples.py, and say in the commit why they moved.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from selfevo.manifest import load
from selfevo_contract.plan import plan
from selfevo_contract.run import SelfEvolutionRun, refuse_what_is_not_built
from selfevo_contract.sizing.memory import named_gpus
from selfevo_contract.spec.engines import ServerEngine

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
GOLDEN = ROOT / "tests" / "golden" / "keys.json"
# Names a folder that the reader has yet to fill in.
WITHOUT_MODEL = {"own-model.yaml"}


def run_of(path: Path) -> SelfEvolutionRun:
    if path.name in WITHOUT_MODEL:
        return SelfEvolutionRun.model_validate(yaml.safe_load(path.read_text()))
    return load(path)


def test_the_examples_are_all_there() -> None:
    assert {path.name for path in EXAMPLES} >= {
        "arithmetic.yaml",
        "arithmetic-lora.yaml",
        "frontier.yaml",
        "writing.yaml",
        "own-model.yaml",
        "smollm2-135m-instruct.yaml",
        "qwen3-4b-base.yaml",
        "qwen3-4b-lora.yaml",
        "qwen3-8b-base.yaml",
        "octothinker-3b-hybrid-base.yaml",
        "octothinker-8b-hybrid-base.yaml",
    }


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_validates_and_asks_for_what_is_built(path: Path) -> None:
    refuse_what_is_not_built(run_of(path).spec)


def test_the_example_with_finetuning_in_place_of_its_comment_validates(tmp_path: Path) -> None:
    text = (ROOT / "examples" / "arithmetic.yaml").read_text()
    block = text[text.index("  # finetune:") : text.index("  # The held-out questions may not be asked.")]
    written = text.replace(block, block.replace("\n  # ", "\n  ").replace("  # finetune", "  finetune", 1))
    for name in ("base", "labelled.jsonl", "heldout.jsonl"):
        written = written.replace(f"file:arithmetic/{name}", f"file://{ROOT}/examples/arithmetic/{name}")
    path = tmp_path / "arithmetic.yaml"
    path.write_text(written)
    finetune = load(path).spec.finetune
    assert finetune is not None and finetune.data.digest is not None and finetune.batch == 32


@pytest.mark.parametrize("path", [p for p in EXAMPLES if p.stem.endswith("-base")], ids=lambda path: path.stem)
def test_the_references_settings(path: Path) -> None:
    spec = run_of(path).spec
    assert spec.iterations == 3 and spec.challenger.reward.mode == spec.solver.reward.mode == "paper"
    challenger, solver = spec.challenger.grpo, spec.solver.grpo
    assert (challenger.max_steps, challenger.prompts_per_step, challenger.prompts_per_update) == (5, 512, 16)
    assert (solver.max_steps, solver.prompts_per_step, solver.prompts_per_update) == (15, 512, 128)
    assert (challenger.num_generations, solver.num_generations) == (4, 5)
    assert (challenger.updates_per_step, challenger.updates) == (32, 160)
    assert (solver.updates_per_step, solver.updates) == (4, 60)
    assert spec.challenger.question_sampling is not None and spec.challenger.question_sampling.top_p == 0.95
    for grpo in (challenger, solver):
        assert (grpo.rate, grpo.weight_decay, grpo.beta, grpo.max_grad_norm) == (1e-6, 0.01, 0.01, 1.0)
        assert (grpo.epsilon, grpo.epsilon_high, grpo.delta) == (0.2, 0.3, 3.0)
        assert (grpo.temperature, grpo.top_p) == (1.0, 0.99)
        assert (grpo.max_completion_length, grpo.loss_type, grpo.scale_rewards) == (4096, "grpo", "group")
    assert (spec.rollout.questions, spec.rollout.samples) == (8000, 10)
    assert (spec.rollout.band.min, spec.rollout.band.max) == (0.25, 0.75)


@pytest.mark.parametrize("path", [p for p in EXAMPLES if p.stem.endswith("-base")], ids=lambda path: path.stem)
def test_a_training_takes_the_eight_gpus_of_a_node_and_vllm_writes_all_texts(path: Path) -> None:
    spec = run_of(path).spec
    frozen = spec.challenger.engine
    assert isinstance(frozen, ServerEngine) and frozen.gpus_in_all == 3
    for role, beside in ((spec.challenger, frozen.gpus_in_all), (spec.solver, 0)):
        policy = role.grpo.policy_server
        assert policy is not None and role.grpo.sharded
        assert named_gpus(spec, role.pods) + policy.gpus_in_all + beside == 8
    assert {spec.rollout.engine.kind, spec.evaluation.engine.kind} == {"vllm"}


def test_keys_of_the_examples_are_as_they_were() -> None:
    keys = {path.stem: {step.name: step.key for step in plan(run_of(path).spec).steps} for path in EXAMPLES}
    if os.environ.get("SELFEVO_UPDATE_GOLDEN"):
        GOLDEN.write_text(json.dumps(keys, indent=1) + "\n")
    assert keys == json.loads(GOLDEN.read_text())
