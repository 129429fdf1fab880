"""The probe of a fingerprint: completions that the weights draw themselves, and how likely weights find them."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList

from selfevo_contract.fingerprint import Dtype, ProbeRow
from selfevo_trainer.engines.drawing import Drawn, greedy_config, stream

ROWS = 8
TOKENS = 16
"""Most tokens of a row's completion."""


def draw(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    ends: Collection[int],
    dtype: Dtype,
    longest: int = TOKENS,
) -> list[ProbeRow]:
    """ROWS completions of ``prompts``, sampled at temperature 1, with their log-probabilities.

    Of tokens that text can hold: no special ones, which servers may refuse to score, and none that the tokenizer does
    not have. The process's random state stays as it was.

    Args:
        prompts: token ids; taken in turn until there are ROWS.
        ends: tokens that end an answer; a row stops before one.
        dtype: what engines will load the weights in.
        longest: most tokens of a completion.
    """
    rows = [list(prompts[i % len(prompts)]) for i in range(ROWS)]
    width = max(map(len, rows))
    pad, where = tokenizer.pad_token_id, model.device
    with computing(model):
        output = model.generate(
            input_ids=torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=where),
            attention_mask=torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=where),
            generation_config=greedy_config(min(TOKENS, longest), ends, pad),
            logits_processor=LogitsProcessorList(
                [_OfText(tokenizer, ends, width), Drawn([stream(0, i, 0) for i in range(ROWS)], width)]
            ),
        )
    drawn = []
    for row, tokens in zip(rows, output[:, width:].tolist(), strict=True):
        completion = tokens[: next((i for i, token in enumerate(tokens) if token in ends), len(tokens))]
        drawn.append(ProbeRow(tokens=[*row, *completion], prompt=len(row), dtype=dtype, logprobs=[]))
    with rounded(model, dtype):
        found = logprobs(model, [row.tokens for row in drawn])
    return [row.model_copy(update={"logprobs": own[row.prompt - 1 :]}) for row, own in zip(drawn, found, strict=True)]


def after_training(model: Any, rows: Sequence[ProbeRow]) -> list[ProbeRow]:
    """The fingerprint of ``model``, whose training began where ``rows`` were drawn."""
    with rounded(model, rows[0].dtype):
        found = logprobs(model, [row.tokens for row in rows])
    return [
        row.model_copy(update={"before": row.logprobs, "logprobs": own[row.prompt - 1 :]})
        for row, own in zip(rows, found, strict=True)
    ]


def logprobs(model: Any, rows: Sequence[Sequence[int]]) -> list[list[float]]:
    """Log-probability of every token of each row but its first (`Engine.score`). One row at a time: they are few."""
    found = []
    with computing(model):
        for row in rows:
            ids_1T = torch.tensor([list(row)], device=model.device)
            logprobs_TV = torch.log_softmax(model(input_ids=ids_1T).logits[0, :-1].float(), dim=-1)
            found.append(logprobs_TV.gather(1, ids_1T[0, 1:, None])[:, 0].tolist())
    return found


class _OfText(LogitsProcessor):
    """Leaves tokens that text can hold, and behind the first token those that end it."""

    def __init__(self, tokenizer: Any, ends: Collection[int], prompt_length: int) -> None:
        special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        self.plain = sorted({*tokenizer.get_vocab().values()} - special - set(ends))
        self.ends = sorted(ends)
        self.prompt_length = prompt_length
        self._allowed: dict[bool, torch.Tensor] = {}

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Shapes: input_ids (B, length so far), scores (B, V) -> (B, V), -inf for what may not be drawn."""
        first = input_ids.shape[1] == self.prompt_length
        if first not in self._allowed:
            ids = [number for number in [*self.plain, *([] if first else self.ends)] if number < scores.shape[1]]
            self._allowed[first] = torch.full_like(scores[0], -torch.inf)
            self._allowed[first][ids] = 0.0
        return scores + self._allowed[first]


@contextlib.contextmanager
def rounded(model: Any, dtype: Dtype) -> Iterator[None]:
    """Within it ``model`` computes as it is, with weights rounded to ``dtype``, one module's at a time.

    An engine of 16 bits has no others, and much of what a training with small steps changes is lost in them: unrounded
    ones would make of the right engine one that serves older weights.
    """
    kept: dict[torch.nn.Module, list[tuple[torch.nn.Parameter, torch.Tensor]]] = {}

    def enter(module: torch.nn.Module, _: Any) -> None:
        own = [each for each in module.parameters(recurse=False) if each.is_floating_point()]
        kept[module] = [(each, each.data) for each in own]
        for parameter, data in kept[module]:
            parameter.data = data.to(getattr(torch, dtype)).to(data.dtype)

    def leave(module: torch.nn.Module, _: Any, __: Any) -> None:
        for parameter, data in kept.pop(module, []):
            parameter.data = data

    hooks = []
    for module in model.modules() if dtype != "float32" else ():
        if next(module.parameters(recurse=False), None) is not None:
            hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave, always_call=True)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextlib.contextmanager
def computing(model: Any) -> Iterator[None]:
    """Within it ``model`` is asked and not trained."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():  # not inference_mode: what a model caches then could not be trained through
            yield
    finally:
        model.train(training)
