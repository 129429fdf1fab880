"""A small OpenAI-compatible chat endpoint on 127.0.0.1 that answers as a test wants it to."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from harness.openai_standin import Body, Reply, Standin, openai_server
from selfevo_trainer.endpoints import chat

Answer = Callable[[dict[str, Any], int], tuple[int, Any]]


def content(text: str | None, tokens: int = 5, finish: str = "stop") -> dict[str, Any]:
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": tokens}}


@dataclass(frozen=True)
class Endpoint:
    """What was asked of the server."""

    server: Standin

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def bodies(self) -> list[Body]:
        return self.server.bodies(chat.PATH)

    @property
    def headers(self) -> list[dict[str, str]]:
        return [headers for _, _, headers in self.server.asked]

    @property
    def most(self) -> int:
        return self.server.most_at_once


@contextlib.contextmanager
def endpoint(answer: Answer) -> Iterator[Endpoint]:
    """A server that answers by ``answer(body, number of the request)``; bytes are sent as they are."""
    numbers = itertools.count()

    def reply(body: Body) -> Reply:
        status, value = answer(body, next(numbers))
        return Reply(status, value, {"location": "http://127.0.0.1:1/"} if status == 302 else {})

    with openai_server("strong") as server:
        server.wrong[chat.PATH] = reply
        yield Endpoint(server)
