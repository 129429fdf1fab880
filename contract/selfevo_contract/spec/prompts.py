"""What a role is asked."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from selfevo_contract.base import Closed


class Example(Closed):
    """A turn of the user and the answer to it."""

    user: Annotated[str, Field(min_length=1, max_length=65536)]
    """What was asked."""
    assistant: Annotated[str, Field(min_length=1, max_length=65536)]
    """An example of a good answer."""


class Prompt(Closed):
    """What a role is asked. Rendered through the tokenizer's chat template where it has one."""

    system: Annotated[str, Field(max_length=65536)] = ""
    """System message; none when empty."""
    user: Annotated[str, Field(min_length=1, max_length=65536)]
    """User message; `{question}` is replaced by the question, and nothing else is."""
    examples: Annotated[list[Example], Field(max_length=32)] = []
    """Turns before the user message, word for word: a small chat model follows a format that it has seen itself use."""
