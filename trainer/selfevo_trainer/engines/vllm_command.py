"""What one of vLLM's servers is started with. Nothing is started here.

Adapters on the same base are one server's: it holds the base once, computes each adapter beside it, and knows each by
its name.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from selfevo_contract.base import Wire
from selfevo_contract.phases import Loading
from selfevo_contract.process import Served
from selfevo_contract.spec.engines import ServerEngine
from selfevo_trainer.engines import vllm_adapters
from selfevo_trainer.models import adapters
from selfevo_trainer.models.loading import positions_of

HOST = "127.0.0.1"


class ServedModel(Wire):
    """A model to be served."""

    name: str
    """As the server calls it."""
    path: Path
    """A folder with all weights, or with an adapter."""
    loading: Loading
    longest: int
    """Most tokens of a prompt and its completion; 0 when nothing bounds them."""
    trained: bool = False
    """It is the policy in training, which sends its weights anew before each step."""
    scores: bool = False
    """It is a judge: it has a score head, and writes nothing."""

    @property
    def kind(self) -> Served:
        """Which server's it is."""
        return "policy" if self.trained else "judge" if self.scores else "frozen"


def together(models: Sequence[ServedModel]) -> list[list[ServedModel]]:
    """``models``, those of one server in a list: adapters with their base, where that is served itself. Pure but for
    what the adapters' folders say of their base."""
    found: dict[tuple[Path, bool], list[ServedModel]] = {}
    for model in models:
        found.setdefault((adapters.whole(model.path), model.trained), []).append(model)
    return list(found.values())


def command_of(
    models: Sequence[ServedModel], port: int, settings: ServerEngine, gpus: int, memory_share: float
) -> list[str]:
    """The command line of the server of ``models``, which are `together`. `vllm serve` is the same module, and wants
    the distribution to be named vllm.

    Raises:
        InputError: an adapter's rank is larger than any that vLLM has room for.
    """
    model, base = models[0], adapters.whole(models[0].path)
    options: dict[str, Sequence[str]] = {
        "--model": [str(base)],
        "--host": [HOST],
        "--port": [str(port)],
        # "auto" would load float32 weights in 16 bits.
        "--dtype": [model.loading.dtype],
        "--load-format": ["safetensors"],
        # The model's own sampling habits have no say.
        "--generation-config": ["vllm"],
        "--gpu-memory-utilization": [f"{memory_share:g}"],
        "--disable-uvicorn-access-log": [],
    }
    if gpus > 1:
        options["--tensor-parallel-size"] = [str(gpus)]
    whole = [each.name for each in models if not adapters.is_adapter(each.path)]
    if whole:
        options["--served-model-name"] = whole
    options |= _adapter_options([each for each in models if adapters.is_adapter(each.path)])
    positions = positions_of(model.path, model.loading)
    longest = 0 if any(each.longest == 0 for each in models) else max(each.longest for each in models)
    if longest and (positions is None or longest <= positions):
        options["--max-model-len"] = [str(longest)]
    if model.trained:
        options["--weight-transfer-config"] = [json.dumps({"backend": "nccl"})]
        # The correction of the loss wants the probabilities that were drawn from.
        options["--logprobs-mode"] = ["processed_logprobs"]
        options.setdefault("--max-model-len", ["-1"])  # as long as the model and the memory allow
        options["--scheduling-policy"] = ["priority"]  # requests come in by chance, and are worked on in their order
        options["--enable-server-load-tracking"] = []
    if model.scores:
        options |= {"--runner": ["pooling"], "--convert": ["classify"]}
    if model.loading.trust_remote_code:
        options["--trust-remote-code"] = []
    if gpus == 0:
        # On a CPU compiling takes minutes and a C++ compiler, and of a prompt that is cut no draw can be taken back.
        options |= {"--enforce-eager": [], "--no-enable-chunked-prefill": []}
    module = "vllm.entrypoints.openai.api_server"
    return [sys.executable, "-m", module, *(each for name, of in options.items() for each in (name, *of))]


def _adapter_options(models: Sequence[ServedModel]) -> dict[str, Sequence[str]]:
    if not models:
        return {}
    room = vllm_adapters.room_for([model.path for model in models])
    return {
        "--enable-lora": [],
        "--lora-modules": [json.dumps({"name": model.name, "path": str(model.path)}) for model in models],
        "--max-loras": [str(len(models))],  # a batch may be of all of them
        "--max-lora-rank": [str(room.rank)],
        "--lora-target-modules": room.targets,
    }
