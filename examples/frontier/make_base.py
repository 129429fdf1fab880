"""Make the frontier example's base model: a 90-thousand-parameter Qwen3 that sorts up to six letters.

    python examples/frontier/make_base.py --out DIR [--seed 0] [--steps 1300] [--heldout FILE]

The Solver's text holds lines of 1 to 6 distinct letters, sorted. Longer lines it has to grow into: a little past six it
is mostly right, further out it leaves letters out, and the same ones again and again, so that its majority may be
confidently wrong there. The Challenger's text asks for lines of 5 to 13 letters and gives no answer, so that no
longer line that is sorted was ever seen.

The tokenizer, the batches and the training are those of examples/arithmetic/make_base.py.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM


def load_arithmetic() -> ModuleType:
    """The script of the other example: `examples` is not a package."""
    name = "arithmetic_make_base"
    if name not in sys.modules:
        path = Path(__file__).resolve().parents[1] / "arithmetic" / "make_base.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


arithmetic = load_arithmetic()

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""In the order in which they are sorted: capitals first."""
KNOWN = range(1, 7)
"""Letters of a line that the base has learnt to sort."""
ASKED = range(5, 14)
"""Letters of a line that the Challenger's text asks for."""
CHALLENGER_SHARE = 0.35
CHALLENGER_PROMPT = "?"
"""What asks for a question; no line of letters."""
NO_ANSWER = "?"
"""What stands in the Challenger's box: it proposes no answer."""

HELDOUT_LENGTHS = range(7, 19)
HELDOUT_OF_EACH = 25
HELDOUT_SEED = 20_261_129

LEARNING_RATE = 5e-3
SHIPPED_SEED = 0
STEPS = 1300


def draw(rng: random.Random, letters: int) -> str:
    """A line of so many distinct letters: `c A b`."""
    return " ".join(rng.sample(LETTERS, letters))


def in_order(line: str) -> str:
    """`c A b` -> `A b c`."""
    return " ".join(sorted(line.split()))


def make_heldout() -> list[str]:
    """The held-out lines, the same on every call, and as many of each length; longer than any that the base has seen
    sorted."""
    rng = random.Random(HELDOUT_SEED)
    lines = [draw(rng, letters) for letters in HELDOUT_LENGTHS for _ in range(HELDOUT_OF_EACH)]
    rng.shuffle(lines)
    return lines


def heldout_text(lines: list[str]) -> str:
    """The held-out file: one JSON object a line."""
    return "".join(json.dumps({"question": line, "answer": in_order(line)}) + "\n" for line in lines)


def pretraining_text(seed: int) -> Iterator[Any]:
    """The endless pre-training text of one seed."""
    rng = random.Random(seed)
    while True:
        if rng.random() < CHALLENGER_SHARE:
            line = draw(rng, rng.choice(ASKED))
            completion = f"<question>{line}</question>\\boxed{{{NO_ANSWER}}}"
            yield arithmetic.Example(CHALLENGER_PROMPT, completion)
        else:
            line = draw(rng, rng.choice(KNOWN))
            yield arithmetic.Example(line, f"\\boxed{{{in_order(line)}}}")


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The arithmetic example's, but for blanks: they are no tokens, and stand between all tokens of a decoded text. So
    a letter is one token, and one word to the repetition penalty."""
    from tokenizers import pre_tokenizers

    tokenizer = arithmetic.build_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.backend_tokenizer.decoder = None
    return tokenizer


def build_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """A fresh Qwen3, initialised from torch's global seed."""
    return arithmetic.build_model(
        tokenizer, hidden_size=64, num_attention_heads=2, num_key_value_heads=2, intermediate_size=128
    )


def judge(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, lines: list[str]) -> dict[str, float]:
    """Percent of held-out lines that are sorted rightly by greedy decoding, by their number of letters."""
    texts = arithmetic.answer_all(model, tokenizer, lines, sample=False)
    right: dict[int, list[bool]] = {}
    for line, text in zip(lines, texts, strict=True):
        answer = (arithmetic.boxed(text) or "").strip()
        right.setdefault(len(line.split()), []).append(answer == in_order(line))
    return {str(letters): round(100 * sum(each) / len(each), 1) for letters, each in sorted(right.items())}


def make_base(out: Path, *, seed: int, steps: int) -> dict[str, Any]:
    """Train and save one base; return what is worth knowing of it. One thread: threads change the rounding."""
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    started = time.monotonic()
    arithmetic.train(model, tokenizer, pretraining_text(seed), steps, LEARNING_RATE)
    seconds = round(time.monotonic() - started, 1)
    arithmetic.save(model, tokenizer, out, "float32")
    return {
        "seed": seed,
        "steps": steps,
        "parameters": model.num_parameters(),
        "train_seconds": seconds,
        "greedy_by_letters": judge(model, tokenizer, make_heldout()),
    }


def main(argv: list[str] | None = None) -> int:
    """Print the report as JSON."""
    parser = argparse.ArgumentParser(description="Make the frontier example's base model or held-out lines.")
    parser.add_argument("--out", type=Path, metavar="DIR", help="train a base model and write it here")
    parser.add_argument("--heldout", type=Path, metavar="FILE", help="write the held-out lines here (JSON lines)")
    parser.add_argument("--seed", type=int, default=SHIPPED_SEED, help="of the weights and the text")
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps")
    arguments = parser.parse_args(argv)
    if arguments.out is None and arguments.heldout is None:
        parser.error("nothing to do: give --out, --heldout or both")
    if arguments.heldout is not None:
        arguments.heldout.write_text(heldout_text(make_heldout()), encoding="utf-8")
    if arguments.out is not None:
        print(json.dumps(make_base(arguments.out, seed=arguments.seed, steps=arguments.steps), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
