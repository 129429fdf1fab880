"""Make the demonstration's base model: a 170-thousand-parameter Qwen3 that adds and subtracts, half of the time right.

    python examples/arithmetic/make_base.py --out DIR [--seed 3] [--steps 1400] [--heldout FILE]

The model is built to leave something to elicit. It has learnt two ways to answer: at once (`\\boxed{85}`, mostly a
guess) or worked by columns, low digit first (`7815 3408\\boxed{85}`, mostly right). Sampled at temperature 1 it picks
either, so single samples are right about half of the time while the majority of eight nearly always is: what
self-evolution by majority labels needs. It also plays the Challenger: asked with "ask", it poses a question.

What is left out on purpose: a validation split (the gate below is the judge), mixed precision, more than one process,
early stopping. Steps are fixed, not seconds, so that a seed means one model on one machine. Bases differ a good deal by
seed, and not all can outvote their own mistakes: hence the gate.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # torch and transformers take seconds to import: --help and --heldout do without
    import torch
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

# --- the task ---------------------------------------------------------------------------------------------------------

LEVELS = (1, 2, 3, 4)  # a question's level is the number of digits of both its operands
HELDOUT_SIZE = 500
HELDOUT_SEED = 20_261_122  # of its own: every base, whatever its seed, is judged on the same questions
HELDOUT_WEIGHTS = (8, 37, 37, 18)

# --- the pre-training text --------------------------------------------------------------------------------------------

SOLVER_WEIGHTS = (15, 37, 32, 16)
CHALLENGER_WEIGHTS = (96, 2.8, 0.9, 0.3)  # nearly all easy: the Challenger has to learn to ask harder ones
CHALLENGER_SHARE = 0.2
# One-digit sums are known by heart, so there is nothing to learn from them; beyond, the harder the likelier a guess.
DIRECT_SHARE = {1: 0.95, 2: 0.42, 3: 0.52, 4: 0.65}
CHALLENGER_PROMPT = "ask"

# --- the vocabulary ---------------------------------------------------------------------------------------------------

PAD, END, SYSTEM, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"
SPECIAL_TOKENS = (PAD, END, SYSTEM, USER, ASSISTANT)
# Rewards read this markup in decoded text, and decoding drops special tokens: so one token each, but ordinary ones.
MARKUP_TOKENS = ("<question>", "</question>", "\\boxed{")
CHARACTERS = ("\n", *(chr(code) for code in range(0x20, 0x7F)))
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)

# --- training and judging ---------------------------------------------------------------------------------------------

BATCH_SIZE = 64
LEARNING_RATE = 6e-3
BETAS = (0.9, 0.98)
WARMUP_STEPS = 50
CLIP_NORM = 1.0
IGNORED = -100  # the label that the loss leaves out

SHIPPED_SEED = 3  # the seed of base/ beside this file
SAMPLES = 8
MAX_ANSWER_TOKENS = 32
GATE_SEED = 0
# Too low a majority and the labels teach nonsense; too high a mean and there is nothing left to show.
GATE = {"greedy": (0.40, 0.75), "mean_of_8": (0.40, 0.60), "majority_of_8": (0.80, 1.0)}


@dataclass(frozen=True)
class Question:
    """`Question(37, "+", 48)`: text "37 + 48", answer "85"."""

    x: int
    operator: str
    y: int

    @property
    def text(self) -> str:
        # The spaces matter: "37+48" is a single word to BLEU, and identical copies would never cluster.
        return f"{self.x} {self.operator} {self.y}"

    @property
    def answer(self) -> str:
        return str(self.x + self.y if self.operator == "+" else self.x - self.y)


@dataclass(frozen=True)
class Example:
    """One conversation: the user's message and the assistant's completion, without the end token."""

    prompt: str
    completion: str


def normalise(text: str) -> str:
    """The form by which held-out questions are recognised: `" 37 +48"` -> `"37+48"`."""
    return "".join(text.split())


def draw_question(rng: random.Random, level: int) -> Question:
    """A question whose operands both have `level` digits; no result is negative."""
    low = 0 if level == 1 else 10 ** (level - 1)
    x, y = rng.randrange(low, 10**level), rng.randrange(low, 10**level)
    if rng.random() < 0.5:
        return Question(x, "+", y)
    return Question(max(x, y), "-", min(x, y))


def make_heldout() -> list[Question]:
    """The held-out questions, the same on every call: exact shares by level, no duplicates."""
    rng = random.Random(HELDOUT_SEED)
    questions: dict[str, Question] = {}
    for level, weight in zip(LEVELS, HELDOUT_WEIGHTS, strict=True):
        wanted = len(questions) + HELDOUT_SIZE * weight // 100
        while len(questions) < wanted:
            question = draw_question(rng, level)
            questions.setdefault(normalise(question.text), question)
    ordered = list(questions.values())
    rng.shuffle(ordered)  # so that the first N are a fair sample as well
    return ordered


def heldout_lines(questions: list[Question]) -> str:
    """The held-out file: one JSON object a line."""
    return "".join(json.dumps({"question": q.text, "answer": q.answer}) + "\n" for q in questions)


def columns(question: Question) -> str:
    """The working, low digit first, a column as `x y carry digit`: 37 + 48 -> `7815 3408`.

    7 + 8 is 5, carry 1; 3 + 4 + 1 is 8, carry 0. Subtraction writes the borrow in the carry's place:
    52 - 37 -> `2715 5301`.
    """
    worked, carry = [], 0
    for x, y in zip(reversed(str(question.x)), reversed(str(question.y)), strict=True):
        total = int(x) + int(y) + carry if question.operator == "+" else int(x) - int(y) - carry
        carry = int(not 0 <= total <= 9)
        worked.append(f"{x}{y}{carry}{total % 10}")
    return " ".join(worked)


def pretraining_text(seed: int, heldout: list[Question]) -> Iterator[Example]:
    """The endless pre-training text of one seed. No held-out question occurs in it, in either role."""
    rng = random.Random(seed)
    excluded = {normalise(question.text) for question in heldout}
    while True:
        asks = rng.random() < CHALLENGER_SHARE
        level = rng.choices(LEVELS, CHALLENGER_WEIGHTS if asks else SOLVER_WEIGHTS)[0]
        question = draw_question(rng, level)
        while normalise(question.text) in excluded:  # at the same level, or easy questions would become rare
            question = draw_question(rng, level)
        boxed = f"\\boxed{{{question.answer}}}"
        if asks:
            yield Example(CHALLENGER_PROMPT, f"<question>{question.text}</question>{boxed}")
        elif rng.random() < DIRECT_SHARE[level]:
            yield Example(question.text, boxed)
        else:
            yield Example(question.text, columns(question) + boxed)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character (BPE without merges), plus the special tokens and the markup."""
    from tokenizers import AddedToken, Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = [*SPECIAL_TOKENS, *MARKUP_TOKENS, *CHARACTERS]
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(vocabulary)}, merges=[]))
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    backend.add_tokens([AddedToken(token, special=False, normalized=False) for token in MARKUP_TOKENS])
    backend.decoder = decoders.Fuse()  # without it decoding puts a space between tokens
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, **sizes: int) -> Qwen3ForCausalLM:
    """A fresh Qwen3 of 170 thousand parameters, or of other ``sizes``, initialised from torch's global seed."""
    from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

    shape = {
        "hidden_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "head_dim": 32,  # the smallest that vLLM's attention accepts
        "intermediate_size": 192,
    }
    model = Qwen3ForCausalLM(
        Qwen3Config(
            **(shape | sizes),
            vocab_size=len(tokenizer),
            max_position_embeddings=512,
            initializer_range=0.05,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        max_new_tokens=MAX_ANSWER_TOKENS,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return model


def as_chat(tokenizer: PreTrainedTokenizerFast, prompt: str) -> str:
    """The text the model continues: `<|user|>37 + 48<|end|><|assistant|>`."""
    message = {"role": "user", "content": prompt}
    rendered: str = tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
    return rendered


def collate(tokenizer: PreTrainedTokenizerFast, examples: list[Example]) -> dict[str, torch.Tensor]:
    """A right-padded batch whose labels cover the completion and its end token only."""
    import torch

    prompts = tokenizer([as_chat(tokenizer, example.prompt) for example in examples])["input_ids"]
    completions = tokenizer([example.completion + END for example in examples])["input_ids"]
    length = max(len(p) + len(c) for p, c in zip(prompts, completions, strict=True))
    ids = torch.full((len(examples), length), tokenizer.pad_token_id)
    labels = torch.full_like(ids, IGNORED)
    mask = torch.zeros_like(ids)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        end = len(prompt) + len(completion)
        ids[row, :end] = torch.tensor(prompt + completion)
        labels[row, len(prompt) : end] = torch.tensor(completion)
        mask[row, :end] = 1
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def learning_rate_factor(step: int, steps: int) -> float:
    """Linear warm-up, then linear decay to zero at `steps`."""
    return min((step + 1) / WARMUP_STEPS, (steps - step) / max(1, steps - WARMUP_STEPS), 1.0)


def train(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    text: Iterator[Example],
    steps: int,
    learning_rate: float = LEARNING_RATE,
) -> None:
    """Teach `model` the text, `steps` batches of it."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=BETAS)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, steps))
    model.train()
    for step in range(1, steps + 1):
        loss = model(**collate(tokenizer, [next(text) for _ in range(BATCH_SIZE)])).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0 or step == steps:
            print(f"step {step}/{steps} loss {loss.item():.4f}", file=sys.stderr)
    model.eval()


def boxed(text: str) -> str | None:
    """What stands in the last complete box: `7815 3408\\boxed{85}` -> `85`."""
    _, found, rest = text.rpartition("\\boxed{")
    answer, closed, _ = rest.partition("}")
    return answer if found and closed else None


def answer_all(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: list[str], *, sample: bool
) -> list[str]:
    """One completion a prompt, greedy or sampled at temperature 1."""
    import torch

    texts: list[str] = []
    sampling: dict[str, Any] = {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0}
    for start in range(0, len(prompts), 500):
        chats = [as_chat(tokenizer, prompt) for prompt in prompts[start : start + 500]]
        batch = tokenizer(chats, return_tensors="pt", padding=True, padding_side="left")
        with torch.inference_mode():
            output = model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                max_new_tokens=MAX_ANSWER_TOKENS,
                **(sampling if sample else {"do_sample": False}),
            )
        texts += tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts


def majority(answers: list[str | None]) -> str | None:
    """The most frequent answer; an answer without a box has no vote, and the first seen wins a tie."""
    votes = Counter(answer for answer in answers if answer is not None)
    return votes.most_common(1)[0][0] if votes else None


def judge(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, questions: list[Question]) -> dict[str, Any]:
    """The gate's figures, as shares of 1, and which of them fall outside their bounds."""
    import torch

    torch.manual_seed(GATE_SEED)
    prompts = [question.text for question in questions]
    greedy = [boxed(text) for text in answer_all(model, tokenizer, prompts, sample=False)]
    texts = answer_all(model, tokenizer, [p for p in prompts for _ in range(SAMPLES)], sample=True)
    # A row a question, a column a sample.
    sampled = [[boxed(text) for text in texts[i : i + SAMPLES]] for i in range(0, len(texts), SAMPLES)]
    worked = [not text.startswith("\\boxed{") for text in texts]
    truths = [question.answer for question in questions]
    right = [answer == truth for row, truth in zip(sampled, truths, strict=True) for answer in row]
    figures = {
        "greedy": _share([answer == truth for answer, truth in zip(greedy, truths, strict=True)]),
        "mean_of_8": _share(right),
        "majority_of_8": _share([majority(row) == truth for row, truth in zip(sampled, truths, strict=True)]),
        "worked_share": _share(worked),
        "worked_right": _share([r for r, w in zip(right, worked, strict=True) if w]),
        "direct_right": _share([r for r, w in zip(right, worked, strict=True) if not w]),
    }
    failed = [name for name, (low, high) in GATE.items() if not low <= figures[name] <= high]
    return {"questions": len(questions), **figures, "passed": not failed, "failed": failed}


def _share(outcomes: list[bool]) -> float:
    return round(sum(outcomes) / len(outcomes), 4) if outcomes else math.nan


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path, dtype: str) -> None:
    """Write the model (safetensors), its generation settings and its tokenizer to `out`."""
    import torch

    model.to(getattr(torch, dtype)).save_pretrained(out)
    tokenizer.save_pretrained(out)


def make_base(out: Path, *, seed: int, steps: int, dtype: str, gate: bool) -> dict[str, Any]:
    """Train and save one base; return what is worth knowing of it. One thread: threads change the rounding."""
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    heldout = make_heldout()
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    started = time.monotonic()
    train(model, tokenizer, pretraining_text(seed, heldout), steps)
    report: dict[str, Any] = {
        "seed": seed,
        "steps": steps,
        "parameters": model.num_parameters(),
        "train_seconds": round(time.monotonic() - started, 1),
    }
    save(model, tokenizer, out, dtype)
    if gate:
        report["gate"] = judge(model, tokenizer, heldout)
    return report


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line; there must be something to write."""
    parser = argparse.ArgumentParser(
        description="Make the arithmetic demonstration's base model or held-out questions."
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="train a base model and write it here")
    parser.add_argument("--heldout", type=Path, metavar="FILE", help="write the held-out questions here (JSON lines)")
    parser.add_argument(
        "--seed", type=int, default=SHIPPED_SEED, help="of the weights and the text (default: %(default)s)"
    )
    parser.add_argument("--steps", type=int, default=1400, help="training steps (default: %(default)s)")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="of the saved weights"
    )
    parser.add_argument("--no-gate", dest="gate", action="store_false", help="skip the check of the result")
    arguments = parser.parse_args(argv)
    if arguments.out is None and arguments.heldout is None:
        parser.error("nothing to do: give --out, --heldout or both")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Print the report as JSON; return 1 when the gate failed."""
    arguments = parse_arguments(argv)
    if arguments.heldout is not None:
        arguments.heldout.write_text(heldout_lines(make_heldout()), encoding="utf-8")
    if arguments.out is None:
        return 0
    report = make_base(
        arguments.out, seed=arguments.seed, steps=arguments.steps, dtype=arguments.dtype, gate=arguments.gate
    )
    print(json.dumps(report, indent=2))
    return 0 if not arguments.gate or report["gate"]["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
