"""Generation in the trainer's own process by transformers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from selfevo_contract.errors import InputError
from selfevo_contract.phases import Loading
from selfevo_contract.spec import engines
from selfevo_contract.spec.sampling import Sampling
from selfevo_trainer.engines.base import Completion, Frozen
from selfevo_trainer.engines.drawing import completions_of, greedy_config, processors
from selfevo_trainer.engines.probes import logprobs
from selfevo_trainer.models.loading import eos_token_ids, first_line, load_for_generation, load_tokenizer
from selfevo_trainer.prompts import Messages, encode_all

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "Cannot allocate memory")
"""How torch's allocators say it, CUDA's and the CPU's."""

log = logging.getLogger("selfevo")


def open_engine(settings: engines.TransformersEngine, weights: Frozen) -> TransformersEngine:
    """The engine with ``weights``."""
    return TransformersEngine(weights.path, weights.loading, settings)


class TransformersEngine:
    """`generate()` over batches that keep to ``settings``, longest prompts first."""

    def __init__(self, path: Path, loading: Loading, settings: engines.TransformersEngine) -> None:
        self.tokenizer = load_tokenizer(path, loading)
        self.model = load_for_generation(path, loading)
        self.eos = eos_token_ids(self.model.generation_config, self.tokenizer, loading)
        self.settings = settings
        self.halved = False
        """Memory has run out once, and batches are half of what ``settings`` say."""

    def generate(
        self,
        prompts: Sequence[Messages],
        sampling: Sampling,
        samples: int,
        seed: int,
        streams: Sequence[int] | None = None,
    ) -> list[list[Completion]]:
        """See `Engine.generate`.

        Raises:
            InputError: memory ran out, and again with batches half as large, or with a single sequence.
        """
        if not prompts:
            return []
        ids = encode_all(self.tokenizer, prompts)
        # Prompts of like length share a batch, so that little of it is padding.
        rows = sorted(completions_of(len(ids), samples, seed, streams), key=lambda row: -len(ids[row[0]]))
        found: list[list[Completion]] = [[] for _ in prompts]
        with torch.inference_mode():
            start = 0
            while start < len(rows):
                longest = len(ids[rows[start][0]]) + sampling.max_completion_length
                size = self.settings.sequences(longest)
                batch = rows[start : start + (max(1, size // 2) if self.halved else size)]
                try:
                    made = self._generate_batch([ids[i] for i, _ in batch], sampling, [own for _, own in batch])
                except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
                    if not _is_out_of_memory(error):
                        raise
                    self._halve(len(batch), longest, error)
                    made = None
                if made is None:  # outside of `except`, whose error holds on to the batch's tensors
                    if torch.cuda.is_available():
                        torch.cuda.empty_cache()
                    continue
                for (i, _), completion in zip(batch, made, strict=True):
                    found[i].append(completion)
                start += len(batch)
        return found

    def _halve(self, sequences: int, longest: int, error: Exception) -> None:
        what = f"memory ran out for a batch of {sequences} sequences of up to {longest} tokens"
        if self.halved or sequences == 1:
            raise InputError(
                f"{what} ({first_line(error)}); lower engine.batchSize or engine.batchTokens, or give the pods more "
                "memory"
            ) from error
        self.halved = True
        log.warning("%s; from here on batches are half as large. Lower engine.batchSize or engine.batchTokens", what)

    def _generate_batch(self, ids: list[list[int]], sampling: Sampling, streams: list[int]) -> list[Completion]:
        longest = max(len(row) for row in ids)
        pad = self.tokenizer.pad_token_id
        where = self.model.device
        input_ids = torch.tensor([[pad] * (longest - len(row)) + row for row in ids], device=where)
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids], device=where)
        output = self.model.generate(
            input_ids=input_ids,
            attention_mask=mask,
            generation_config=greedy_config(sampling.max_completion_length, self.eos, pad, self.tokenizer.bos_token_id),
            logits_processor=None if sampling.temperature == 0 else processors(sampling, streams, longest),
        )
        tokens = output[:, longest:].tolist()
        kept = [self._until_end(row) for row in tokens]
        texts = self.tokenizer.batch_decode([row for row, _ in kept], skip_special_tokens=True)
        return [Completion(text, len(row), not ended) for text, (row, ended) in zip(texts, kept, strict=True)]

    def _until_end(self, row: list[int]) -> tuple[list[int], bool]:
        for position, token in enumerate(row):
            if token in self.eos:
                return row[: position + 1], True
        return row, False

    def score(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """See `Engine.score`."""
        return logprobs(self.model, rows)

    def close(self) -> None:
        """Give the memory back."""
        del self.model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _is_out_of_memory(error: Exception) -> bool:
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or any(words in str(error) for words in _OUT_OF_MEMORY)
