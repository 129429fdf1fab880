"""Make the writing example's models and data: a base that writes carelessly, and a first judge that knows short tasks.

    python examples/writing/make_base.py --data DIR                  # heldout.jsonl, anchors.jsonl
    python examples/writing/make_base.py --out DIR [--seed 0]        # DIR/base, DIR/judge

The base is a Qwen3 of 100 thousand parameters. Every sample of it may have slips (`task.Slips`): words are left out,
added or swapped, connectors wrong. It also plays the Challenger, splits a task into parts, does a part, and composes
a text of drafts, by the prompts that the maker `decomposition` asks with. The judge is that base with a score head,
trained on ordered pairs of careless and careful texts on tasks of 2 to 4 words, one of twenty pairs in the wrong
order: about longer tasks it has to guess, and can be wrong.

Batches and the base's training are those of examples/arithmetic/make_base.py; the judge reads as the product's do.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

    from selfevo_trainer.judges.encoding import Encoder


def load_script(name: str, path: Path) -> ModuleType:
    """A script of the examples: `examples` is not a package."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


HERE = Path(__file__).resolve().parent
arithmetic = load_script("arithmetic_make_base", HERE.parent / "arithmetic" / "make_base.py")
task = load_script("writing_task", HERE / "task.py")

CHALLENGER_PROMPT = "?"
CHALLENGER_WEIGHTS = (25, 25, 20, 17, 13)
"""Of 2 to 6 words."""
SHARES = {"solver": 0.64, "challenger": 0.14, "split": 0.06, "part": 0.06, "compose": 0.1}
"""Of the base's text."""

HELDOUT_SEED, HELDOUT_OF_EACH = 20_261_130, 25
ANCHORS_SEED, ANCHORS_OF_EACH = 20_261_131, 60
LEAST_DIFFERENCE = 0.1
"""In quality, between the texts of an anchor."""

SHIPPED_SEED = 0
STEPS, LEARNING_RATE = 1500, 5e-3
JUDGE_LENGTHS = range(2, 5)
"""Words of the tasks that the first judge has seen."""
JUDGE_STEPS, JUDGE_BATCH, JUDGE_RATE = 1600, 64, 2e-3
JUDGE_NOISE = 0.05
"""Share of its pairs whose order is the wrong one."""
MAX_LENGTH = 96
"""Tokens that the judge reads of a task and its text."""


def make_heldout() -> list[str]:
    """The held-out tasks, the same on every call."""
    return _tasks(HELDOUT_SEED, HELDOUT_OF_EACH)


def _tasks(seed: int, of_each: int) -> list[str]:
    rng = random.Random(seed)
    tasks = [task.draw(rng, words) for words in task.LENGTHS for _ in range(of_each)]
    rng.shuffle(tasks)
    return list(dict.fromkeys(tasks))


def make_anchors() -> list[dict[str, str]]:
    """Two careless texts on a task each, the better one first; none of the held-out tasks."""
    rng, held = random.Random(ANCHORS_SEED + 1), set(make_heldout())
    return [
        {"question": asked, "chosen": better, "rejected": worse}
        for asked in _tasks(ANCHORS_SEED, ANCHORS_OF_EACH)
        if asked not in held
        for better, worse in [ordered(rng, asked)]
    ]


def ordered(rng: random.Random, asked: str, slips: Any = task.CARELESS) -> tuple[str, str]:
    """Two texts on a task of different quality, the better one first; careless ones, or by a writer of other slips."""
    while True:
        one, other = task.written(rng, asked, slips), task.written(rng, asked, slips)
        difference = task.quality(asked, one) - task.quality(asked, other)
        if abs(difference) >= LEAST_DIFFERENCE:
            return (one, other) if difference > 0 else (other, one)


def heldout_text(tasks: list[str]) -> str:
    """JSON lines: a task, and the perfect text."""
    return "".join(json.dumps({"question": each, "answer": task.joined(each.split())}) + "\n" for each in tasks)


def pretraining_text(seed: int) -> Iterator[Any]:
    """The endless text of one seed, in all roles."""
    rng, held = random.Random(seed), set(make_heldout())
    while True:
        kind = rng.choices(list(SHARES), list(SHARES.values()))[0]
        weights = CHALLENGER_WEIGHTS if kind == "challenger" else None
        asked = task.draw(rng, rng.choices(task.LENGTHS, weights)[0])
        if asked not in held:
            yield example(rng, kind, asked)


