"""Training on completions that the real vLLM drew in the same process: the weights come over, a seed means the same
bytes, a resumed training too, and weights that did not come over are noticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.curricula import give_curriculum
from harness.inprocess import Phases
from harness.tiny import settings, write_questions
from harness.vllm import Vllm
from runs import arithmetic
from selfevo_contract.errors import ServiceError
from selfevo_contract.process import PhaseResult
from selfevo_contract.rows import METRICS
from selfevo_contract.spec.grpo import Grpo
from selfevo_trainer.grpo.vllm_policy import DIFFERENCE, check_difference

pytestmark = pytest.mark.slow  # transformers and TRL are a worker's first ten seconds

TRAIN = "solver-train-1"
MADE: dict[str, dict[str, Any]] = {
    "first": {},
    "second": {},
    "stopped": {},
    "top-p": {"topP": 0.9},
    "adapter": {"lora": {"rank": 4}, "learningRate": 1e-2},
    "stale": {},
}
HAPPENS = {"stopped": "sigterm", "stale": "stale"}


def phases(folder: Path, **grpo: Any) -> Phases:
    folder.mkdir(exist_ok=True)
    over = {
        "solver": {
            "checkpointEvery": 1,
            "grpo": {"generation": "vllm", "maxSteps": 4, "topP": 1.0, "learningRate": 1e-3, **grpo},
        }
    }
    made = Phases(
        arithmetic(settings(over, questions=write_questions(folder / "heldout.jsonl", 4)), store=folder / "store"),
        folder,
    )
    give_curriculum(made)
    return made


def result(made: Phases) -> PhaseResult:
    return PhaseResult.model_validate_json((made.folder / "result.json").read_bytes())


def test_without_a_gpu_it_is_refused(tmp_path: Path) -> None:
    ended = phases(tmp_path / "run")(TRAIN)
    assert (ended.code, ended.result.outcome) == (2, "failed")
    assert ended.result.message == (
        "grpo.generation is 'vllm', and there is no GPU here; choose grpo.generation 'transformers'"
    )


def grpo(**settings: Any) -> Grpo:
    return Grpo.model_validate({"topP": 1.0, **settings})


def test_the_newest_difference_counts() -> None:
    check_difference(grpo(), [])
    check_difference(grpo(), [{DIFFERENCE: 0.2}, {DIFFERENCE: 0.049}, {"loss": 1.0}])
    with pytest.raises(ServiceError, match=r"mean 0\.051, at most 0\.05\): it serves other weights; try again"):
        check_difference(grpo(), [{DIFFERENCE: 0.01}, {DIFFERENCE: 0.051}, {"loss": 1.0}])


def test_what_sampling_leaves_out_is_no_fault() -> None:
    half = grpo(topP=0.5)  # what is left is up to twice as likely
    check_difference(half, [{DIFFERENCE: 0.74}])
    with pytest.raises(ServiceError, match=r"0\.75, at most 0\.743"):
        check_difference(half, [{DIFFERENCE: 0.75}])
    check_difference(grpo(topK=2), [{DIFFERENCE: 5.0}])  # no bound is known


@pytest.fixture(scope="module")
def made(vllm: Vllm, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Phases]:
    folder = tmp_path_factory.mktemp("policy")
    runs = {name: phases(folder / name, **grpo) for name, grpo in MADE.items()}
    trainings = [
        {"environment": dict(run.environment(TRAIN)), "happens": HAPPENS.get(name, "")} for name, run in runs.items()
    ]
    trainings.append({"environment": dict(runs["stopped"].environment(TRAIN)), "happens": ""})
    file = folder / "trainings.json"
    file.write_text(json.dumps(trainings))
    assert vllm.answer("-m", "harness.vllm_policy", file) == [0, 0, 143, 0, 0, 3, 0]
    return runs


def test_the_weights_come_over_before_each_step(made: dict[str, Phases]) -> None:
    for name in ("first", "adapter"):
        found = [row[DIFFERENCE] for row in made[name].rows(TRAIN, METRICS) if DIFFERENCE in row]
        assert len(found) == 4 and max(found) < 1e-4, name
        assert (result(made[name]).tokens or 0) > 4 * 8  # what a budget counts
    # What topP leaves out makes the rest likelier.
    top_p = max(row[DIFFERENCE] for row in made["top-p"].rows(TRAIN, METRICS) if DIFFERENCE in row)
    assert 1e-4 < top_p < 0.105


def test_a_seed_means_the_same_bytes_and_a_resumed_training_too(made: dict[str, Phases]) -> None:
    model = made["first"].read(TRAIN, "model/model.safetensors")
    assert model == made["second"].read(TRAIN, "model/model.safetensors")
    assert model == made["stopped"].read(TRAIN, "model/model.safetensors")
    assert model != made["top-p"].read(TRAIN, "model/model.safetensors")


def test_weights_that_do_not_come_over_end_the_training(made: dict[str, Phases]) -> None:
    left = result(made["stale"])
    assert (left.reason, left.exit_code) == ("OtherWeightsServed", 3)
    assert "it serves other weights; try again" in left.message
    assert made["stale"].manifest(TRAIN) is None
