"""Chat completions of an endpoint, an oracle's or a judge's, and what it says when it does not answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfevo_contract.errors import InputError
from selfevo_contract.rows_between import OracleReply
from selfevo_trainer.endpoints.client import BadAnswer, Client, Words, answers
from selfevo_trainer.endpoints.in_parallel import in_parallel

PATH = "/v1/chat/completions"


@dataclass(frozen=True)
class Asked:
    """What sentences about an endpoint call its fields by."""

    field: str
    """The one with url, tokenSecret, requestTimeout and patience."""
    model: str
    """The one with model and maxCompletionLength."""
    token: str
    """The variable that holds the token on one machine."""
    instead: str = ""
    """What else helps than patience when it gives no answer."""


class Chat:
    """One endpoint."""

    def __init__(self, url: str, asked: Asked, *, token: str, timeout_s: float, patience_s: float) -> None:
        self._asked = asked
        # Nonsense is asked for again as long as silence is.
        self._client = Client(
            f"{asked.field}.url {url}",
            [url],
            token=token,
            timeout=timeout_s,
            patience=patience_s,
            bad_answers=None,
            words=Words(
                timeout=f"{asked.field}.requestTimeout",
                patience=f"raise {asked.field}.patience{asked.instead}",
                answer="chat completion",
            ),
        )

    def ask_all(self, requests: Sequence[Mapping[str, Any]], at_once: int) -> list[OracleReply]:
        """A reply to each, in order; at most ``at_once`` under way. The first failure ends all.

        Raises:
            InputError: the endpoint refuses what it is asked, or who asks.
            ServiceError: it gives no useful answer within its patience.
        """

        return in_parallel(lambda number: self.ask(requests[number]), len(requests), at_once)

    def ask(self, request: Mapping[str, Any]) -> OracleReply:
        """The reply to one request; errors as of `ask_all`."""
        return self._client.ask(PATH, request, self._reply, refused=self._refused)

    def close(self) -> None:
        """Give its connections back."""
        self._client.close()

    def _refused(self, status: int, text: str) -> InputError | None:
        if status >= 500:
            return None
        if 300 <= status < 400:
            return InputError(f"{self._client.name} redirects ({status}) elsewhere; name the address to which it does")
        problem = f"{self._client.name} {answers(status, text)}"
        if status in (401, 403):
            return InputError(
                f"{problem}; name a Secret with a token that it takes in {self._asked.field}.tokenSecret (on one "
                f"machine: set {self._asked.token})"
            )
        return InputError(
            f"{problem}; it must be an OpenAI-compatible chat endpoint that knows {self._asked.model}.model, with room "
            f"for {self._asked.model}.maxCompletionLength"
        )

    def _reply(self, content: Any) -> OracleReply:
        try:
            choice = content["choices"][0]
            text = choice["message"]["content"]
            usage = content.get("usage") or {}
            counts = [usage.get(name, 0) for name in ("prompt_tokens", "completion_tokens")]
        except (KeyError, IndexError, TypeError, AttributeError):
            raise self._client.no_answer(json.dumps(content).encode()) from None
        if text is None:  # all was spent on thinking that the server keeps to itself
            text = ""
        if not isinstance(text, str) or not all(isinstance(count, int) and count >= 0 for count in counts):
            raise BadAnswer("answers with a chat completion whose content is no text or whose usage is no count")
        return OracleReply(
            text=text,
            truncated=choice.get("finish_reason") == "length",
            tokens_read=counts[0],
            tokens_written=counts[1],
        )