def example(rng: random.Random, kind: str, asked: str) -> Any:
    """One conversation of that role about that task."""
    from selfevo_trainer.pairs.decomposition import COMPOSE, DO, SPLIT

    parts = [" ".join(part) for part in task.parts_of(asked.split())]
    if kind == "challenger":
        return arithmetic.Example(CHALLENGER_PROMPT, f"<question> {asked} </question>")
    if kind == "solver" or not parts:
        return arithmetic.Example(asked, task.written(rng, asked))
    if kind == "split":
        return arithmetic.Example(SPLIT.replace("{task}", asked), "\n".join(f"- {part}" for part in parts))
    if kind == "part":
        part = rng.choice(parts)
        return arithmetic.Example(DO.format(task=asked, part=part), task.written(rng, part))
    texts = [task.written(rng, part) for part in parts]
    prompt = COMPOSE.format(task=asked, drafts="\n\n".join(map("\n".join, zip(parts, texts, strict=True))))
    return arithmetic.Example(prompt, task.in_box(composed(texts)))


def composed(texts: list[str]) -> str:
    """What the drafts say, joined by the right connector.

    >>> composed(["\\\\boxed{ fox and owl }", "\\\\boxed{ bell }"])
    'fox and owl but bell'
    """
    said = [words for text in texts if (words := text.replace(task.OPEN, "").replace(task.CLOSE, "").split())]
    told = list(said[0])
    for words in said[1:]:
        told += [task.connector(told[-1], words[0]), *words]
    return " ".join(told)


def vocabulary() -> list[str]:
    """The words of the task, of the markup and of the prompts; anything else is spelled by characters."""
    from selfevo_trainer.pairs.decomposition import COMPOSE, DO, SPLIT

    prompts = re.sub(r"\{\w+\}", " ", f"{SPLIT} {DO} {COMPOSE}").split()
    words = ["<question>", "</question>", task.OPEN, task.ALIKE, task.UNLIKE, *task.WORDS, *prompts]
    return list(dict.fromkeys(word for word in words if len(word) > 1))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A token a known word; blanks are none, and stand between all tokens of a decoded text."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = [*arithmetic.SPECIAL_TOKENS, *arithmetic.CHARACTERS, *vocabulary()]
    ids = {token: i for i, token in enumerate(tokens)}
    # Words of the vocabulary are whole tokens without merges that would make them.
    backend = Tokenizer(models.BPE(vocab=ids, merges=[], ignore_merges=True))
    backend.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in arithmetic.SPECIAL_TOKENS]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"[ \t]+"), "removed"), pre_tokenizers.Split("\n", "isolated")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=arithmetic.PAD,
        eos_token=arithmetic.END,
        additional_special_tokens=[arithmetic.SYSTEM, arithmetic.USER, arithmetic.ASSISTANT],
        chat_template=arithmetic.CHAT_TEMPLATE,
        padding_side="left",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def measure(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """What sampled texts on the held-out tasks are worth, by their number of words."""
    tasks = make_heldout()
    found: dict[int, list[float]] = {}
    for asked, text in zip(tasks, arithmetic.answer_all(model, tokenizer, tasks, sample=True), strict=True):
        found.setdefault(len(asked.split()), []).append(task.quality(asked, text))
    return {str(words): round(sum(each) / len(each), 3) for words, each in sorted(found.items())}


def train_judge(base: Path, out: Path, seed: int, steps: int) -> dict[str, Any]:
    """The base with a score head, trained on pairs of short tasks; returns its accuracies on the anchors."""
    import torch
    from torch.nn.functional import logsigmoid

    from selfevo_contract.phases import Loading
    from selfevo_trainer.judges.encoding import Encoder
    from selfevo_trainer.judges.scalar import load_classifier
    from selfevo_trainer.models.loading import load_tokenizer

    loading = Loading(dtype="float32", trust_remote_code=False)
    tokenizer = load_tokenizer(base, loading)
    model = load_classifier(base, tokenizer, loading, torch.float32, fresh=seed)
    encode, pad = Encoder(tokenizer, MAX_LENGTH), tokenizer.pad_token_id
    optimizer = torch.optim.AdamW(model.parameters(), lr=JUDGE_RATE, betas=arithmetic.BETAS, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: arithmetic.learning_rate_factor(step, steps))
    pairs = judge_pairs(seed)
    model.train()
    for _ in range(steps):
        rows = [next(pairs) for _ in range(JUDGE_BATCH)]
        chosen, rejected = scores(model, encode, pad, rows).chunk(2)
        loss = -logsigmoid(chosen - rejected).mean() + 0.01 * ((chosen + rejected) ** 2).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), arithmetic.CLIP_NORM)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.eval()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    with torch.inference_mode():
        anchors = [(row["question"], row["chosen"], row["rejected"]) for row in make_anchors()]
        chosen, rejected = scores(model, encode, pad, anchors).chunk(2)
    right: dict[int, list[bool]] = {}
    for (asked, _, _), margin in zip(anchors, (chosen - rejected).tolist(), strict=True):
        right.setdefault(len(asked.split()), []).append(margin > 0)
    return {str(words): round(sum(each) / len(each), 3) for words, each in sorted(right.items())}


