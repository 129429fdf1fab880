"""How far rounding moves a fingerprint, how far training does, and whether the two are distinguished.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/fingerprint.py --store file:///STORE [--model FOLDER] [--vllm]

STORE is one in which `selfevo run examples/arithmetic.yaml` has ended. FOLDER is a real model; its updates are made
here: policy gradients of its own completions with advantages of +1 and -1 by turns, by AdamW at a learning rate of
1e-6 on weights that were rounded to bfloat16, as models are published; as many as a Solver's training of R-Zero has
(15 steps of 4 updates), and fewer.

"change" is by weights rounded to the run's dtype, as engines load them. The limits in
contract/selfevo_contract/fingerprint.py follow from the result. Two rows are emulated: `tf32`, float32 with the
operands of each linear layer rounded to 10 bits of mantissa as a GPU's kernels may do, and `fp8`, bfloat16 with
weights (a scale for each matrix) and activations (a scale for each token) in e4m3.

Writes benchmarks/results/fingerprint.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from machine import provenance
from selfevo_contract.fingerprint import FINGERPRINT, LIMITS, NOISE, Precision, ProbeRow, judge, smallest_detectable
from selfevo_contract.phases import Loading
from selfevo_contract.spec.prompts import Prompt
from selfevo_store import fetch, fetch_rows, open_store, read_manifest
from selfevo_trainer.engines.probes import after_training, draw, logprobs
from selfevo_trainer.models.loading import load_for_generation, load_for_training, load_tokenizer
from selfevo_trainer.prompts import encode, messages

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

ROOT = Path(__file__).resolve().parents[1]
BASE = ROOT / "examples" / "arithmetic" / "base"
RESULT = Path(__file__).parent / "results" / "fingerprint.json"
PRECISIONS: dict[str, Precision] = {
    "float32": "float32",
    "tf32": "float32",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "fp8": "fp8",
}
"""What is measured -> by which limit it is judged."""
UPDATES = (4, 15, 60)
QUESTIONS = (
    "A train travels 240 km in 3 hours. How far does it travel in 5 hours at the same speed?",
    "What is the sum of the first 20 odd numbers?",
    "Solve x^2 - 5x + 6 = 0 for the larger root.",
    "How many ways are there to arrange the letters of the word LEVEL?",
)
SOLVER = Prompt(system="Please reason step by step, and put your final answer within \\boxed{}.", user="{question}")

Scores = list[list[float]]


def loading(precision: str) -> Loading:
    dtype = {"tf32": "float32", "fp8": "bfloat16"}.get(precision, precision)
    return Loading.model_validate({"dtype": dtype, "trustRemoteCode": False})


def load(folder: Path, precision: str) -> Any:
    """The model as an engine of this precision computes it."""
    model = load_for_generation(folder, loading(precision))
    rounded: Callable[[torch.Tensor], torch.Tensor] | None = {"tf32": _tf32, "fp8": _fp8_tokens}.get(precision)
    if rounded is not None:
        for module in model.modules():
            if isinstance(module, torch.nn.Linear) and module is not model.get_output_embeddings():
                module.weight.data = _tf32(module.weight) if precision == "tf32" else _fp8(module.weight)
                module.register_forward_pre_hook(lambda _, inputs, r=rounded: (r(inputs[0]),))
    return model


def _tf32(values: torch.Tensor) -> torch.Tensor:
    bits = values.contiguous().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


def _fp8(values: torch.Tensor) -> torch.Tensor:
    scale = values.abs().max().float().clamp(min=1e-12) / 448
    return ((values.float() / scale).to(torch.float8_e4m3fn).float() * scale).to(values.dtype)


def _fp8_tokens(values: torch.Tensor) -> torch.Tensor:
    scale = values.abs().amax(-1, keepdim=True).float().clamp(min=1e-12) / 448
    return ((values.float() / scale).to(torch.float8_e4m3fn).float() * scale).to(values.dtype)


def differences(rows: Sequence[ProbeRow], scores: Scores, name: str = "logprobs") -> list[float]:
    return [
        served - own
        for row, found in zip(rows, scores, strict=True)
        for served, own in zip(found[row.prompt - 1 :], getattr(row, name), strict=True)
    ]


def size(values: Sequence[float]) -> dict[str, float]:
    mean = sum(map(abs, values)) / len(values)
    rms = (sum(value * value for value in values) / len(values)) ** 0.5
    return {"mean": float(f"{mean:.3g}"), "rms": float(f"{rms:.3g}"), "largest": float(f"{max(map(abs, values)):.3g}")}


def change(rows: Sequence[ProbeRow]) -> dict[str, float]:
    return size([w - b for row in rows for w, b in zip(row.logprobs, row.before, strict=True)])


def as_loaded(rows: Sequence[ProbeRow], before: Path | None, after: Path, precision: str) -> list[ProbeRow]:
    """The fingerprint of ``after`` in a run of this precision."""
    dtype = loading(precision).dtype
    found = [row.model_copy(update={"dtype": dtype, "before": []}) for row in rows]
    for folder in [after] if before is None else [before, after]:
        found = after_training(load_for_training(folder, loading("float32")), found)
    return found if before is not None else [row.model_copy(update={"before": []}) for row in found]


def demo(store_uri: str, folder: Path) -> dict[str, Any]:
    """Every trained model of the run, served as each of the others."""
    models: dict[str, Path] = {"base": BASE}
    probes: dict[str, list[ProbeRow]] = {}
    for name, path, rows in _trained(store_uri, folder):
        models[name], probes[name] = path, rows
    result: dict[str, Any] = {"training": {name: change(rows) for name, rows in probes.items()}, "served": {}}
    for precision, judged in PRECISIONS.items():
        wanted_rows = {}
        for name, rows in probes.items():
            phase, _, iteration = name.rpartition("-")
            begun = models.get(f"{phase}-{int(iteration) - 1}", BASE)
            wanted_rows[name] = as_loaded(rows, begun, models[name], precision)
        noise: list[float] = []
        detected, by_mean, false, pairs = 0, 0, 0, 0
        missed: list[str] = []
        for served, path in models.items():
            model = load(path, precision)
            for wanted, rows in wanted_rows.items():
                scores = logprobs(model, [row.tokens for row in rows])
                verdict = judge(rows, scores, judged)
                if served == wanted:
                    noise += differences(rows, scores)
                    false += verdict.served != "wanted"
                    continue
                pairs += 1
                detected += verdict.served != "wanted"
                by_mean += verdict.difference > verdict.limit
                missed += [f"{served} for {wanted}"] if verdict.served == "wanted" else []
        result["served"][precision] = {
            "noise": size(noise),
            "right_one_refused": false,
            "wrong_ones": pairs,
            "told": detected,
            "told_by_the_mean_alone": by_mean,
            "missed": missed,
        }
        print(precision, json.dumps(result["served"][precision]), flush=True)
    return result


def _trained(store_uri: str, folder: Path) -> Iterator[tuple[str, Path, list[ProbeRow]]]:
    store = open_store(store_uri)
    for info in store.list(""):
        prefix, _, name = info.key.rpartition("/")
        if name != "MANIFEST.json" or "/checkpoints/" in info.key or "-train/" not in info.key:
            continue
        manifest = read_manifest(store, prefix)
        if manifest is not None and manifest.file(FINGERPRINT.name) is not None:
            label = f"{manifest.phase}-{manifest.iteration}"
            path = fetch(store, prefix, manifest, folder / label, folder="model")
            yield label, path, fetch_rows(store, prefix, manifest, FINGERPRINT)


def real(path: Path, folder: Path) -> dict[str, Any]:
    """Noise on a real model's own completions, and updates of different sizes, detected or not."""
    tokenizer = load_tokenizer(path, loading("float32"))
    prompts = [encode(tokenizer, messages(SOLVER, question)) for question in QUESTIONS]
    model = load_for_training(path, loading("float32"))
    for parameter in model.parameters():  # as models are published
        parameter.data = parameter.data.bfloat16().float()
    models = {0: folder / "0"}
    model.save_pretrained(models[0])
    tokenizer.save_pretrained(models[0])
    rows = draw(model, tokenizer, prompts, {tokenizer.eos_token_id}, "float32")
    batch = [row for seed in range(8) for row in draw_batch(model, tokenizer, prompts, seed)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, weight_decay=0.01)
    for update in range(1, max(UPDATES) + 1):
        step(model, optimizer, batch, update)
        if update in UPDATES:
            models[update] = folder / str(update)
            model.save_pretrained(models[update])
    result: dict[str, Any] = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tokens": sum(len(row.logprobs) for row in rows),
        "noise": {},
        "updates": {},
    }
    for precision, judged in PRECISIONS.items():
        own = as_loaded(rows, None, models[0], precision)
        before = logprobs(load(models[0], precision), [row.tokens for row in rows])
        result["noise"][precision] = size(differences(own, before))
        print(precision, json.dumps(result["noise"][precision]), flush=True)
        for update in UPDATES:
            trained = as_loaded(rows, models[0], models[update], precision)
            after = logprobs(load(models[update], precision), [row.tokens for row in rows])
            entry = {
                "change": change(trained),
                "noise": size(differences(trained, after)),
                "served_after": judge(trained, after, judged).served,
                "served_before": judge(trained, before, judged).served,
            }
            result["updates"].setdefault(str(update), {})[precision] = entry
            print(update, precision, json.dumps(entry), flush=True)
    return result


