"""A scalar reward model: a sequence classifier with one output, frozen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from selfevo_contract.errors import InputError
from selfevo_contract.phases import Loading
from selfevo_contract.sizing.memory import JUDGED_TOKENS
from selfevo_trainer.judges.encoding import Encoder
from selfevo_trainer.models.loading import device, load_tokenizer, not_loaded

FIELD = "spec.verifier.model.uri"


class ScalarJudge:
    """See `Judge`."""

    def __init__(self, model: Any, tokenizer: Any, max_length: int, digest: str) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.encode = Encoder(tokenizer, max_length)
        self.digest = digest

    @classmethod
    def load(cls, path: Path, loading: Loading, max_length: int, digest: str) -> ScalarJudge:
        """The judge in ``path``, in the run's dtype, on this process's device.

        Raises:
            InputError: it is none.
        """
        tokenizer = load_tokenizer(path, loading)
        model = load_classifier(path, tokenizer, loading, getattr(torch, loading.dtype))
        return cls(model.requires_grad_(False).to(device()).eval(), tokenizer, max_length, digest)

    def score(self, tasks: Sequence[str], answers: Sequence[str]) -> list[float]:
        """See `Judge.score`.

        Raises:
            InputError: a score is no number.
        """
        rows = [self.encode(task, answer) for task, answer in zip(tasks, answers, strict=True)]
        scores = scores_of(self.model, rows, self.tokenizer.pad_token_id)
        if not all(map(math.isfinite, scores)):
            raise not_a_number()
        return scores

    def close(self) -> None:
        """Give the memory back."""
        del self.model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def not_a_number() -> InputError:
    """What to say of a score that is none."""
    return InputError(
        "the judge computes NaN or infinity; set spec.model.dtype to float32 or bfloat16, or take another one"
    )


def scores_of(model: Any, rows: Sequence[Sequence[int]], pad: int) -> list[float]:
    """The one output for each of ``rows`` of token ids, in order. Rows of like length share a batch."""
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    found = [0.0] * len(rows)
    start = 0
    with torch.inference_mode():
        while start < len(order):
            longest = len(rows[order[start]])
            batch = order[start : start + max(1, JUDGED_TOKENS // longest)]
            ids = torch.tensor([[*rows[i], *[pad] * (longest - len(rows[i]))] for i in batch], device=model.device)
            mask = torch.tensor(
                [[1] * len(rows[i]) + [0] * (longest - len(rows[i])) for i in batch], device=model.device
            )
            logits = model(input_ids=ids, attention_mask=mask).logits.float()
            for i, score in zip(batch, logits[:, 0].tolist(), strict=True):
                found[i] = score
            start += len(batch)
    return found


def load_classifier(path: Path, tokenizer: Any, loading: Loading, dtype: Any, fresh: int | None = None) -> Any:
    """A sequence classifier with one output.

    Args:
        fresh: the seed of a new score head, on a model that has none; None: it must have one.

    Raises:
        InputError: it cannot be loaded, has several outputs, or no score head.
    """
    from transformers import AutoModelForSequenceClassification

    try:
        loaded: Any = AutoModelForSequenceClassification.from_pretrained(
            str(path),
            dtype=dtype,
            trust_remote_code=loading.trust_remote_code,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **({} if fresh is None else {"num_labels": 1}),
        )
    except (Exception, SystemExit) as error:  # a model's own code may ask to exit
        raise not_loaded(path, error) from None
    model, info = loaded
    missing = sorted(info["missing_keys"])
    if fresh is None and missing:
        raise InputError(
            f"the model in {path} is no classifier: its weights have no {missing[0]}; name a reward model as {FIELD}, "
            "or leave spec.verifier.model out, and the base gets a fresh score head"
        )
    if fresh is None and model.config.num_labels != 1:
        raise InputError(
            f"the model in {path} has {model.config.num_labels} outputs, and a judge has one; name a reward model as "
            f"{FIELD}, or leave spec.verifier.model out"
        )
    if fresh is not None:
        _begin_head(model, path, missing, fresh)
    model.config.get_text_config().pad_token_id = model.config.pad_token_id = tokenizer.pad_token_id
    return model


def _begin_head(model: Any, path: Path, missing: Sequence[str], seed: int) -> None:
    """Standard deviation 1 / sqrt(width + 1). Source: Stiennon et al., arXiv 2009.01325, appendix B.1."""
    head = getattr(model, "score", None)
    if head is None or [name for name in missing if not name.startswith("score.")]:
        raise InputError(
            f"the model in {path} takes no score head (transformers has no such classifier of its kind); name a reward "
            f"model as {FIELD}"
        )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        drawn = torch.randn(head.weight.shape, generator=generator) / (head.weight.shape[1] + 1) ** 0.5
        head.weight.copy_(drawn.to(head.weight.dtype))
