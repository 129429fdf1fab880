"""Roles that are low-rank adapters on one base: what is trained, what is stored, what the next phase begins with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from harness.inprocess import Phases, sigterm
from harness.nth_call import at_call
from harness.tiny import BASE, settings, write_questions
from runs import example

pytestmark = pytest.mark.slow

LORA = {"rank": 4, "alpha": 8.0}
TWO: dict[str, Any] = {
    "iterations": 2,
    "challenger": {"grpo": {"lora": {**LORA, "rank": 2}, "learningRate": 0.002}},
    "solver": {"grpo": {"lora": LORA, "learningRate": 0.002}, "checkpointEvery": 1},
}


def made(folder: Path, over: dict[str, Any] = TWO) -> Phases:
    """The example for adapters, scaled down."""
    questions = write_questions(folder / "heldout.jsonl", 4)
    run = example("arithmetic-lora", settings(over, questions=questions), store=folder / "store")
    return Phases(run, folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Phases:
    """Two iterations, every step done."""
    phases = made(tmp_path_factory.mktemp("adapters"))
    for step in phases.plan.steps:
        for shard in range(step.shards):
            ended = phases(step.name, shard)
            assert ended.code == 0, ended.log
    return phases


def adapter(phases: Phases, name: str) -> dict[str, Any]:
    from safetensors.torch import load

    return load(phases.read(name, "model/adapter_model.safetensors"))


def test_an_artifact_is_the_adapter_alone_and_says_on_which_base(whole: Phases) -> None:
    names = {file.name for file in whole.committed("solver-train-1").under("model")}
    assert "model/adapter_model.safetensors" in names and "model/config.json" in names
    assert "model/model.safetensors" not in names and not any("ref" in name for name in names)
    config = json.loads(whole.read("solver-train-1", "model/adapter_config.json"))
    assert config["base_model_name_or_path"] == whole.run.spec.model.uri
    assert config["target_modules"] == sorted(config["target_modules"]) and len(config["target_modules"]) > 1
    assert (config["r"], config["lora_alpha"]) == (4, 8.0)
    assert json.loads(whole.read("challenger-train-1", "model/adapter_config.json"))["r"] == 2


def test_the_second_iteration_goes_on_with_the_firsts_adapter(whole: Phases) -> None:
    import torch

    first, second = adapter(whole, "solver-train-1"), adapter(whole, "solver-train-2")
    assert first.keys() == second.keys()
    moved = max(float((first[name] - second[name]).abs().max()) for name in first)
    assert 0 < moved < 0.1  # another beginning would differ by the size of the weights
    assert any(torch.count_nonzero(value) for name, value in first.items() if "lora_B" in name)


def test_the_reference_is_the_adapter_that_the_phase_began_with(
    whole: Phases,
) -> None:
    """Not the bare base: in the first update of iteration 2 nothing has moved yet, and the KL divergence is zero."""
    rows = [json.loads(line) for line in whole.read("solver-train-2", "metrics.jsonl").splitlines()]
    assert abs(rows[0]["kl"]) < 1e-6 < abs(rows[-1]["kl"])


def test_base_and_adapter_compute_what_was_trained(whole: Phases, tmp_path: Path) -> None:
    """Loaded for generation, and merged into one folder: the same log-probabilities; not the base's."""
    from selfevo_contract.phases import Loading
    from selfevo_contract.spec.engines import TransformersEngine
    from selfevo_store import fetch
    from selfevo_trainer.engines import Frozen, open_engine
    from selfevo_trainer.models import adapters

    name = "solver-train-2"
    fetch(whole.store, whole.prefix(name), whole.committed(name), tmp_path, folder="model")
    adapters.put_on(tmp_path / "model", BASE)
    adapters.merge(BASE, tmp_path / "model", tmp_path / "merged")
    loading = Loading(dtype="float32", trust_remote_code=False)
    scores = []
    for path in (tmp_path / "model", tmp_path / "merged", BASE):
        engine = open_engine(TransformersEngine(), Frozen(path, loading, "a", "model", 0))
        scores.append(engine.score([list(range(5, 40))])[0])
        engine.close()
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    assert max(abs(a - b) for a, b in zip(scores[0], scores[2], strict=True)) > 1e-3