def draw_batch(model: Any, tokenizer: Any, prompts: list[list[int]], seed: int) -> list[tuple[list[int], int]]:
    """(tokens, length of the prompt) of two completions of 24 tokens of one prompt."""
    prompt = torch.tensor([prompts[seed % len(prompts)]] * 2)
    torch.manual_seed(seed)
    made = model.generate(prompt, max_new_tokens=24, min_new_tokens=24, do_sample=True, top_k=0, pad_token_id=0)
    return [(row, prompt.shape[1]) for row in made.tolist()]


def step(model: Any, optimizer: Any, batch: list[tuple[list[int], int]], update: int) -> None:
    """One policy gradient over four of the completions, advantages +1 and -1 by turns."""
    model.train()
    chosen = [batch[(4 * update + i) % len(batch)] for i in range(4)]
    for number, (tokens, prompt) in enumerate(chosen):
        ids = torch.tensor([tokens])
        logits = model(ids).logits[0, prompt - 1 : -1]
        own = torch.log_softmax(logits, -1).gather(1, ids[0, prompt:, None])
        advantage = 1 if number % 2 else -1
        torch.autograd.backward(-advantage * own.mean() / len(chosen))
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


VLLM = """
import json, sys
from pathlib import Path
from selfevo_contract.phases import Loading
from selfevo_contract.spec.engines import VllmEngine
from selfevo_trainer.engines import Frozen, open_engine
path, dtype, rows = Path(sys.argv[1]), sys.argv[2], json.loads(Path(sys.argv[3]).read_text())
loading = Loading.model_validate({"dtype": dtype, "trustRemoteCode": False})
engine = open_engine(VllmEngine(kind="vllm"), Frozen(path, loading, "model", "model", 512))
scores = engine.score(rows)
engine.close()
print(json.dumps(scores))
"""


