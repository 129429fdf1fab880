"""Engine `vllm` where there is no vLLM: what is settled before it starts, and the error when it does not start."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from harness.tiny import BASE
from selfevo_contract.errors import ExitCode, InputError
from selfevo_contract.phases import Loading
from selfevo_contract.spec.engines import VllmEngine
from selfevo_trainer.engines import Frozen, open_engine
from selfevo_trainer.engines.vllm_limits import Limits, limits, start_error

LOADING = Loading(dtype="float32", trust_remote_code=False)


def settings(**fields: Any) -> VllmEngine:
    return VllmEngine.model_validate({"kind": "vllm", **fields})


def frozen(longest: int = 0) -> Frozen:
    return Frozen(BASE, LOADING, "base", "model", longest)


def config(**fields: Any) -> Any:
    text = {"num_attention_heads": 28, "num_key_value_heads": 4, "max_position_embeddings": 4096, "hidden_size": 3584}
    made = SimpleNamespace(**{**text, "architectures": ["Qwen3ForCausalLM"], **fields})
    made.get_text_config = lambda: made
    return made


@pytest.mark.parametrize(
    ("heads", "of_values", "gpus", "size"),
    [(32, 8, 8, 8), (28, 4, 8, 4), (28, 4, 2, 2), (3, 1, 2, 1), (16, None, 16, 16), (40, 8, 3, 2), (32, 8, 0, 1)],
)
def test_a_model_is_split_over_as_many_gpus_as_divide_its_heads(
    heads: int, of_values: int | None, gpus: int, size: int
) -> None:
    model = config(num_attention_heads=heads, num_key_value_heads=of_values)
    assert limits(settings(), frozen(), model, gpus).tensor_parallel_size == size


@pytest.mark.parametrize(
    ("fields", "longest", "length"),
    [({}, 0, -1), ({}, 3000, 3000), ({}, 5000, 4096), ({}, 20, 256), ({"maxModelLength": 1024}, 3000, 1024)],
)
def test_there_is_room_for_a_prompt_and_its_completion(fields: dict[str, Any], longest: int, length: int) -> None:
    assert limits(settings(**fields), frozen(longest), config(), 1) == Limits(length, 1)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"tensorParallelSize": 3},
            "engine.tensorParallelSize is 3, which does not divide the model's 28 attention heads (4 of keys and "
            "values); choose one of 1, 2, 4, 28",
        ),
        (
            {"tensorParallelSize": 4},
            "engine.tensorParallelSize is 4, and this process has 2 GPUs; lower it, or give the pods more in "
            "resources.limits",
        ),
        (
            {"maxModelLength": 8192},
            f"engine.maxModelLength is 8192, and the model in {BASE} has 4096 positions (max_position_embeddings in "
            "config.json); lower it",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_setting_that_is_not_possible_is_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as error:
        limits(settings(**fields), frozen(), config(), 2)
    assert str(error.value) == sentence
    assert error.value.exit_code == ExitCode.INPUT


@pytest.mark.parametrize(
    ("raised", "sentence"),
    [
        (
            "Free memory on device cuda:0 (3.1/79.1 GiB) on startup is less than desired GPU memory utilization "
            "(0.5, 39.6 GiB).",
            "the memory is too small for vLLM with engine.gpuMemoryUtilization 0.5 (Free memory on device cuda:0 "
            "(3.1/79.1 GiB) on startup is less",
        ),
        ("No available memory for the cache blocks. Try increasing ...", "the memory is too small for vLLM"),
        ("CUDA out of memory. Tried to allocate 2 GiB", "the memory is too small for vLLM"),
        (
            "No valid attention backend found for cuda with (head_size=24, ...). Reasons: {FLASH_ATTN: [head_size "
            "not supported]}",
            f"vLLM 0.31.0 does not support the attention heads of the model in {BASE}, which have 128 elements",
        ),
        (
            "Model architectures ['Qwen3ForCausalLM'] are not supported for now.",
            "vLLM 0.31.0 does not support the architecture 'Qwen3ForCausalLM'; choose engine.kind 'transformers'",
        ),
        (
            "Engine core initialization failed.\nSee root cause above.",
            f"vLLM 0.31.0 cannot serve the model in {BASE} (RuntimeError: Engine core initialization failed.); its log",
        ),
    ],
)
def test_what_vllm_says_at_its_start_becomes_one_sentence(raised: str, sentence: str) -> None:
    error = start_error(RuntimeError(raised), "0.31.0", settings(), frozen(), config())
    assert str(error).startswith(sentence)
    assert "\n" not in str(error) and error.exit_code == ExitCode.INPUT


@pytest.fixture
def no_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "vllm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "vllm", None)  # as if it were not installed


def test_not_installed_is_reported_with_the_extra(no_vllm: None, monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder:
        def find_spec(self, name: str, *_: Any) -> None:
            if name == "vllm":
                raise ModuleNotFoundError("No module named 'vllm'", name="vllm")

    monkeypatch.delitem(sys.modules, "vllm")
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(InputError) as error:
        open_engine(settings(), frozen())
    assert str(error.value) == (
        "engine.kind is 'vllm', and vLLM is not installed here; install selfevo[vllm], or choose engine.kind "
        "'transformers'"
    )


def test_installed_and_broken_is_reported_with_the_reason(no_vllm: None, monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder:
        def find_spec(self, name: str, *_: Any) -> None:
            if name == "vllm":
                raise ImportError("libcudart.so.13: cannot open shared object file")

    monkeypatch.delitem(sys.modules, "vllm")
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(InputError, match=r"cannot be imported here \(ImportError: libcudart.so.13: cannot open"):
        open_engine(settings(), frozen())


class FakeLLM:
    """Answers whatever it is asked with the end token; remembers its arguments."""

    made: list[FakeLLM] = []

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments
        self.asked: list[tuple[list[Any], Any]] = []
        self.model_config = SimpleNamespace(max_model_len=256)
        self.llm_engine = SimpleNamespace(engine_core=SimpleNamespace(shutdown=lambda: None))
        FakeLLM.made.append(self)

    def generate(self, requests: list[Any], parameters: Any, use_tqdm: bool, lora_request: Any) -> list[Any]:
        self.asked.append((requests, parameters))
        outputs = []
        for request in requests:
            ids = request["prompt_token_ids"]
            scored = [None, *({token: SimpleNamespace(logprob=-1.0)} for token in ids[1:])]
            answer = SimpleNamespace(token_ids=[1])
            outputs.append(SimpleNamespace(finished=True, outputs=[answer], prompt_logprobs=scored))
        return outputs


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeLLM]:
    package: Any = ModuleType("vllm")
    package.__version__, package.LLM, package.SamplingParams = "0.31.0", FakeLLM, lambda **arguments: arguments
    platforms, exceptions, state = (ModuleType(f"vllm.{name}") for name in ("platforms", "exceptions", "state"))
    platforms.current_platform = SimpleNamespace(is_cpu=lambda: True)  # type: ignore[attr-defined]
    exceptions.EngineDeadError = KeyError  # type: ignore[attr-defined]
    state.cleanup_dist_env_and_memory = lambda: None  # type: ignore[attr-defined]
    for name, module in {
        "vllm": package,
        "vllm.platforms": platforms,
        "vllm.v1": ModuleType("vllm.v1"),
        "vllm.v1.engine": ModuleType("vllm.v1.engine"),
        "vllm.v1.engine.exceptions": exceptions,
        "vllm.distributed": ModuleType("vllm.distributed"),
        "vllm.distributed.parallel_state": state,
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(FakeLLM, "made", [])
    return FakeLLM


def test_vllm_gets_all_that_it_would_else_decide_by_itself(fake: type[FakeLLM]) -> None:
    fields = {"maxSequences": 7, "gpuMemoryUtilization": 0.9, "enforceEager": True}
    quantized = LOADING.model_copy(update={"dtype": "bfloat16", "quantization": "fp8"})
    open_engine(settings(**fields), Frozen(BASE, quantized, "base", "model", 300))
    arguments = fake.made[0].arguments
    assert arguments == {
        "model": str(BASE),
        "skip_tokenizer_init": True,
        "trust_remote_code": False,
        "dtype": "bfloat16",
        "quantization": "fp8",
        "load_format": "safetensors",
        "max_model_len": 300,
        "max_num_seqs": 7,
        "gpu_memory_utilization": 0.9,
        "tensor_parallel_size": 1,
        "enforce_eager": True,
        "enable_prefix_caching": True,
        "enable_chunked_prefill": False,
        "enable_sleep_mode": False,
        "generation_config": "vllm",
        "disable_log_stats": True,
    }


def test_a_model_is_split_over_the_gpus_and_sleeps_while_another_is_trained(
    fake: type[FakeLLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    generate = FakeLLM.generate
    monkeypatch.setattr(
        FakeLLM, "generate", lambda *args, **arguments: calls.append("asked") or generate(*args, **arguments)
    )
    monkeypatch.setattr(FakeLLM, "sleep", lambda self, level: calls.append(f"sleep {level}"), raising=False)
    monkeypatch.setattr(FakeLLM, "wake_up", lambda self: calls.append("wake"), raising=False)
    monkeypatch.setattr(sys.modules["vllm.platforms"].current_platform, "is_cpu", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    asked = settings(enableSleepMode=True, tensorParallelSize=3)
    engine = open_engine(asked, Frozen(BASE, LOADING, "base", "solver", 300, beside_training=True))
    arguments = fake.made[0].arguments
    assert (arguments["tensor_parallel_size"], arguments["enable_sleep_mode"], arguments["enforce_eager"]) == (
        3,
        True,
        False,
    )
    assert "enable_chunked_prefill" not in arguments, "that is for CPUs"
    engine.score([[1, 2]])
    assert calls == ["asked", "sleep 1", "wake", "asked", "sleep 1"]
    alone = open_engine(asked, Frozen(BASE, LOADING, "base", "solver", 300))
    assert fake.made[1].arguments["enable_sleep_mode"] is False
    calls.clear()
    alone.score([[1, 2]])
    assert calls == ["asked"], "where nothing is trained it is not put to sleep between two chunks"


def test_a_request_is_one_sample_with_a_seed_of_its_own(fake: type[FakeLLM]) -> None:
    from selfevo_contract.spec.sampling import Sampling

    engine = open_engine(settings(), frozen(300))
    sampling = Sampling.model_validate({"temperature": 0.7, "topP": 0.9, "maxCompletionLength": 20})
    prompts = [[{"role": "user", "content": text}] for text in ("1 + 1", "2 + 2")]
    engine.generate(prompts, sampling, 3, 7, [5, 6])
    requests, parameters = fake.made[0].asked[-1]
    assert len(requests) == 6 and requests[0] == requests[2] != requests[3] == requests[5]
    seeds = [each.pop("seed") for each in parameters]
    assert len(set(seeds)) == 6 and all(0 <= seed < 2**63 for seed in seeds)
    assert parameters[0] == {
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": -1,
        "max_tokens": 20,
        "stop_token_ids": [1],
        "detokenize": False,
    }


def test_weights_that_compute_nan_are_refused_before_anything_is_generated(
    fake: type[FakeLLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nan(self: FakeLLM, requests: list[Any], parameters: Any, use_tqdm: bool, lora_request: Any) -> list[Any]:
        scored = [None, *({token: SimpleNamespace(logprob=float("nan"))} for token in range(1, 8))]
        return [SimpleNamespace(finished=True, outputs=[SimpleNamespace(token_ids=[1])], prompt_logprobs=scored)]

    monkeypatch.setattr(FakeLLM, "generate", nan)
    with pytest.raises(InputError, match=r"computes NaN or infinity in float32; set spec.model.dtype to bfloat16"):
        open_engine(settings(), frozen())


@pytest.mark.parametrize(
    ("error", "sentence"),
    [("out of memory", "the GPU's memory ran out while vLLM generated"), ("dead", "vLLM's process ended while it gen")],
)
def test_what_fails_while_it_generates_is_reported(
    fake: type[FakeLLM], monkeypatch: pytest.MonkeyPatch, error: str, sentence: str
) -> None:
    import torch

    from selfevo_contract.errors import SelfevoError

    engine = open_engine(settings(), frozen())

    def fail(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory") if error == "out of memory" else KeyError("dead")

    monkeypatch.setattr(FakeLLM, "generate", fail)
    with pytest.raises(SelfevoError, match=sentence) as arguments:
        engine.score([[1, 2]])
    assert arguments.value.exit_code == (ExitCode.INPUT if error == "out of memory" else ExitCode.SERVICE)


def test_a_request_without_an_answer_is_no_answer(fake: type[FakeLLM], monkeypatch: pytest.MonkeyPatch) -> None:
    from selfevo_contract.errors import ServiceError

    engine = open_engine(settings(), frozen())
    aborted = SimpleNamespace(finished=True, outputs=[SimpleNamespace(token_ids=[])])
    monkeypatch.setattr(FakeLLM, "generate", lambda *_, **__: [aborted, aborted])
    with pytest.raises(ServiceError, match="vLLM gave no answer to 2 of 2 requests"):
        engine.score([[1, 2], [3, 4]])


def test_the_environment_of_the_start_is_put_back(fake: type[FakeLLM], monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    seen: dict[str, str | None] = {}
    start = FakeLLM.__init__

    def watch(self: FakeLLM, **arguments: Any) -> None:
        seen["how"] = os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING")
        start(self, **arguments)

    monkeypatch.setattr(FakeLLM, "__init__", watch)
    monkeypatch.setenv("RANK", "3")
    open_engine(settings(), frozen())
    assert seen["how"] == "0"
    # FlashInfer's sampler serves no request with a seed, and each of ours has one.
    assert os.environ["VLLM_USE_FLASHINFER_SAMPLER"] == "0"
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in os.environ and os.environ["RANK"] == "3"


@pytest.mark.slow
def test_without_vllm_a_step_ends_with_the_name_of_the_extra(tmp_path: Path) -> None:
    from importlib.util import find_spec

    from harness.inprocess import Phases
    from harness.tiny import settings as settings_of_run
    from harness.tiny import write_questions
    from runs import arithmetic

    if find_spec("vllm") is not None:
        pytest.skip("vLLM is installed here")
    engine = {"evaluation": {"engine": {"kind": "vllm", "batchSize": None}}}
    over = settings_of_run(engine, questions=write_questions(tmp_path / "heldout.jsonl"))
    end = Phases(arithmetic(over, store=tmp_path / "store"), tmp_path)("evaluate-0")
    assert (end.code, end.result.message) == (
        2,
        "engine.kind is 'vllm', and vLLM is not installed here; install selfevo[vllm], or choose engine.kind "
        "'transformers'",
    )