def test_the_command_writes_whole_weights(whole: Phases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import load_file
    from typer.testing import CliRunner

    from selfevo.main import app

    monkeypatch.setattr("selfevo.opened.load", lambda *_, **__: whole.run)
    where = ["run.yaml", "--workdir", str(tmp_path / "work"), "--iteration", "2"]
    for name, more in (("adapter", []), ("merged", ["--merge"])):
        ended = CliRunner().invoke(app, ["artifacts", "fetch", *where, "--to", str(tmp_path / name), *more])
        assert ended.exit_code == 0, ended.exception
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    merged, base = load_file(tmp_path / "merged" / "model.safetensors"), load_file(BASE / "model.safetensors")
    assert merged.keys() == base.keys()
    moved = {name for name in base if not merged[name].equal(base[name])}
    assert moved and all(name.endswith("_proj.weight") for name in moved)
    assert not (tmp_path / "merged" / "adapter_config.json").exists()


def test_a_stopped_training_goes_on_and_ends_with_the_same_bytes(
    whole: Phases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from selfevo_trainer import solver_rewards

    phases = made(tmp_path)
    for name in ("challenger-train-1", "solver-rollout-1", "solver-rollout-1"):
        shards = phases.step(name).shards
        for shard in range(shards):
            assert phases(name, shard).code == 0
    at_call(monkeypatch, solver_rewards.SolverReward, "__call__", 2, sigterm)
    assert phases("solver-train-1").code == 143
    again = phases("solver-train-1")
    assert (again.code, again.result.resumed_from) == (0, 1), again.log
    name = "model/adapter_model.safetensors"
    assert phases.read("solver-train-1", name) == whole.read("solver-train-1", name)


BAD = [
    ({"targetModules": ["no_such_proj"]}, ["grpo.lora.targetModules", "no_such_proj", "q_proj"]),
    ({"targetModules": ["lm_head"]}, ["grpo.lora.targetModules", "lm_head"]),
]


@pytest.mark.parametrize(("lora", "words"), BAD)
def test_targets_that_cannot_be_adapted_are_a_sentence(tmp_path: Path, lora: dict[str, Any], words: list[str]) -> None:
    from harness.curricula import give_curriculum

    phases = made(tmp_path, {"solver": {"grpo": {"lora": {**LORA, **lora}}}})
    give_curriculum(phases)
    ended = phases("solver-train-1")
    assert ended.code == 2 and "Traceback" not in ended.log, ended.log
    assert all(word in ended.result.message for word in words), ended.result.message


@pytest.fixture(scope="module")
def new_adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On the base, as a phase finds it."""
    from selfevo_contract.spec.lora import Lora
    from selfevo_trainer.models import adapters
    from selfevo_trainer.models.loading import load_for_training

    folder = tmp_path_factory.mktemp("new") / "model"
    load_for_training(BASE, loading(), Lora(**LORA)).save_pretrained(folder)
    adapters.complete(folder, BASE, BASE.as_uri())
    adapters.put_on(folder, BASE)
    return folder


def loading() -> Any:
    from selfevo_contract.phases import Loading

    return Loading(dtype="float32", trust_remote_code=False)


@pytest.mark.parametrize(
    ("lora", "says"),
    [
        (
            None,
            "the model to begin with is an adapter and grpo.lora is not given, by which whole weights are trained; ",
        ),
        (
            {"rank": 8, "alpha": 8.0},
            "grpo.lora has rank 8 and alpha 8.0, and the adapter to begin with has rank 4 and ",
        ),
    ],
)
def test_an_adapter_is_gone_on_with_as_it_was_made_or_not_at_all(
    new_adapter: Path, lora: dict[str, Any] | None, says: str
) -> None:
    from selfevo_contract.errors import InputError
    from selfevo_contract.spec.lora import Lora
    from selfevo_trainer.models.loading import load_for_training

    with pytest.raises(InputError) as refused:
        load_for_training(new_adapter, loading(), Lora(**lora) if lora else None)
    assert str(refused.value).startswith(says)


def test_an_adapter_of_another_base_is_a_sentence(new_adapter: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    from selfevo_contract.errors import InputError
    from selfevo_contract.spec.lora import Lora
    from selfevo_trainer.models import adapters
    from selfevo_trainer.models.loading import load_for_training

    config = AutoConfig.from_pretrained(BASE)
    config.intermediate_size *= 2
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "other")
    moved = Path(shutil.copytree(new_adapter, tmp_path / "adapter"))
    adapters.put_on(moved, tmp_path / "other")
    with pytest.raises(InputError) as refused:
        load_for_training(moved, loading(), Lora(**LORA))
    assert "does not fit the base model (" in str(refused.value)
    assert str(refused.value).endswith("; it was trained on another one: set spec.model to that")
