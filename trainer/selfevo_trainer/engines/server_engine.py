"""Generation by an OpenAI-compatible server: beside the trainer, at an endpoint, or one that is started here.

Prompts travel as token ids, so that the server's chat template and tokenizer have no say; there is a request for each
(prompt, sample), for a seed belongs to one request. Each request sets what the server would
otherwise take from the model's own generation_config.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from selfevo_contract.errors import InputError, SelfevoError, ServiceError
from selfevo_contract.process import SERVER_TOKEN_ENV, SERVER_URL_ENV
from selfevo_contract.spec import engines
from selfevo_contract.spec.sampling import Sampling
from selfevo_trainer.endpoints.client import BadAnswer, Client
from selfevo_trainer.endpoints.in_parallel import in_parallel
from selfevo_trainer.engines.base import Completion, Frozen
from selfevo_trainer.engines.drawing import completions_of, vllm_seed
from selfevo_trainer.engines.vllm_server import NEVER_INPUT, NEVER_SERVICE, VllmServers, of_model
from selfevo_trainer.models.loading import (
    eos_token_ids,
    load_generation_config,
    load_tokenizer,
    not_finite,
    positions_of,
)
from selfevo_trainer.prompts import Messages, encode_all

_PROBE = "What is 7 + 12? Häufig \\boxed{x^2}, 日本語.\n\tdef f(x): return x  # 3.14"
"""Text on which two tokenizers show that they are not the same."""
TOO_LONG = ("maximum context length", "max_model_len", "context length", "too long", "longer than")
"""How servers say that prompt and completion are more than they have room for."""


def open_engine(settings: engines.ServerEngine, weights: Frozen) -> ServerEngine:
    """The engine with ``weights``; it waits until the server is ready.

    Raises:
        InputError: the server serves something else, or cannot serve this.
        ServiceError: it does not become ready.
    """
    endpoint, beside = settings.endpoint, os.environ.get(SERVER_URL_ENV, "")
    if endpoint is not None:
        model = endpoint.model or weights.name
        client = Client(
            f"engine.endpoint.url {endpoint.url}",
            [endpoint.url],
            token=os.environ.get(SERVER_TOKEN_ENV, ""),
            timeout=settings.request_timeout,
            patience=settings.startup_seconds,
        )
        return ServerEngine(settings, weights, client, model)
    if beside:
        client = Client(
            "the server beside the trainer",
            [beside],
            timeout=settings.request_timeout,
            patience=settings.startup_seconds,
        )
        return ServerEngine(settings, weights, client, weights.name)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            "engine.kind is 'server', and each of several training processes would start one of its own; name one that "
            "they share in engine.endpoint"
        )
    servers = VllmServers.start(settings, of_model(weights))
    try:
        client = Client(
            "the server that this process started",
            servers.urls_of(weights.name),
            timeout=settings.request_timeout,
            patience=settings.startup_seconds,
            check_alive=servers.check,
        )
        return ServerEngine(settings, weights, client, weights.name, servers)
    except BaseException:
        servers.close()
        raise


@dataclass(frozen=True)
class _Served:
    """What a server says of the model."""

    urls: list[str]
    """Where it is served, if not where it was asked."""
    longest: int
    """Most tokens of prompt and completion; 0 when it does not say."""


class ServerEngine:
    """A client of servers that all serve ``model``."""

    def __init__(
        self,
        settings: engines.ServerEngine,
        weights: Frozen,
        client: Client,
        model: str,
        servers: VllmServers | None = None,
    ) -> None:
        self._weights, self._client, self._model, self._servers = weights, client, model, servers
        self._limit, self._is_endpoint = settings.max_concurrency, settings.endpoint is not None
        self.tokenizer = load_tokenizer(weights.path, weights.loading)
        generation_config = load_generation_config(weights.path, weights.loading)
        self.eos = eos_token_ids(generation_config, self.tokenizer, weights.loading)
        served = client.ask("/v1/models", None, self._find, refused=self._never)
        if served.urls:
            client.urls = served.urls
        # Where the model has fewer positions, prompts may still be shorter than allowed; the server checks each.
        wanted = min(weights.longest, positions_of(weights.path, weights.loading) or weights.longest)
        if wanted > served.longest > 0:
            raise InputError(
                f"{client.name} takes {served.longest} tokens of prompt and completion, and the {weights.role} is "
                f"asked for {wanted} (spec.solver.maxPromptLength and the sampling's maxCompletionLength); "
                "lower them, or serve the model with a longer context"
            )
        self._compare_tokenizers()

    def _never(self, status: int, text: str) -> SelfevoError | None:
        return None if self._is_endpoint else never_ready(status, text)

    def _find(self, answer: Any) -> _Served:
        """The wanted model in an answer of /v1/models."""
        listed = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
            raise BadAnswer("answers /v1/models without a list of models")
        ours = [each for each in listed if each.get("id") == self._model]
        if not ours:
            names = ", ".join(repr(str(each.get("id"))[:80]) for each in listed[:5]) or "no model"
            raise InputError(
                f"{self._client.name} serves {names}, and {self._model!r} is wanted as the {self._weights.role}; serve "
                "it under that name, or say another in engine.endpoint.model"
            )
        urls = ours[0].get("urls")
        # vLLM lists an adapter without a length, and with the model that it is for.
        parents = [each for each in listed if each.get("id") is not None and each.get("id") == ours[0].get("parent")]
        lengths = [each.get("max_model_len") for each in (*ours, *parents)]
        return _Served(
            urls=urls if isinstance(urls, list) and all(isinstance(url, str) for url in urls) else [],
            longest=next((length for length in lengths if isinstance(length, int)), 0),
        )

    def _compare_tokenizers(self) -> None:
        """Where the server has /tokenize: it reads a text as we do."""
        body = {"model": self._model, "prompt": _PROBE, "add_special_tokens": False}
        answer = self._client.ask_once("/tokenize", body)
        theirs = answer.get("tokens") if isinstance(answer, dict) else None
        ours = self.tokenizer(_PROBE, add_special_tokens=False)["input_ids"]
        if isinstance(theirs, list) and theirs != list(ours):
            raise InputError(
                f"the tokenizer of {self._client.name} reads a text as {len(theirs)} tokens that are not the "
                f"{len(ours)} of the {self._weights.role} in {self._weights.path}; serve the model with its own "
                "tokenizer"
            )

    def generate(
        self,
        prompts: Sequence[Messages],
        sampling: Sampling,
        samples: int,
        seed: int,
        streams: Sequence[int] | None = None,
    ) -> list[list[Completion]]:
        """See `Engine.generate`."""
        if not prompts:
            return []
        ids = encode_all(self.tokenizer, prompts)
        rows = completions_of(len(ids), samples, seed, streams)

        def one(row: int) -> Completion:
            i, own = rows[row]
            return self._complete(i, ids[i], sampling, own)

        made = in_parallel(one, len(rows), self._limit)
        return [made[i * samples : (i + 1) * samples] for i in range(len(ids))]

    def _complete(self, number: int, ids: list[int], sampling: Sampling, own: int) -> Completion:
        body: dict[str, Any] = {
            "model": self._model,
            "prompt": ids,
            "max_tokens": sampling.max_completion_length,
            "temperature": sampling.temperature,
            "stop_token_ids": sorted(self.eos),
            "return_token_ids": True,
            # A server may take these from the model's generation_config when they are not set.
            "repetition_penalty": 1.0,
            "min_p": 0.0,
            "top_k": sampling.top_k or -1,
            "top_p": sampling.top_p,
        }
        if sampling.temperature > 0:
            body["seed"] = vllm_seed(own)
        return self._client.ask(
            "/v1/completions",
            body,
            lambda answer: self._read(answer, ids, sampling),
            number=number,  # all samples of a prompt at one server, which computes the prompt once
            refused=lambda status, text: self._refused(status, text, ids, sampling),
        )

    def _read(self, answer: Any, ids: list[int], sampling: Sampling) -> Completion:
        choice = self._choice(answer)
        finish = choice.get("finish_reason")
        if finish not in ("stop", "length"):
            raise BadAnswer(
                f"gave an answer with the finish_reason {str(finish)[:40]!r} in place of 'stop' or 'length'"
            )
        if choice.get("prompt_token_ids") not in (None, ids):
            raise InputError(
                f"{self._client.name} answers another prompt than it was given; serve the model with its own tokenizer"
            )
        tokens = choice.get("token_ids")
        text: Any
        count: Any
        if isinstance(tokens, list) and all(isinstance(each, int) and each >= 0 for each in tokens):
            # An empty answer is one: the model ended it at once.
            text, count = self.tokenizer.decode(tokens, skip_special_tokens=True), len(tokens)
        else:
            usage = answer.get("usage")
            text = choice.get("text")
            count = usage.get("completion_tokens") if isinstance(usage, dict) else None
            if not isinstance(text, str) or not isinstance(count, int):
                raise BadAnswer("gave an answer without its text or its number of tokens")
        if count > sampling.max_completion_length:
            raise BadAnswer(f"gave {count} tokens where {sampling.max_completion_length} were the most")
        return Completion(text, count, finish == "length")

    def _choice(self, answer: Any) -> dict[str, Any]:
        choices = answer.get("choices") if isinstance(answer, dict) else None
        if not isinstance(choices, list) or not all(isinstance(each, dict) for each in choices):
            raise BadAnswer("gave an answer without choices")
        if len(choices) != 1:
            raise BadAnswer(f"gave {len(choices)} samples where 1 was asked for")
        if answer.get("model", self._model) != self._model:
            raise InputError(
                f"{self._client.name} answers as {str(answer['model'])[:80]!r} where {self._model!r} was asked; ask a "
                "server that serves it under that name"
            )
        found: dict[str, Any] = choices[0]
        return found

    def _refused(self, status: int, text: str, ids: list[int], sampling: Sampling) -> SelfevoError | None:
        if status in (400, 413, 422) and any(words in text for words in TOO_LONG):
            return InputError(
                f"{self._client.name} has no room for a prompt of {len(ids)} tokens and maxCompletionLength "
                f"{sampling.max_completion_length} ({text}); shorten one of them, or serve the model with a longer "
                "context"
            )
        return None

    def score(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """See `Engine.score`.

        Raises:
            InputError: the server gives no log-probabilities of a prompt, or those that are no numbers.
        """
        return in_parallel(lambda row: self._score(row, list(rows[row])), len(rows), self._limit)

    def _score(self, number: int, ids: list[int]) -> list[float]:
        """By vLLM's prompt_logprobs; by OpenAI's echo where a server does not know those."""
        found = self._logprobs(number, ids, {"prompt_logprobs": 0}, _prompt_logprobs)
        if found is None:
            found = self._logprobs(number, ids, {"echo": True, "logprobs": 1}, _echoed_logprobs)
        if found is None:
            raise InputError(
                f"{self._client.name} gives no log-probabilities of a prompt, by which it is seen that it serves the "
                f"{self._weights.role} that is wanted; ask one that does (vLLM), or set engine.fingerprint to off"
            )
        if not all(map(math.isfinite, found)):
            raise not_finite(self._weights.path, self._weights.loading)
        return found

    def _logprobs(
        self,
        number: int,
        ids: list[int],
        asked: dict[str, Any],
        read: Callable[[dict[str, Any], list[int]], list[float]],
    ) -> list[float] | None:
        """The log-probabilities of all but the first of ``ids``; None where the server does not give them this way."""

        def refused(status: int, text: str) -> SelfevoError | None:
            if "Out of range float" in text:  # JSON has no NaN
                return not_finite(self._weights.path, self._weights.loading)
            return _NoLogprobs("") if status in (400, 422) else None

        body = {"model": self._model, "prompt": ids, "max_tokens": 1, "temperature": 0.0, **asked}
        try:
            return self._client.ask(
                "/v1/completions", body, lambda answer: read(self._choice(answer), ids), number=number, refused=refused
            )
        except _NoLogprobs:
            return None

    def close(self) -> None:
        """Ask no more; end the server if it was started here."""
        self._client.close()
        if self._servers is not None:
            self._servers.close()


def never_ready(status: int, text: str) -> SelfevoError | None:
    """What serve.py says when the server beside the trainer will not become ready."""
    if status not in (NEVER_INPUT, NEVER_SERVICE):
        return None
    return InputError(text) if status == NEVER_INPUT else ServiceError(text)


class _NoLogprobs(SelfevoError):
    """The server does not give log-probabilities in this way."""


def _prompt_logprobs(choice: dict[str, Any], ids: list[int]) -> list[float]:
    """vLLM's: for each position token id -> its log-probability, with that of the prompt's own token among them."""
    entries = choice.get("prompt_logprobs")
    if not isinstance(entries, list) or len(entries) != len(ids):
        raise _NoLogprobs("")
    ours = [
        entry.get(str(token)) if isinstance(entry, dict) else None for token, entry in zip(ids, entries, strict=True)
    ]
    return [_number(one.get("logprob") if isinstance(one, dict) else None) for one in ours[1:]]


def _echoed_logprobs(choice: dict[str, Any], ids: list[int]) -> list[float]:
    """OpenAI's: one for each token of the prompt, then those of the completion."""
    logprobs = choice.get("logprobs")
    values = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
    if not isinstance(values, list) or len(values) < len(ids):
        raise _NoLogprobs("")
    return list(map(_number, values[1 : len(ids)]))


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