def judge_pairs(seed: int) -> Iterator[tuple[str, str, str]]:
    """The first judge's pairs: a task and two texts, half of them careful ones; mostly the better one first."""
    rng = random.Random(f"judge {seed}")
    apart = {*make_heldout(), *(row["question"] for row in make_anchors())}
    while True:
        asked = task.draw(rng, rng.choice(JUDGE_LENGTHS))
        if asked in apart:
            continue
        better, worse = ordered(rng, asked, rng.choice((task.CARELESS, task.CAREFUL)))
        yield (asked, worse, better) if rng.random() < JUDGE_NOISE else (asked, better, worse)


def scores(model: Any, encode: Encoder, pad: int, rows: list[tuple[str, str, str]]) -> Any:
    """The judge's scores of all second columns, then of all third ones."""
    import torch

    ids = [encode(asked, text) for column in (1, 2) for row in rows for asked, text in [(row[0], row[column])]]
    longest = max(map(len, ids))
    padded = torch.tensor([[*each, *[pad] * (longest - len(each))] for each in ids])
    mask = torch.tensor([[1] * len(each) + [0] * (longest - len(each)) for each in ids])
    return model(input_ids=padded, attention_mask=mask).logits[:, 0]


def make_models(out: Path, *, seed: int, steps: int, judge_steps: int) -> dict[str, Any]:
    """Train and save base and judge; return what is worth knowing of them. One thread: threads change the rounding."""
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    model = arithmetic.build_model(
        tokenizer, hidden_size=64, num_attention_heads=2, num_key_value_heads=2, intermediate_size=128
    )
    report: dict[str, Any] = {"seed": seed, "parameters": model.num_parameters()}
    begun = time.monotonic()
    if steps:
        arithmetic.train(model, tokenizer, pretraining_text(seed), steps, LEARNING_RATE)
        arithmetic.save(model, tokenizer, out / "base", "float32")
        report |= {"steps": steps, "quality_by_words": measure(model, tokenizer)}
    report["base_seconds"] = round(time.monotonic() - begun, 1)
    begun = time.monotonic()
    report["judge_right_by_words"] = train_judge(out / "base", out / "judge", seed, judge_steps)
    return {**report, "judge_steps": judge_steps, "judge_seconds": round(time.monotonic() - begun, 1)}


def main(argv: list[str] | None = None) -> int:
    """Print the report as JSON."""
    parser = argparse.ArgumentParser(description="Make the writing example's models or data.")
    parser.add_argument("--out", type=Path, metavar="DIR", help="train base and judge and write them into it")
    parser.add_argument("--data", type=Path, metavar="DIR", help="write heldout.jsonl and anchors.jsonl into it")
    parser.add_argument("--seed", type=int, default=SHIPPED_SEED, help="of the weights and the text")
    parser.add_argument("--steps", type=int, default=STEPS, help="the base's training steps; 0 keeps DIR/base")
    parser.add_argument("--judge-steps", type=int, default=JUDGE_STEPS, help="the judge's")
    arguments = parser.parse_args(argv)
    if arguments.out is None and arguments.data is None:
        parser.error("nothing to do: give --out, --data or both")
    if arguments.data is not None:
        (arguments.data / "heldout.jsonl").write_text(heldout_text(make_heldout()))
        lines = (json.dumps(row) + "\n" for row in make_anchors())
        (arguments.data / "anchors.jsonl").write_text("".join(lines))
    if arguments.out is not None:
        report = make_models(
            arguments.out, seed=arguments.seed, steps=arguments.steps, judge_steps=arguments.judge_steps
        )
        print(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
