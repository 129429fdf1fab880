"""The models of real shapes that benchmarks/gpu.py makes: whatever they write is a valid question with an answer."""

from __future__ import annotations

from pathlib import Path

import pytest

import gpu_phases as gpu
import shapes
from selfevo_contract.phases import Loading
from selfevo_contract.plan import plan
from selfevo_trainer.answers.extraction import parse_challenger
from selfevo_trainer.engines import Frozen, open_engine
from selfevo_trainer.models.loading import load_tokenizer

pytestmark = pytest.mark.slow  # transformers

LOADING = Loading(dtype="float32", trust_remote_code=False)


def test_every_completion_is_a_valid_question_and_every_phase_has_its_share_of_tokens(tmp_path: Path) -> None:
    base = tmp_path / "base"
    parameters = shapes.write_model("tiny", base, "float32")
    assert parameters > 512 * 64
    tokenizer = load_tokenizer(base, LOADING)
    for ids in ([3], [511, 4, 3], [2, 300]):
        parsed = parse_challenger(tokenizer.decode(ids, skip_special_tokens=True))
        assert parsed is not None and f"w{ids[-1]} " in parsed.question

    run = gpu.manifest("tiny", base, tmp_path / "held-out.jsonl", tmp_path / "store", "transformers", "float32")
    steps = {step.phase: step for step in plan(run.spec).steps}
    size = gpu.SIZES["tiny"]
    completions = 2 * size["prompts"] * 4 * size["length"]  # two steps, four of each prompt
    assert gpu.generated(steps["solver-train"], 8) == completions
    assert gpu.generated(steps["challenger-train"], 8) == completions * 11  # each of them is answered ten times
    assert gpu.generated(steps["evaluate"], 8) == 8 * 5 * size["length"]

    sampling = steps["evaluate"].inputs.sampling
    engine = open_engine(run.spec.rollout.engine, Frozen(base, LOADING, "base", "model", 0))
    [group] = engine.generate([[{"role": "user", "content": "ask"}]], sampling, 3, 0)
    engine.close()
    assert [completion.tokens for completion in group] == [size["length"]] * 3
