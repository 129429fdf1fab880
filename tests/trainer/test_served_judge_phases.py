"""Phases whose judge is in a server: in their pod, beside a frozen Solver's, or one that the trainer starts. A stand-in
serves, and once the real vLLM (its CPU build)."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.inprocess import Phases
from harness.judged import ASKING, ROLLOUT, TRAINING, WRITING, begun, scores, writing
from harness.openai_standin import Reply, Standin, openai_server
from harness.processes import alive
from harness.sidecar import LIMIT_S, Sidecar, eventually, started, with_fake_vllm
from harness.vllm import Vllm
from selfevo_contract.errors import ExitCode
from selfevo_contract.judging import JUDGE_FILE, Verdict
from selfevo_contract.phases import Loading
from selfevo_contract.process import CONFIG_ENV, SERVER_URL_ENV, PhaseResult

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
FAKE = ROOT / "tests" / "harness" / "fake_vllm"


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Phases:
    """The run without a server, up to its rollout."""
    phases = begun(writing(tmp_path_factory.mktemp("before")))
    ended = phases(ROLLOUT)
    assert ended.code == 0, ended.result.message
    return phases


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder where vLLM's processes leave their command lines."""
    return with_fake_vllm(monkeypatch, tmp_path)


def copied(before: Phases, folder: Path, *without: str, **over: Any) -> Phases:
    """The same run with a server for its judge, without what these steps made."""
    phases = writing(folder, over, server={"startupSeconds": 600})
    shutil.copytree(before.folder / "store", folder / "store")
    for step in without:
        assert phases.step(step).key == before.step(step).key  # where the judge is read is no input
        shutil.rmtree(folder / "store" / phases.prefix(step), ignore_errors=True)
    return phases


def name_of(phases: Phases) -> str:
    verdict = Verdict.model_validate_json(phases.read("verifier-train-0", JUDGE_FILE))
    return f"judge/{verdict.digest}"


@pytest.fixture
def served(before: Phases, monkeypatch: pytest.MonkeyPatch) -> Iterator[Standin]:
    """A server of the judge, as a pod has it: it scores the last token of a row."""
    import torch

    from selfevo_trainer.judges.scalar import ScalarJudge

    model = ScalarJudge.load(WRITING / "judge", Loading(dtype="float32", trust_remote_code=False), 96, "").model
    model.config.pad_token_id = None

    def score(row: list[int]) -> float:
        with torch.inference_mode():
            return float(model(input_ids=torch.tensor([row])).logits[0, 0])

    with openai_server(name_of(before)) as standin:
        standin.score = score
        listed = {"data": [{"id": name_of(before), "urls": [standin.url]}]}
        standin.wrong["/v1/models"] = lambda _: Reply(content=listed)
        monkeypatch.setenv(SERVER_URL_ENV, standin.url)
        yield standin


def test_a_rollout_and_a_training_have_the_scores_of_transformers(
    before: Phases, served: Standin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phases = copied(before, tmp_path, ROLLOUT)
    ended = phases(ROLLOUT)
    assert ended.code == 0, ended.log
    assert "the judge's server computes what transformers did: the margins of 16 anchors differ by" in ended.log
    assert len(scores(before)) > 60 and scores(phases) == pytest.approx(scores(before), abs=1e-5)
    assert phases(TRAINING).code == 0
    monkeypatch.delenv(SERVER_URL_ENV)
    assert before(TRAINING).code == 0
    rewards = [run.committed(TRAINING).metrics["reward_last"] for run in (phases, before)]
    assert rewards[0] == pytest.approx(rewards[1], abs=1e-5)


def test_a_rollout_is_scored_by_vllm_as_by_transformers(vllm: Vllm, before: Phases, tmp_path: Path) -> None:
    phases = copied(before, tmp_path, ROLLOUT)
    environment = phases.environment(ROLLOUT)
    assert json.loads(environment[CONFIG_ENV])["judgeServer"]["replicas"] == 1
    vllm.run("-m", "selfevo_trainer", extra=environment)
    there, here = scores(before), scores(phases)
    assert len(there) == len(here) > 60
    assert max(abs(a - b) for a, b in zip(there, here, strict=True)) < 1e-4


@pytest.mark.parametrize("wrong", [lambda score: -score, lambda score: score / 2, lambda score: 0.0])
def test_a_server_that_computes_another_score_is_not_believed(
    before: Phases, served: Standin, tmp_path: Path, wrong: Callable[[float], float]
) -> None:
    right = served.score
    assert right is not None
    served.score = lambda row: wrong(right(row))
    ended = copied(before, tmp_path, ROLLOUT)(ROLLOUT)
    assert (ended.code, ended.result.reason) == (int(ExitCode.INPUT), "OtherWeightsServed")
    assert ended.result.message.startswith("spec.verifier.server gives 16 of the judge's anchors other margins than")


def test_a_judges_server_that_cannot_start_is_a_sentence(
    before: Phases, left: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM", "raise ValueError: Free memory is less than desired GPU memory utilization")
    ended = copied(before, tmp_path, ROLLOUT)(ROLLOUT)
    assert ended.code == int(ExitCode.INPUT)
    assert "with spec.verifier.server.gpuMemoryUtilization 0.9" in ended.result.message
    assert "give it more or larger GPUs (spec.verifier.server.gpus)" in ended.result.message


def test_beside_a_frozen_solver_the_judge_has_a_server_of_its_own_in_the_pod(
    before: Phases, left: Path, tmp_path: Path
) -> None:
    grpo = {"promptsPerStep": 2, "numGenerations": 4, "perDeviceTrainBatchSize": 8, "maxSteps": 1}
    engine = {"kind": "server", "batchSize": None, "startupSeconds": 600, "fingerprint": "off"}
    phases = copied(before, tmp_path, ASKING, challenger={"grpo": grpo, "checkpointEvery": 1, "engine": engine})
    pod, judge, base = Sidecar(phases, ASKING, tmp_path), name_of(phases), f"file://{WRITING / 'base'}"
    assert pod.fetch() == 0
    pod.start()
    try:
        listed = {one["id"]: one["urls"] for one in pod.answers("/v1/models", 200).json()["data"]}
        assert {name: len(urls) for name, urls in listed.items()} == {base: 1, judge: 1}
        servers = {server["served_model_name"][0]: server for server in started(left)}
        # Neither shares the other's GPUs.
        assert {server["gpu_memory_utilization"] for server in servers.values()} == {0.9}
        how = [tuple(servers[name][of] for of in ("runner", "convert")) for name in (base, judge)]
        assert how == [("", ""), ("pooling", "classify")] and servers[judge]["max_model_len"] == 96
        # The trainer asks both there, and starts nothing.
        ended = phases(ASKING, environment={SERVER_URL_ENV: f"http://127.0.0.1:{pod.port}"})
        assert ended.code == 0, ended.log
        assert "score_first" in phases.committed(ASKING).metrics and len(started(left)) == 2
        os.kill(servers[judge]["pid"], signal.SIGKILL)
        assert pod.process is not None and pod.process.wait(LIMIT_S) == int(ExitCode.SERVICE)
    finally:
        if pod.process is not None and pod.process.poll() is None:
            pod.process.terminate()
            pod.process.wait(LIMIT_S)
    message = PhaseResult.model_validate_json(pod.termination.read_bytes()).message
    assert f"the server of {judge} was ended by signal 9" in message
    eventually(lambda: not any(alive(server["pid"]) for server in started(left)), "a server outlived its parent")
