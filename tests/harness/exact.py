"""The same completions in any number of processes: TRL gives each process a random stream of its own, so that what
several train and what one trains could not be compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TOLERANCE = 0.02
"""Of the largest change of a weight: how far apart one and several processes' weights may be. docs/distributed.md."""


def completions(rank: int) -> None:
    """Let the policy's completions depend on the number of the step and their place in the whole batch alone, also
    after a checkpoint."""
    import torch

    from selfevo_contract.canonical import derive_seed
    from selfevo_trainer.grpo import resuming, train

    resume, generated = resuming._resume, [0]

    def resumed(context: Any, grpo: Any) -> Any:
        found = resume(context, grpo)
        if found is not None:  # the completions of a step under way are kept beside its checkpoint
            generated[0] = found.update // grpo.updates_per_step + (found.completions is not None)
        return found

    def row_by_row(context: Any, model: Any, budget: int, **_: Any) -> None:
        generate = model.generate

        def exact(**kwargs: Any) -> Any:
            generated[0] += 1
            ids, mask = kwargs.pop("input_ids"), kwargs.pop("attention_mask")
            rows = []
            for i in range(len(ids)):
                with torch.random.fork_rng():
                    torch.manual_seed(derive_seed(0, generated[0], rank * len(ids) + i))
                    own = mask[i].bool()
                    alone = generate(input_ids=ids[i][own][None], attention_mask=mask[i][own][None], **kwargs)
                    rows.append(alone[0, int(own.sum()) :])
            longest = max(len(row) for row in rows)
            pad = model.generation_config.pad_token_id
            filled = [torch.cat([row, row.new_full((longest - len(row),), pad)]) for row in rows]
            return torch.cat([ids, torch.stack(filled)], dim=1)

        model.generate = exact

    vars(resuming)["_resume"] = resumed
    vars(train)["generate_in_parts"] = row_by_row


def apart(ones: Mapping[str, Any], twos: Mapping[str, Any], before: Mapping[str, Any]) -> float:
    """The largest difference of two weights, as a share of the largest change that training made."""
    import numpy

    assert ones.keys() == twos.keys()
    moved = max(float(numpy.abs(ones[name] - before.get(name, 0)).max()) for name in ones)
    assert moved > 1e-4
    return max(float(numpy.abs(ones[name] - twos[name]).max()) for name in ones) / moved


def answers(rank: int, record: str | None) -> None:
    """Let the frozen Solver's answers depend on the question alone; ``record``: a folder for who was asked what."""
    import hashlib

    from selfevo_trainer.engines import Completion
    from selfevo_trainer.phases import challenger_train

    class Answers:
        def generate(
            self, prompts: Any, sampling: Any, samples: int, seed: int, streams: Any = None
        ) -> list[list[Completion]]:
            if record is not None:
                with Path(record, f"asked-{rank}.jsonl").open("a") as file:
                    file.write(json.dumps(list(streams)) + "\n")
            digests = [hashlib.sha256(repr(prompt).encode()).digest() for prompt in prompts]
            return [[Completion(f"\\boxed{{{d[i] % 3}}}", 3, False) for i in range(samples)] for d in digests]

        def score(self, rows: Any) -> list[list[float]]:
            return [[0.0] * (len(row) - 1) for row in rows]

        def close(self) -> None: ...

    phase: Any = challenger_train
    phase.open_frozen = lambda *_: Answers()
