r"""The Solver's reward: the answer against the label (docs/method.md, "Solver reward"). Pure.

What "format" is. The public code's math reward comes from EasyR1: format is a full match of
``<think>.*</think>.*\boxed{.*}.*``. Our prompt asks for a box and not for think tags, and a model that writes none
would never earn that part. Here format is what the prompt asks for: a balanced, non-empty ``\boxed{}``
(``extraction.last_boxed``). A prompt that demands think tags would have to check them here.
"""

from __future__ import annotations

from typing import Literal

FORMAT_WEIGHT = 0.1


def solver_reward(mode: Literal["paper", "code"], *, correct: bool, boxed: bool) -> float:
    r"""The reward of one completion.

    Args:
        mode: ``paper``: 1 when the answer equals the label, else 0 (R-Zero, arXiv 2508.05004). ``code``: 0.9 accuracy
            + 0.1 format (EasyR1's ``compute_score``, format weight 0.1).
        correct: the answer equals the label.
        boxed: the completion holds a balanced, non-empty ``\boxed{}``.

    >>> solver_reward("paper", correct=False, boxed=True), solver_reward("code", correct=False, boxed=True)
    (0.0, 0.1)
    """
    if correct and not boxed:
        raise ValueError("a completion without a box has no answer that could be correct")
    if mode == "paper":
        return float(correct)
    if mode == "code":
        return (1.0 - FORMAT_WEIGHT) * correct + FORMAT_WEIGHT * boxed
    raise ValueError(f"solver reward mode {mode!r} is unknown; use 'paper' or 'code'")