def vllm(models: dict[str, Path], folder: Path) -> dict[str, Any]:
    """The CPU build's numbers against transformers' in float32."""
    from harness.vllm import ensure

    environment = ensure()
    result: dict[str, Any] = {}
    for name, path in models.items():
        tokenizer = load_tokenizer(path, loading("float32"))
        model = load_for_generation(path, loading("float32"))
        prompt = SOLVER if name != "demo" else Prompt(user="{question}")
        texts = QUESTIONS if name != "demo" else ("37 + 48", "815 - 34", "7 + 9", "4410 + 2038")
        prompts = [encode(tokenizer, messages(prompt, text)) for text in texts]
        rows = draw(model, tokenizer, prompts, {tokenizer.eos_token_id}, "float32")
        file = folder / f"{name}.json"
        file.write_text(json.dumps([row.tokens for row in rows]))
        for precision in ("float32", "bfloat16", "float16"):
            scores = environment.answer(VLLM, path, precision, file)
            own = as_loaded(rows, None, path, precision)
            result.setdefault(name, {})[precision] = size(differences(own, scores))
            print("vllm", name, precision, json.dumps(result[name][precision]), flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True, help="URI of the store of a run of examples/arithmetic.yaml")
    parser.add_argument("--model", type=Path, help="folder of a real model")
    parser.add_argument("--vllm", action="store_true", help="vLLM's CPU build, too (built once into the cache)")
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result: dict[str, Any] = {
            "what": "differences of log-probabilities over fingerprints: of rounding, and of training",
            **provenance(),
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
            "limits": LIMITS,
            "noise": NOISE,
            "smallest_detectable": {each: round(smallest_detectable(100, each), 5) for each in LIMITS},
            "demo": demo(arguments.store, folder),
        }
        models = {"demo": BASE}
        if arguments.model is not None:
            models["real"] = arguments.model
            result["real"] = real(arguments.model, folder)
        if arguments.vllm:
            result["vllm"] = vllm(models, folder)
    arguments.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
