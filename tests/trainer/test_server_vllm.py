"""The real vLLM (its CPU build) beside a trainer: a rollout of the demo, scaled down, by two adapters on one base.

That a server gives the same rows again, and those of vLLM in process, e2e/test_engines.py sees.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness.adapters import an_adapter
from harness.inprocess import Phases
from harness.sidecar import Sidecar, give_model, with_servers
from harness.vllm import Vllm
from selfevo_contract.phases import Loading
from selfevo_contract.process import SERVER_URL_ENV
from selfevo_contract.spec.engines import ServerEngine, TransformersEngine
from selfevo_trainer.engines import Frozen, open_engine

pytestmark = pytest.mark.slow

QUESTIONS_ASKED = 48
RANKS = {"challenger": 2, "solver": 12}
MADE_BY = {"challenger": "challenger-train-2", "solver": "solver-train-1"}
SETTINGS: dict[str, Any] = {
    "iterations": 2,
    **{role: {"grpo": {"lora": {"rank": rank, "alpha": 2.0 * rank}}} for role, rank in RANKS.items()},
    "rollout": {"questions": QUESTIONS_ASKED, "samples": 6, "shards": 1, "band": {"min": 0.3, "max": 0.9}},
}
STEP = "solver-rollout-2"
"""Of two adapters: in the first iteration the Solver is the base."""


@dataclass
class Served:
    """A sidecar of a rollout, ready."""

    url: str
    folder: Path
    adapters: dict[str, Path]


def phases(folder: Path, store: str, adapters: dict[str, Path]) -> Phases:
    made = with_servers(folder, SETTINGS, store, parts=("rollout",), startupSeconds=900)
    for role, name in MADE_BY.items():
        give_model(made, name, adapters[role])
    return made


@pytest.fixture(scope="module")
def served(vllm: Vllm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    # They write valid questions and right answers about as often as the base does.
    adapters = {role: an_adapter(folder / role, rank=rank, std=0.004, seed=rank) for role, rank in RANKS.items()}
    pod = Sidecar(phases(folder, "first", adapters), STEP, folder, python=str(vllm.python))
    pod.environment = vllm.environment(pod.environment)
    assert pod.fetch() == 0
    pod.start()
    try:
        pod.answers("/health", 200, limit_s=900)
        yield Served(f"http://127.0.0.1:{pod.port}", folder, adapters)
    finally:
        assert pod.process is not None
        pod.process.terminate()
        try:
            pod.process.wait(60)
        except subprocess.TimeoutExpired:
            pod.process.kill()


def test_a_rollout_by_two_adapters_writes_and_labels(served: Served) -> None:
    run = phases(served.folder, "store", served.adapters)
    ended = run(STEP, environment={SERVER_URL_ENV: served.url})
    assert ended.code == 0, ended.log
    metrics = run.committed(STEP).metrics
    assert metrics["valid"] > QUESTIONS_ASKED / 2 and metrics["kept"] > QUESTIONS_ASKED / 12


def test_one_server_holds_the_base_once_and_computes_each_adapter_by_its_name(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = httpx.get(f"{served.url}/v1/models", trust_env=False).json()["data"]
    names = {each["id"].partition("/")[0]: each["id"] for each in listed}
    [[url]] = {tuple(each["urls"]) for each in listed}
    theirs = httpx.get(f"{url}/v1/models", trust_env=False).json()["data"]
    assert {each["id"] for each in theirs if each["parent"]} == set(names.values())
    monkeypatch.setenv(SERVER_URL_ENV, served.url)
    rows = [list(range(5, 45)), list(range(60, 20, -1))]
    found: dict[str, list[list[float]]] = {}
    for role, made_by in MADE_BY.items():
        loading = Loading(dtype="float32", trust_remote_code=False)
        weights = Frozen(served.adapters[role], loading, names[made_by[:-2]], role, 0)
        specs: list[Any] = [ServerEngine.model_validate({"kind": "server"}), TransformersEngine()]
        found[role], by_transformers = (open_engine(spec, weights).score(rows) for spec in specs)
        assert apart(found[role], by_transformers) < 1e-3
    assert apart(found["challenger"], found["solver"]) > 0.02


def apart(some: list[list[float]], others: list[list[float]]) -> float:
    differences = [abs(a - b) for x, y in zip(some, others, strict=True) for a, b in zip(x, y, strict=True)]
    assert len(differences) == 78
    return max(differences)
