"""What a role is asked, as messages and as the model's own tokens."""

from __future__ import annotations

from typing import Any

from selfevo_contract.spec import Prompt

Messages = list[dict[str, str]]


def messages(prompt: Prompt, question: str = "") -> Messages:
    """The conversation of one request. The question is put in by plain replacement: it is hostile text."""
    user = prompt.user.replace("{question}", question)
    system = [{"role": "system", "content": prompt.system}] if prompt.system else []
    return [*system, {"role": "user", "content": user}]


def for_trainer(tokenizer: Any, conversation: Messages) -> Messages | str:
    """The form in which TRL takes it: messages where there is a chat template, else plain text."""
    return conversation if tokenizer.chat_template else plain_text(conversation)


def plain_text(conversation: Messages) -> str:
    """For tokenizers without a chat template: the messages, a blank line between."""
    return "\n\n".join(message["content"] for message in conversation) + "\n"


def encode(tokenizer: Any, conversation: Messages) -> list[int]:
    """Token ids of the request, up to where the answer begins."""
    if tokenizer.chat_template:
        encoded = tokenizer.apply_chat_template(
            conversation, add_generation_prompt=True, tokenize=True, return_dict=True
        )
        return list(encoded["input_ids"])
    return list(tokenizer(plain_text(conversation))["input_ids"])


def completion_text(completion: Messages | str) -> str:
    """The text that the model wrote, in either of TRL's two forms."""
    return completion if isinstance(completion, str) else completion[0]["content"]
