"""The real vLLM (its CPU build) beside a trainer: a whole rollout of the demo, scaled down, and what it computes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.inprocess import Phases
from harness.sidecar import Sidecar, give_challenger, with_servers
from harness.tiny import BASE
from harness.vllm import Vllm
from selfevo_contract.phases import Loading
from selfevo_contract.process import SERVER_URL_ENV
from selfevo_contract.rows import CURRICULUM, QUESTIONS
from selfevo_contract.spec.engines import ServerEngine, TransformersEngine
from selfevo_trainer.engines import Frozen, open_engine

pytestmark = pytest.mark.slow

QUESTIONS_ASKED = 120
ROLLOUT = {"rollout": {"questions": QUESTIONS_ASKED, "samples": 6, "shards": 1, "band": {"min": 0.3, "max": 0.9}}}
STEP = "solver-rollout-1"


@dataclass
class Served:
    """A sidecar of a rollout, ready."""

    url: str
    folder: Path


def phases(folder: Path, store: str, *, served: bool) -> Phases:
    made = with_servers(folder, ROLLOUT, store, parts=("rollout",) if served else (), startupSeconds=900)
    give_challenger(made)
    return made


@pytest.fixture(scope="module")
def served(vllm: Vllm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    pod = Sidecar(phases(folder, "first", served=True), STEP, folder, python=str(vllm.python))
    pod.environment = vllm.environment(pod.environment)
    assert pod.fetch() == 0
    pod.start()
    try:
        pod.answers("/health", 200, limit_s=900)
        yield Served(f"http://127.0.0.1:{pod.port}", folder)
    finally:
        assert pod.process is not None
        pod.process.terminate()
        try:
            pod.process.wait(60)
        except subprocess.TimeoutExpired:
            pod.process.kill()


def test_a_rollout_gives_the_same_rows_twice_and_a_curriculum_of_transformers_size(served: Served) -> None:
    runs = {name: phases(served.folder, name, served=name != "other") for name in ("first", "second", "other")}
    for name, run in runs.items():
        ended = run(STEP, environment={} if name == "other" else {SERVER_URL_ENV: served.url})
        assert ended.code == 0, ended.log
    for file in (CURRICULUM.name, QUESTIONS.name):
        assert runs["first"].read(STEP, file) == runs["second"].read(STEP, file)
    # Other random numbers, the same distribution: shares of 120 questions within four standard errors of a difference.
    ours, theirs = (dict(runs[name].committed(STEP).metrics) for name in ("first", "other"))
    for name in ("valid", "kept"):
        share = (ours[name] + theirs[name]) / (2 * QUESTIONS_ASKED)
        error = (2 * share * (1 - share) / QUESTIONS_ASKED) ** 0.5
        assert abs(ours[name] - theirs[name]) / QUESTIONS_ASKED <= 4 * error + 1e-9, (name, ours[name], theirs[name])
    assert ours["kept"] > 10


def test_log_probabilities_are_those_of_transformers(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVER_URL_ENV, served.url)
    weights = Frozen(BASE, Loading(dtype="float32", trust_remote_code=False), f"file://{BASE}", "solver", 0)
    specs: list[Any] = [ServerEngine.model_validate({"kind": "server"}), TransformersEngine()]
    rows = [list(range(5, 45)), list(range(60, 20, -1))]
    ours, theirs = (open_engine(spec, weights).score(rows) for spec in specs)
    differences = [abs(a - b) for x, y in zip(ours, theirs, strict=True) for a, b in zip(x, y, strict=True)]
    assert len(differences) == 78 and max(differences) < 1e-3
