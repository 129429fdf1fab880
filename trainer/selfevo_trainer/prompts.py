"""What a role is asked, as messages and as the model's own tokens."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from selfevo_contract.spec.prompts import Prompt

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


def marks(tokenizer: Any) -> dict[int, str]:
    """Id and spelling of the tokenizer's added tokens, special or not (Qwen3's ``<think>`` is not).

    Those of whitespace alone are left out: they are how some tokenizers write indentation, and mean nothing else.
    """
    found = {int(number): str(token.content) for number, token in tokenizer.added_tokens_decoder.items()}
    return {number: spelling for number, spelling in found.items() if spelling.strip()}


def encode(tokenizer: Any, conversation: Messages | str) -> list[int]:
    """Token ids of the request, up to where the answer begins.

    Added tokens come from the chat template alone. Where a message spells one, its text is encoded by itself and as
    text: no question closes the user's turn, opens the Solver's, or thinks in its place.

    Args:
        conversation: messages, or the plain text of `for_trainer`.
    """
    if isinstance(conversation, str) or not tokenizer.chat_template:
        text = conversation if isinstance(conversation, str) else plain_text(conversation)
        return as_text(tokenizer, text, begins=True)
    found = marks(tokenizer)
    if any(_spells(tokenizer, message["content"], found) for message in conversation):
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


def _spells(tokenizer: Any, text: str, found: dict[int, str]) -> bool:
    # What is read decides: a normaliser may make a mark of other characters.
    return any(spelling in text for spelling in found.values()) or not found.keys().isdisjoint(
        tokenizer(text, add_special_tokens=False)["input_ids"]
    )


def _encode_apart(tokenizer: Any, conversation: Messages) -> list[int]:
    # Private-use characters stand for the contents, which replace every one of them: none can pose as another.
    contents = {f"\ue000{i}\ue001": message["content"] for i, message in enumerate(conversation)}
    marked = [{**message, "content": mark} for message, mark in zip(conversation, contents, strict=True)]
    rendered = tokenizer.apply_chat_template(marked, add_generation_prompt=True, tokenize=False)
    ids: list[int] = []
    for piece in re.split("(\ue000[0-9]+\ue001)", rendered):
        if piece in contents:
            ids += as_text(tokenizer, contents[piece])
        else:
            ids += tokenizer(piece, add_special_tokens=False)["input_ids"]
    return ids


def as_text(tokenizer: Any, text: str, begins: bool = False) -> list[int]:
    """``text`` without any of `marks`. ``begins``: with what the tokenizer puts before and after a text (BOS)."""
    if not tokenizer.is_fast:  # in Python; transformers itself knows the special ones only
        return list(tokenizer(text, add_special_tokens=begins, split_special_tokens=True)["input_ids"])
    found, plain = marks(tokenizer), _without_marks(tokenizer)

    def cut(text: str, begins: bool) -> Iterator[int]:
        encoded = plain.encode(text, add_special_tokens=begins)
        for number, own in zip(encoded.ids, encoded.special_tokens_mask, strict=True):
            spelling = found.get(number, "")
            # Unknown words are read as the unknown token, whether or not it is a mark: nothing is opened by it.
            if own or len(spelling) < 2 or number == tokenizer.unk_token_id:
                yield number
            else:  # the vocabulary itself has the mark as a word
                yield from cut(spelling[:1], False)
                yield from cut(spelling[1:], False)

    return list(cut(text, begins))


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Token ids of an answer as the model writes it: with added tokens, and without special ones, of which it ends."""
    return list(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])


_PLAIN: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


def _without_marks(tokenizer: Any) -> Any:
    """The tokenizer as it would be without its `marks`; other tokens keep their ids."""
    if tokenizer not in _PLAIN:
        described = json.loads(tokenizer.backend_tokenizer.to_str())
        words = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False)
        kept = []
        for token in described["added_tokens"]:
            if not token["content"].strip():
                kept.append(token)
            elif token["content"] not in words:  # its id stays taken, by what nobody can write
                kept.append({**token, "content": secrets.token_hex(32)})
        described["added_tokens"] = kept
        _PLAIN[tokenizer] = type(tokenizer.backend_tokenizer).from_str(json.dumps(described))
    return _PLAIN[tokenizer]


def shown(texts: Sequence[str], each: int = 80) -> str:
    """The beginnings of ``texts`` in quotes, for a message."""
    return ", ".join(repr(text[:each] + ("..." if len(text) > each else "")) for text in texts)


def completion_text(completion: Messages | str) -> str:
    """The text that the model wrote, in either of TRL's two forms."""
    return completion if isinstance(completion, str) else completion[0]["content"]
