"""How far the policy's distribution at each token of an answer is from the uniform one (`rewards.self_certainty`).

The weights in training are asked in a forward pass of their own, whatever generated the answers: an engine gives the
likeliest tokens at most. It is the distribution that answers are drawn from before topP and topK cut it, which would
make tokens impossible and the divergence infinite.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from selfevo_contract.sizing.memory import CERTAINTY_TOKENS
from selfevo_contract.spec.grpo import Grpo
from selfevo_trainer.engines.probes import computing
from selfevo_trainer.models.loading import device
from selfevo_trainer.prompts import encode_all
from selfevo_trainer.rewards.self_certainty import from_uniform

_POSITIONS = 256
"""Of an answer, whose logits are in float32 at once."""


class PolicyDistributions:
    """The policy of one training process. See `rewards.base.Distributions`."""

    def __init__(self, model: Any, tokenizer: Any, grpo: Grpo) -> None:
        self.model, self.tokenizer, self.temperature = model, tokenizer, grpo.temperature
        # By the settings and not by what is there: sharded processes go through as many passes together. Prompts may be
        # long where answers are short: no more at once than a pass of the training takes.
        self.at_once = max(1, min(grpo.per_device_train_batch_size, CERTAINTY_TOKENS // grpo.max_completion_length))

    def from_uniform(self, prompts: Sequence[Any], completions: Sequence[Sequence[int]]) -> list[list[float]]:
        """See `rewards.base.Distributions.from_uniform`."""
        asked = encode_all(self.tokenizer, prompts)
        found: list[list[float]] = []
        with computing(self.model):
            for start in range(0, len(asked), self.at_once):
                part = slice(start, start + self.at_once)
                found += self._pass(asked[part], completions[part])
        return found

    def _pass(self, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]) -> list[list[float]]:
        # Prompts end, and completions begin, at one column, as in TRL's passes.
        before, behind = max(map(len, prompts)), max(1, *map(len, completions))
        pad = self.tokenizer.pad_token_id
        rows, masks = [], []
        for prompt, completion in zip(prompts, completions, strict=True):
            left, right = before - len(prompt), behind - len(completion)
            rows.append([pad] * left + [*prompt, *completion] + [pad] * right)
            masks.append([0] * left + [1] * (len(prompt) + len(completion)) + [0] * right)
        logits_BTV = self.model(
            input_ids=torch.tensor(rows, device=device()),
            attention_mask=torch.tensor(masks, device=device()),
            logits_to_keep=behind + 1,  # a token's distribution is found where the token before it stands
            use_cache=False,
        ).logits[:, -behind - 1 : -1]
        found_BT = torch.cat([self._divergence(part) for part in logits_BTV.split(_POSITIONS, dim=1)], dim=1)
        return [row[: len(own)] for row, own in zip(found_BT.tolist(), completions, strict=True)]

    def _divergence(self, logits_BTV: torch.Tensor) -> torch.Tensor:
        scaled = logits_BTV.float() / self.temperature
        return from_uniform(torch.logsumexp(scaled, dim=-1), scaled.mean(dim=-1), scaled.shape[-1])
