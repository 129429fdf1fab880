"""What a role is asked, as messages and as the model's own tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from selfevo_contract.spec import Prompt

Messages = list[dict[str, str]]


def messages(prompt: Prompt, question: str = "") -> Messages:
    """The conversation of one request. The question is put in by plain replacement: it is hostile text."""
    user = prompt.user.replace("{question}", question)
    system = [{"role": "system", "content": prompt.system}] if prompt.system else []
    examples = [
        {"role": role, "content": text}
        for example in prompt.examples
        for role, text in (("user", example.user), ("assistant", example.assistant))
    ]
    return [*system, *examples, {"role": "user", "content": user}]


def for_trainer(tokenizer: Any, conversation: Messages) -> Messages | str:
    """The form in which TRL takes it: messages where there is a chat template, else plain text."""
    return conversation if tokenizer.chat_template else plain_text(conversation)


def plain_text(conversation: Messages) -> str:
    r"""For tokenizers without a chat template: `system: ...` newline `user: ...`. Source: R-Zero's public code.

    >>> plain_text([{"role": "system", "content": "Think."}, {"role": "user", "content": "1 + 1"}])
    'system: Think.\nuser: 1 + 1'
    """
    return "\n".join(f"{message['role']}: {message['content']}" for message in conversation)


def control_tokens(tokenizer: Any) -> list[str]:
    """How the tokenizer's special tokens are spelled."""
    return [token.content for token in tokenizer.added_tokens_decoder.values() if token.special and token.content]


def encode(tokenizer: Any, conversation: Messages | str) -> list[int]:
    """Token ids of the request, up to where the answer begins.

    Control tokens come from the chat template alone. Where a message spells one, its text is encoded by itself and as
    text: no question closes the user's turn or opens the Solver's.

    Args:
        conversation: messages, or the plain text of `for_trainer`.
    """
    if isinstance(conversation, str) or not tokenizer.chat_template:
        text = conversation if isinstance(conversation, str) else plain_text(conversation)
        return list(tokenizer(text, split_special_tokens=True)["input_ids"])
    controls = control_tokens(tokenizer)
    if any(control in message["content"] for message in conversation for control in controls):
        return _encode_apart(tokenizer, conversation)
    encoded = tokenizer.apply_chat_template(conversation, add_generation_prompt=True, tokenize=True, return_dict=True)
    return list(encoded["input_ids"])


def encode_all(tokenizer: Any, conversations: Sequence[Messages | str]) -> list[list[int]]:
    """`encode` of each; equal ones, such as the Challenger's, are encoded once."""
    known: dict[str, list[int]] = {}
    found = []
    for conversation in conversations:
        key = conversation if isinstance(conversation, str) else json.dumps(conversation)
        if key not in known:
            known[key] = encode(tokenizer, conversation)
        found.append(list(known[key]))
    return found


def _encode_apart(tokenizer: Any, conversation: Messages) -> list[int]:
    # Private-use characters stand for the contents, which replace every one of them: none can pose as another.
    contents = {f"\ue000{i}\ue001": message["content"] for i, message in enumerate(conversation)}
    marked = [{**message, "content": mark} for message, mark in zip(conversation, contents, strict=True)]
    rendered = tokenizer.apply_chat_template(marked, add_generation_prompt=True, tokenize=False)
    ids: list[int] = []
    for piece in re.split("(\ue000[0-9]+\ue001)", rendered):
        text = contents.get(piece, piece)
        ids += tokenizer(text, add_special_tokens=False, split_special_tokens=piece in contents)["input_ids"]
    return ids


def shown(texts: Sequence[str], each: int = 80) -> str:
    """The beginnings of ``texts`` in quotes, for a message."""
    return ", ".join(repr(text[:each] + ("..." if len(text) > each else "")) for text in texts)


def completion_text(completion: Messages | str) -> str:
    """The text that the model wrote, in either of TRL's two forms."""
    return completion if isinstance(completion, str) else completion[0]["content"]
