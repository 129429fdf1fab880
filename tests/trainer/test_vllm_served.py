"""Training on completions that the real vLLM drew in a server beside it: the weights get there before each step, a seed
means the same bytes in a resumed training too, two processes may share the weights out, and a server that has other
weights, or is gone, is noticed. One server does for all trainings, which have it one after another."""

from __future__ import annotations

import json
import os
import signal
import socket
from contextlib import suppress
from typing import Any

import pytest

from harness.inprocess import Phases
from harness.sidecar import Sidecar
from harness.vllm import Vllm
from selfevo_contract.process import MASTER_PORT_ENV, SERVER_URL_ENV, WORKDIR_ENV
from selfevo_contract.rows import METRICS
from selfevo_trainer.grpo.vllm_policy import DIFFERENCE
from trainer.test_vllm_policy import TRAIN, phases, result

pytestmark = pytest.mark.slow  # a server's start is ten seconds of a core, and so is the trainings'

FSDP: dict[str, Any] = {"sharding": "fsdp", "perDeviceTrainBatchSize": 4}
RUNS: dict[str, dict[str, Any]] = {
    "first": {},
    "stopped": {},
    "sharded": FSDP,
    "adapter": {**FSDP, "lora": {"rank": 4}, "learningRate": 1e-2},
    "colocated": {"vllmMode": "colocate"},
    "stale": {},
    "lost": {},
}
TRAININGS = [
    ("first", "", 0),
    ("stopped", "sigterm", 143),
    ("stopped", "", 0),
    ("sharded", "", 0),
    ("adapter", "", 0),
    ("colocated", "", 0),
    ("stale", "stale", 3),
    ("lost", "lost", 3),  # the last: the server is gone
]


@pytest.fixture(scope="module")
def made(vllm: Vllm, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Phases]:
    folder = tmp_path_factory.mktemp("served")
    runs = {name: phases(folder / name, **{"vllmMode": "server", **grpo}) for name, grpo in RUNS.items()}
    sidecar = Sidecar(runs["first"], TRAIN, folder, str(vllm.python))
    number = folder / "server.pid"
    sidecar.environment |= {**vllm.environment(), "SERVER_PID_FILE": str(number)}
    assert sidecar.fetch() == 0
    sidecar.start(["-m", "harness.weights_on_cpu"])
    assert sidecar.process is not None
    taken = socket.create_server(("", 0))
    try:
        sidecar.answers("/health", 200)
        beside = {SERVER_URL_ENV: f"http://127.0.0.1:{sidecar.port}", "SERVER_PID": str(sidecar.process.pid)}
        trainings = []
        for name, happens, _ in TRAININGS:
            pod = folder / f"pod-{name}" if "sharding" in RUNS[name] else None
            environment = {**runs[name].environment(TRAIN), **beside}
            if name == "colocated":  # one process joins nobody, whatever its environment says
                environment[MASTER_PORT_ENV] = str(taken.getsockname()[1])
            if pod is not None:
                pod.mkdir()
                environment[WORKDIR_ENV] = str(pod / "work")
            trainings.append({"environment": environment, "happens": happens, "folder": str(pod or "")})
        (file := folder / "trainings.json").write_text(json.dumps(trainings))
        assert vllm.answer("-m", "harness.served_policy", file) == [code for _, _, code in TRAININGS]
    finally:
        taken.close()
        sidecar.process.kill()
        sidecar.process.wait()
        # Of a server that is asked for something while it ends, vLLM waits for an answer that nobody gives any more.
        with suppress(ProcessLookupError, FileNotFoundError):
            os.killpg(int(number.read_text()), signal.SIGKILL)
    return runs


@pytest.mark.parametrize("name", ["first", "sharded", "adapter"])
def test_the_weights_get_there_before_each_step(made: dict[str, Phases], name: str) -> None:
    found = [row[DIFFERENCE] for row in made[name].rows(TRAIN, METRICS) if DIFFERENCE in row]
    assert len(found) == 4 and max(found) < 1e-4
    assert (result(made[name]).tokens or 0) > 4 * 8  # what a budget counts


def test_processes_that_share_the_weights_out_train_what_one_trains(made: dict[str, Phases]) -> None:
    folder = made["sharded"].folder.parent / "pod-sharded"
    shares = [json.loads((folder / f"shares-{rank}.json").read_text()) for rank in (0, 1)]
    assert all(0.4 < each["policy"] < 0.6 for each in shares)
    ones, twos = (made[name].rows(TRAIN, METRICS)[0] for name in ("first", "sharded"))
    # Of the first step: the later ones' weights differ by rounding, and so may what is drawn from them.
    assert ones["reward"] == twos["reward"] and ones["completions/mean_length"] == twos["completions/mean_length"]
    assert ones["grad_norm"] == pytest.approx(twos["grad_norm"], rel=1e-4)


@pytest.mark.parametrize("other", ["stopped", "colocated"])
def test_a_resumed_training_ends_with_the_same_bytes_and_one_in_the_other_mode(
    made: dict[str, Phases], other: str
) -> None:
    assert made["first"].digests(TRAIN) == made[other].digests(TRAIN)


def test_weights_that_do_not_get_there_end_the_training(made: dict[str, Phases]) -> None:
    left = result(made["stale"])
    assert (left.reason, left.exit_code) == ("OtherWeightsServed", 3)
    assert "it serves other weights; try again" in left.message
    assert made["stale"].manifest(TRAIN) is None


def test_a_server_that_dies_ends_the_attempt_which_is_tried_again(made: dict[str, Phases]) -> None:
    left = result(made["lost"])
    assert (left.reason, left.exit_code) == ("ServiceFailed", 3)
    assert left.message.startswith("the server of the policy ") and "next attempt begins with the last" in left.message
    assert made["lost"].manifest(TRAIN) is None and made["lost"].checkpoints(TRAIN) == [1]
