"""The policy's own generation: TRL calls `generate` once with all completions of a step; here it is cut and timed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from selfevo_trainer.context import Context
from selfevo_trainer.distributed import collective
from selfevo_trainer.grpo.snapshots import RandomState, random_state, set_random_state
from selfevo_trainer.process.signals import Interrupted, StopRequest

log = logging.getLogger("selfevo")


def cut(sequences: int, tokens_each: int, budget: int) -> list[tuple[int, int]]:
    """Ranges of sequences that are generated at once: as even as can be, each within ``budget`` tokens, or of one.

    >>> cut(10, 100, 400)
    [(0, 4), (4, 7), (7, 10)]
    """
    largest = max(1, budget // tokens_each)
    count = -(-sequences // largest)
    sizes = [sequences // count + (i < sequences % count) for i in range(count)]
    ends = [sum(sizes[: i + 1]) for i in range(count)]
    return [(end - size, end) for size, end in zip(sizes, ends, strict=True)]


class _AskedToStop(StoppingCriteria):
    """Ends generation at the next token."""

    def __init__(self, stop: StopRequest) -> None:
        self.stop = stop

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), self.stop.requested, device=input_ids.device)


class Keeper(Protocol):
    """Keeps the parts of a step that is stopped before it has all, and gives them back when it begins again."""

    def take_parts(self) -> tuple[list[torch.Tensor], RandomState] | None:
        """This process's parts of the step that begins, once, and the random state after them; None without any."""

    def keep_parts(self, parts: Sequence[torch.Tensor], random: RandomState, number: int) -> None:
        """Keep what this process has so far; all processes together have ``number`` parts."""


def generate_in_parts(
    context: Context, model: Any, budget: int, *, keeper: Keeper | None = None, together: bool = False
) -> None:
    """Have ``model.generate`` work on at most ``budget`` tokens at once, prompts included, and count its time.

    All keys and values of a step at once would not fit: 256 sequences of 4,352 tokens of a 4B model take 150 GiB.
    The parts draw from the process's random state one after another, so that the budget is an input of the step.

    Args:
        keeper: is given what is whole, each part where a process is alone and may end at any moment; several give it
            when they stop together.
        together: the processes share the weights out among them and gather them in each forward pass, so that all go
            through the same parts and leave after the same one.

    Raises:
        Interrupted: within ``model.generate``, some process was asked to stop.
    """
    generate = model.generate

    def in_parts(*args: Any, generation_config: Any, **inputs: Any) -> torch.Tensor:
        ids_BT = inputs["input_ids"]
        rows = len(ids_BT)
        longest = ids_BT.shape[1] + generation_config.max_new_tokens
        if together:  # each process pads to its own longest prompt
            longest = max(collective.all_gather([longest]))
        with context.clock.during("generation"):
            ranges = cut(rows, longest, budget)
            parts, states = _begun(keeper.take_parts() if keeper is not None else None, ranges, together=together)
            restored = len(parts)
            for begin, end in ranges[restored:]:
                part = {
                    name: value[begin:end] if isinstance(value, torch.Tensor) and len(value) == rows else value
                    for name, value in inputs.items()
                }
                if context.rank.size > 1:
                    part["stopping_criteria"] = StoppingCriteriaList([_AskedToStop(context.stop)])
                made = generate(*args, generation_config=generation_config, **part)
                asked = context.stop.requested
                if not asked:  # else it may have been cut off
                    parts.append(made)
                    states.append(random_state())
                    if keeper is not None and context.rank.size == 1:
                        keeper.keep_parts(parts, states[-1], len(parts))
                if collective.any_rank(asked) if together else asked:
                    break
            # Here several processes end together: none waits for one that left.
            if collective.any_rank(context.stop.requested):
                if keeper is not None and context.rank.size > 1:
                    _keep(keeper, parts, states, together=together)
                raise Interrupted("stopped on request while completions were generated")
        width = max(part.shape[1] for part in parts)
        padding = generation_config.pad_token_id
        context.clock.tokens += sum(int((part[:, ids_BT.shape[1] :] != padding).sum()) for part in parts[restored:])
        return torch.cat([torch.nn.functional.pad(part, (0, width - part.shape[1]), value=padding) for part in parts])

    model.generate = in_parts


def _begun(
    taken: tuple[list[torch.Tensor], RandomState] | None, ranges: Sequence[tuple[int, int]], *, together: bool
) -> tuple[list[torch.Tensor], list[RandomState]]:
    """The parts that are there, and the random state before and after each; those within what was ``taken`` count as
    one, for nobody goes back behind them.

    Parts of a training that cut its completions elsewhere are none: with ``grpo.sharding``, which may change while a
    run is suspended, the processes cut by the longest prompt of all, and have as many each.
    """
    if taken is None:
        return [], [random_state()]
    parts, state = taken
    elsewhere = [len(part) for part in parts] != [end - begin for begin, end in ranges[: len(parts)]]
    apart = together and len(set(collective.all_gather([len(parts)]))) > 1
    if collective.any_rank(elsewhere or apart):
        log.warning("the completions that an earlier attempt kept are cut into other parts; they are generated again")
        return [], [random_state()]
    set_random_state(state)
    return list(parts), [state] * (len(parts) + 1)


def _keep(keeper: Keeper, parts: Sequence[torch.Tensor], states: Sequence[RandomState], *, together: bool) -> None:
    """Have kept what several processes have; as many in each where they go through the same parts."""
    counts = collective.all_gather([len(parts)])
    own = min(counts) if together else len(parts)
    number = own * len(counts) if together else sum(counts)
    if number:
        keeper.keep_parts(parts[:own], states[own], number)
