"""Servers that are started here: by `selfevo_trainer.serve` beside a trainer, or by the trainer. A stand-in serves.

The real vLLM does it in test_server_vllm.py.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.adapters import an_adapter
from harness.inprocess import Phases
from harness.processes import alive
from harness.sidecar import (
    LIMIT_S,
    Sidecar,
    eventually,
    give_challenger,
    give_model,
    started,
    with_fake_vllm,
    with_servers,
)
from harness.tiny import BASE
from selfevo_contract.errors import ExitCode, InputError
from selfevo_contract.phases import Loading
from selfevo_contract.process import (
    CONFIG_ENV,
    SERVER_URL_ENV,
    PhaseResult,
)
from selfevo_contract.rows import answers_of
from selfevo_contract.spec.engines import ServerEngine
from selfevo_trainer.engines.vllm_command import ServedModel, command_of, together
from selfevo_trainer.engines.vllm_server import JUDGE_WORDS, POLICY_WORDS, ended

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
FAKE = ROOT / "tests" / "harness" / "fake_vllm"
LOADING = Loading(dtype="float32", trust_remote_code=False)


@pytest.fixture(autouse=True)
def fake_vllm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder where vLLM's processes leave their command lines."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return with_fake_vllm(monkeypatch, tmp_path)


@pytest.fixture
def phases(tmp_path: Path) -> Callable[..., Phases]:
    """The demo with a server in every phase that generates."""

    def make(**engine: Any) -> Phases:
        # The stand-in has no weights, and what it says of log-probabilities is made up.
        settings = {"startupSeconds": 600, "fingerprint": "off", **engine}
        return with_servers(tmp_path, {"rollout": {"shards": 1}}, "store", **settings)

    return make


def all_gone(left: Path) -> bool:
    return all(not alive(server["pid"]) for server in started(left))


# --- by the trainer itself


def test_a_trainer_starts_its_server_and_ends_it(phases: Callable[..., Phases], fake_vllm: Path) -> None:
    made = phases()
    done = made("evaluate-0")
    assert (done.code, done.result.outcome) == (0, "committed"), done.log
    [server] = started(fake_vllm)
    assert (server["model"], server["served_model_name"]) == (str(BASE), [f"file://{BASE}"])
    assert (server["dtype"], server["generation_config"], server["load_format"]) == ("float32", "vllm", "safetensors")
    assert server["flashinfer_sampler"] == "0"  # each of our requests has a seed, which that one does not know
    assert "INFO loading" in done.log  # its log is in ours
    assert all_gone(fake_vllm)
    name = answers_of("tiny").name
    first = made.read("evaluate-0", name)
    shutil.rmtree(made.folder / "store")
    assert made("evaluate-0").code == 0 and made.read("evaluate-0", name) == first


def test_what_serves_loads_no_torch_of_its_own() -> None:
    """Beside a trainer it only starts vLLM and watches it: torch would cost it seconds and memory."""
    asked = "import sys, selfevo_trainer.serve; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", asked], text=True).strip() == "False"


@pytest.mark.parametrize(
    ("wrong", "code", "says"),
    [
        ("raise RuntimeError: boom", 3, ["ended with code 1", "RuntimeError: boom", "its log above"]),
        (
            "raise ValueError: No available memory for the cache blocks.\nRuntimeError: Engine core failed.",
            2,
            ["memory is too small", "engine.gpuMemoryUtilization 0.9", "cache blocks"],
        ),
        (
            "raise ValueError: Model architectures ['OddForCausalLM'] are not supported for now.",
            2,
            ["does not support the model", "OddForCausalLM", "'transformers'"],
        ),
        ("never ready", 3, ["does not answer", "engine.startupSeconds"]),
        ("ends at a question", 3, ["ended with code 9"]),
    ],
    ids=["raises", "memory", "architecture", "never-ready", "dies-in-the-middle"],
)
def test_a_server_that_fails_ends_the_trainer_with_one_sentence(
    phases: Callable[..., Phases],
    fake_vllm: Path,
    monkeypatch: pytest.MonkeyPatch,
    wrong: str,
    code: int,
    says: list[str],
) -> None:
    monkeypatch.setenv("FAKE_VLLM", wrong)
    made = phases(startupSeconds=5 if wrong == "never ready" else 600)
    done = made("evaluate-0")
    assert done.code == code, done.log
    assert [part for part in says if part not in done.result.message] == [], done.result.message
    assert done.result.message.count("; ") == 1 and "\n" not in done.result.message
    assert made.manifest("evaluate-0") is None
    eventually(lambda: all_gone(fake_vllm), "a server is left")


def test_a_server_that_dies_in_the_middle_loses_one_chunk(
    tmp_path: Path, fake_vllm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = {"evaluation": {"chunkQuestions": 1}}
    made = with_servers(tmp_path, over, "store", startupSeconds=600, fingerprint="off")
    assert made("evaluate-0").code == 0
    whole = made.read("evaluate-0", answers_of("tiny").name)
    shutil.rmtree(made.folder / "store")
    monkeypatch.setenv("FAKE_VLLM", "ends at the fifth")  # of three requests a question
    done = made("evaluate-0")
    assert (done.code, done.result.reason) == (3, "ServiceFailed"), done.log
    assert [file.parent.name for file in (made.folder / "store").glob("**/chunks/answers/*/MANIFEST.json")] == [
        "00000000-00000001"
    ]
    monkeypatch.delenv("FAKE_VLLM")
    done = made("evaluate-0")
    assert (done.code, done.progress[-1].total) == (0, 9), "the first question is not asked again"
    assert made.read("evaluate-0", answers_of("tiny").name) == whole


def test_without_vllm_the_trainer_says_what_to_install(
    phases: Callable[..., Phases], monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *of: None if name == "vllm" else find(name, *of))
    done = phases()("evaluate-0")
    assert done.code == int(ExitCode.INPUT)
    assert "install selfevo[vllm]" in done.result.message and "engine.endpoint" in done.result.message


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_server_ends_with_a_trainer_that_is_stopped_or_killed(
    phases: Callable[..., Phases], fake_vllm: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setenv("FAKE_VLLM", "never ready")
    environment = {**os.environ, **phases().environment("evaluate-0")}
    trainer = subprocess.Popen([sys.executable, "-m", "selfevo_trainer"], env=environment, stderr=subprocess.DEVNULL)
    [server] = eventually(lambda: started(fake_vllm), "no server was started")
    assert alive(server["pid"])
    trainer.send_signal(number)
    assert trainer.wait(LIMIT_S) == (143 if number == signal.SIGTERM else -number)
    eventually(lambda: not alive(server["pid"]), "the server outlived its trainer")


# --- beside the trainer


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[Callable[[Phases, str], Sidecar]]:
    running: list[Sidecar] = []

    def make(phases: Phases, step: str) -> Sidecar:
        running.append(Sidecar(phases, step, tmp_path))
        return running[-1]

    yield make
    for one in running:
        if one.process is not None and one.process.poll() is None:
            one.process.terminate()
            one.process.wait(LIMIT_S)


def test_both_models_of_a_rollout_are_fetched_and_served_until_the_end(
    phases: Callable[..., Phases], sidecar: Callable[..., Sidecar], fake_vllm: Path
) -> None:
    made = phases(replicas=2, gpuMemoryUtilization=0.8)
    key = give_challenger(made)
    pod = sidecar(made, "solver-rollout-1")
    assert pod.fetch() == 0
    base, challenger = f"file://{BASE}", f"challenger-train/{key}"
    fetched = {one["name"]: one for one in json.loads((pod.served / "models.json").read_bytes())}
    assert set(fetched) == {base, challenger}
    limits = made.run.spec
    wanted = (
        limits.solver.max_prompt_length + made.step("solver-rollout-1").inputs.answer_sampling.max_completion_length
    )
    assert (fetched[challenger]["longest"], fetched[base]["longest"]) == (0, wanted)
    pod.start()
    pod.answers("/live", 200)
    pod.answers("/health", 200)
    listed = {one["id"]: one["urls"] for one in pod.answers("/v1/models", 200).json()["data"]}
    assert {name: len(urls) for name, urls in listed.items()} == {base: 2, challenger: 2}
    assert len({url for urls in listed.values() for url in urls}) == 4
    servers = started(fake_vllm)
    # Two models share the GPUs of a replica.
    assert {server["gpu_memory_utilization"] for server in servers} == {0.4}
    [folder] = {server["model"] for server in servers if server["served_model_name"] == [challenger]}
    assert (Path(folder) / "model.safetensors").is_file()
    # The trainer asks there, and starts nothing.
    done = made("solver-rollout-1", environment={SERVER_URL_ENV: f"http://127.0.0.1:{pod.port}"})
    assert "the Challenger wrote no valid question in 40 completions" in done.result.message, done.log
    assert len(started(fake_vllm)) == 4
    assert pod.process is not None
    pod.process.terminate()
    assert pod.process.wait(LIMIT_S) == 143
    assert all_gone(fake_vllm)
    [log] = pod.served.glob("*.server.log")  # for the trainer to keep
    assert log.read_text().count("INFO loading") == 4


def test_adapters_on_one_base_have_one_server_that_knows_each_by_its_name(
    phases: Callable[..., Phases], sidecar: Callable[..., Sidecar], fake_vllm: Path, tmp_path: Path
) -> None:
    made = phases(gpuMemoryUtilization=0.8)
    key = give_model(made, "challenger-train-1", an_adapter(tmp_path / "adapter", rank=20))
    pod = sidecar(made, "solver-rollout-1")
    text = json.loads(pod.environment[CONFIG_ENV])  # the plan says it of a run whose roles are adapters
    text["base"] = text["inputs"]["solver"]
    pod.environment[CONFIG_ENV] = json.dumps(text)
    assert pod.fetch() == 0
    pod.start()
    pod.answers("/health", 200)
    base, challenger = f"file://{BASE}", f"challenger-train/{key}"
    listed = {one["id"]: one["urls"] for one in pod.answers("/v1/models", 200).json()["data"]}
    assert listed.keys() == {base, challenger} and listed[base] == listed[challenger]
    [server] = started(fake_vllm)
    assert (server["model"], server["served_model_name"], server["enable_lora"]) == (str(BASE), [base], True)
    [adapter] = map(json.loads, server["lora_modules"])
    assert adapter["name"] == challenger and (Path(adapter["path"]) / "adapter_model.safetensors").is_file()
    assert (server["max_loras"], server["max_lora_rank"]) == (1, 32)  # vLLM has kernels for 16 and 32
    assert "q_proj" in server["lora_target_modules"] and "lm_head" not in server["lora_target_modules"]
    assert server["gpu_memory_utilization"] == 0.8  # no other server shares it


def test_adapters_of_several_ranks_have_room_for_the_largest(tmp_path: Path) -> None:
    folders = [an_adapter(tmp_path / str(rank), rank=rank) for rank in (3, 12)]
    models = [ServedModel(name=each.name, path=each, loading=LOADING, longest=100) for each in folders]
    whole = ServedModel(name="other", path=tmp_path, loading=LOADING, longest=0)
    assert together([models[0], whole, models[1]]) == [models, [whole]]
    command = command_of(models, 8001, ServerEngine.model_validate({"kind": "server"}), 1, 0.9)
    options = dict(itertools.pairwise(command))
    assert (options["--max-loras"], options["--max-lora-rank"], options["--max-model-len"]) == ("2", "16", "100")
    assert "--served-model-name" not in command  # nobody asks for the base
    config = json.loads((folders[0] / "adapter_config.json").read_text())
    (folders[0] / "adapter_config.json").write_text(json.dumps(config | {"r": 600}))
    with pytest.raises(
        InputError, match=r"grpo.lora.rank is 600, and vLLM takes adapters of at most 512; lower it, or"
    ):
        command_of(models, 8001, ServerEngine.model_validate({"kind": "server"}), 1, 0.9)


def test_a_policy_in_training_is_served_beside_the_frozen_solver(
    sidecar: Callable[..., Sidecar], fake_vllm: Path, tmp_path: Path
) -> None:
    over = {"challenger": {"grpo": {"generation": "vllm", "vllmMode": "server"}}}
    pod = sidecar(with_servers(tmp_path, over, "store", startupSeconds=600), "challenger-train-1")
    assert pod.fetch() == 0
    pod.start()
    pod.answers("/health", 200)
    listed = {one["id"]: one["urls"] for one in pod.answers("/v1/models", 200).json()["data"]}
    assert {name: len(urls) for name, urls in listed.items()} == {f"file://{BASE}": 1, "policy": 1}
    frozen, policy = sorted(started(fake_vllm), key=lambda server: server["served_model_name"])
    assert policy["model"] == frozen["model"] == str(BASE)
    assert [json.loads(policy["weight_transfer_config"]), frozen["weight_transfer_config"]] == [{"backend": "nccl"}, ""]
    # Paths by which anybody could put weights into a frozen model are not there.
    assert (policy["takes_weights"], frozen["takes_weights"]) == ("1", "")
    assert (policy["logprobs_mode"], policy["scheduling_policy"]) == ("processed_logprobs", "priority")
    assert (policy["max_model_len"], policy["gpu_memory_utilization"]) == (-1, 0.9)
    os.kill(policy["pid"], signal.SIGKILL)
    assert pod.process is not None and pod.process.wait(LIMIT_S) == int(ExitCode.SERVICE)
    message = PhaseResult.model_validate_json(pod.termination.read_bytes()).message
    assert "the server of policy was ended by signal 9" in message


def test_a_phase_that_asks_for_no_server_has_none(sidecar: Callable[..., Sidecar], tmp_path: Path) -> None:
    pod = sidecar(with_servers(tmp_path, {}, "store"), "solver-train-1")
    assert pod.fetch() == int(ExitCode.INPUT)
    message = PhaseResult.model_validate_json(pod.termination.read_bytes()).message
    assert message.startswith(
        "neither engine nor grpo.vllmMode nor verifier.server asks for a server beside the trainer;"
    )


def test_a_model_in_both_roles_is_served_once(phases: Callable[..., Phases], sidecar: Callable[..., Sidecar]) -> None:
    pod = sidecar(phases(), "solver-rollout-1")
    text = pod.environment[CONFIG_ENV]
    config = json.loads(text)
    config["inputs"]["challenger"] = config["inputs"]["solver"]
    from selfevo_contract.phases import input_key, inputs_adapter

    config["key"] = input_key(inputs_adapter.validate_python(config["inputs"]))
    pod.environment[CONFIG_ENV] = json.dumps(config)
    assert pod.fetch() == 0
    [one] = json.loads((pod.served / "models.json").read_bytes())
    assert (one["name"], one["longest"]) == (f"file://{BASE}", 0)


def test_a_model_that_is_not_there_fails_the_fetch(
    phases: Callable[..., Phases], sidecar: Callable[..., Sidecar]
) -> None:
    pod = sidecar(phases(), "solver-rollout-1")
    assert pod.fetch() == int(ExitCode.INPUT)
    result = PhaseResult.model_validate_json(pod.termination.read_bytes())
    assert result.outcome == "failed" and "run the step that makes it first" in result.message
    pod.start()
    assert pod.process is not None and pod.process.wait(LIMIT_S) == int(ExitCode.INPUT)
    assert "--fetch first" in PhaseResult.model_validate_json(pod.termination.read_bytes()).message


@pytest.mark.parametrize(
    ("wrong", "status", "code", "says"),
    [
        ("raise RuntimeError: boom", 424, 3, "ended with code 1 (RuntimeError: boom); its log above may say more"),
        (
            "raise ValueError: Free memory is less than desired GPU memory utilization",
            422,
            2,
            "the memory is too small",
        ),
        ("never ready", 424, 3, "was not ready within engine.startupSeconds 5"),
    ],
)
def test_the_trainer_says_why_the_server_beside_it_will_never_be_ready(
    phases: Callable[..., Phases],
    sidecar: Callable[..., Sidecar],
    monkeypatch: pytest.MonkeyPatch,
    wrong: str,
    status: int,
    code: int,
    says: str,
) -> None:
    monkeypatch.setenv("FAKE_VLLM", wrong)
    made = phases(startupSeconds=5 if wrong == "never ready" else 600)
    pod = sidecar(made, "evaluate-0")
    assert pod.fetch() == 0
    pod.start()
    pod.answers("/v1/models", status)
    pod.answers("/live", 200)  # else it would be started again and again
    done = made("evaluate-0", environment={SERVER_URL_ENV: f"http://127.0.0.1:{pod.port}"})
    assert done.code == code and says in done.result.message, done.result.message


def test_a_server_that_ends_later_ends_its_container_and_the_next_one_listens_where_it_did(
    phases: Callable[..., Phases], sidecar: Callable[..., Sidecar], fake_vllm: Path
) -> None:
    pod = sidecar(phases(replicas=2), "evaluate-0")
    assert pod.fetch() == 0
    pod.start()
    [before] = pod.answers("/v1/models", 200).json()["data"]
    assert len(set(before["urls"])) == 2
    os.kill(started(fake_vllm)[0]["pid"], signal.SIGKILL)
    assert pod.process is not None and pod.process.wait(LIMIT_S) == int(ExitCode.SERVICE)
    assert "was ended by signal 9" in PhaseResult.model_validate_json(pod.termination.read_bytes()).message
    pod.start()  # as Kubernetes does; the trainer knows these addresses
    assert pod.answers("/v1/models", 200).json()["data"] == [before]


# --- the command line


def test_gpus_and_limits_on_the_command_line() -> None:
    model = ServedModel(name="solver-train/abc", path=BASE, loading=LOADING, longest=100)
    spec = ServerEngine.model_validate({"kind": "server", "gpus": 2})
    command = command_of([model], 8001, spec, 2, 0.45)
    options = dict(itertools.pairwise(command))
    assert options["--tensor-parallel-size"] == "2" and options["--gpu-memory-utilization"] == "0.45"
    assert options["--max-model-len"] == "100" and "--enforce-eager" not in command
    assert "--trust-remote-code" not in command
    own_code = model.model_copy(update={"loading": LOADING.model_copy(update={"trust_remote_code": True})})
    assert "--trust-remote-code" in command_of([own_code], 1, spec, 0, 0.9)
    # More than the model knows: vLLM would not start; requests that are too long are refused one by one.
    endless = model.model_copy(update={"longest": 10_000_000})
    assert "--max-model-len" not in command_of([endless], 1, spec, 0, 0.9)
    assert {"--enforce-eager", "--no-enable-chunked-prefill"} <= {*command_of([endless], 1, spec, 0, 0.9)} - {*command}


def test_replicas_have_gpus_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from selfevo_trainer.engines.vllm_server import _devices

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    two = ServerEngine.model_validate({"kind": "server", "gpus": 2, "replicas": 2})
    assert [_devices(two, replica) for replica in range(2)] == [["4", "5"], ["6", "7"]]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b,GPU-c,GPU-d")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert [_devices(two, replica) for replica in range(2)] == [["GPU-a", "GPU-b"], ["GPU-c", "GPU-d"]]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    with pytest.raises(InputError, match=r"engine.gpus 2 x engine.replicas 2 are 4 GPUs, and there are 3 here; lower"):
        _devices(two, 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    policy = ServerEngine.model_validate({"kind": "server", "gpus": 1})
    assert _devices(policy, 0, POLICY_WORDS, before=2) == ["GPU-b"]  # those behind it are a frozen model's
    with pytest.raises(
        InputError, match=r"grpo.vllmTensorParallelSize 1 beside the 4 of other servers, and there are 4"
    ):
        _devices(policy, 0, POLICY_WORDS, before=4)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert _devices(ServerEngine.model_validate({"kind": "server"}), 0) == []


def test_a_model_that_cannot_be_split_over_its_gpus_is_refused_before_anything_starts(
    fake_vllm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from selfevo_trainer.engines.vllm_server import VllmServers

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    model = ServedModel(name="solver-train/abc", path=BASE, loading=LOADING, longest=100)
    with pytest.raises(
        InputError, match=r"engine.gpus is 2, which does not divide the model's 3 attention heads \(1 of"
    ):
        VllmServers.start(ServerEngine.model_validate({"kind": "server", "gpus": 2}), model)
    assert started(fake_vllm) == []


def test_the_cause_in_a_log_is_the_first_that_was_raised() -> None:
    spec = ServerEngine.model_validate({"kind": "server"})
    log = ["(EngineCore pid=7) ValueError: head size 33", "RuntimeError: Engine core initialization failed.", "bye"]
    assert "ended with code 1 (ValueError: head size 33);" in str(ended("m", 1, log, spec))
    assert "ended with code 2 (usage: x);" in str(ended("m", 2, ["usage: x", ""], spec))
    assert "was ended by signal 9;" in str(ended("m", -9, [], spec))
    for lacking in (
        "ValueError: There is no module or parameter named 'classifier' in LlamaForSequenceClassification",
        "ValueError: This model does not support `--runner pooling`. You can pass `--convert <embed|classify>`",
        "ValueError: Model architectures ['Odd'] are not supported for now.",
    ):
        unknown = ended("judge/abc", 1, [lacking], spec, JUDGE_WORDS)
        assert unknown.exit_code == ExitCode.INPUT and str(unknown).endswith("; remove spec.verifier.server")
        assert str(unknown).startswith("vLLM does not support the model judge/abc (ValueError: ")
    adapted = str(ended("m", 1, ["ValueError: GPT2LMHeadModel does not support LoRA yet."], spec))
    assert adapted.startswith("vLLM does not compute adapters of the model m (ValueError: GPT2LMHeadModel does not")
    assert adapted.endswith("; choose engine.kind 'transformers'")
