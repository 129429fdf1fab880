"""A task and its answer as a judge's tokens. The answer is hostile text: it cannot end its own turn, or open one."""

from __future__ import annotations

import re
from typing import Any

from selfevo_trainer.prompts import as_text

_TASK, _ANSWER = "\ue0000\ue001", "\ue0001\ue001"
"""Private-use characters stand for the contents while the chat template is rendered."""


class Encoder:
    """(task, answer) -> token ids.

    By the chat template, as a turn of the user and one of the assistant; contents are encoded apart and as text, so
    that none of them spells a mark of the template. Where there is no template, or one that shows no answer: task and
    answer, each ended by the tokenizer's end token, which no text can spell.
    """

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        rendered = _rendered(tokenizer)
        self._before, self._after = ("", "") if rendered is None else rendered.split(_ANSWER)
        self._plain = rendered is None

    def __call__(self, task: str, answer: str) -> list[int]:
        """At most ``max_length`` ids: what is too long is cut at the answer's end, then at the task's."""
        before, after = self._around(task)
        room = max(1, self.max_length - len(after))
        own = as_text(self.tokenizer, answer)
        return [*before[: room - min(1, len(own))], *own][:room] + after

    def _around(self, task: str) -> tuple[list[int], list[int]]:
        """What stands before an answer to ``task``, and what behind it."""
        end = [self.tokenizer.eos_token_id]
        if self._plain:
            return [*as_text(self.tokenizer, task, begins=True), *end], end
        ids: list[int] = []
        for piece in re.split(f"({_TASK})", self._before):
            ids += as_text(self.tokenizer, task) if piece == _TASK else self._marked(piece)
        return ids, self._marked(self._after)

    def _marked(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []


def _rendered(tokenizer: Any) -> str | None:
    if not tokenizer.chat_template:
        return None
    turns = [{"role": "user", "content": _TASK}, {"role": "assistant", "content": _ANSWER}]
    try:
        text = str(tokenizer.apply_chat_template(turns, tokenize=False))
    except Exception:  # a template of somebody else's: it takes no such turns
        return None
    shown = text.count(_TASK) == 1 and text.count(_ANSWER) == 1
    return text if shown and text.index(_TASK) < text.index(_ANSWER) else None
