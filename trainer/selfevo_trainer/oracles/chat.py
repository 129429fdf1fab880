"""Requests to an OpenAI-compatible chat endpoint: side by side, with retries, and sentences for what it says.

What a server sends is checked before anybody uses it. One that cannot be reached, is overloaded (429, 5xx) or answers
nonsense is asked again, with waits that double and are drawn at random, until its patience is over.
"""

from __future__ import annotations

import contextlib
import json
import queue
import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from selfevo_contract.errors import InputError, ServiceError

PATH = "/v1/chat/completions"
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
"""Waits double from the first to the longest; each is drawn from its upper half."""
_CONNECT_S = 10.0
_LARGEST = 16 << 20
"""Bytes of an answer that are read."""
_FIELD = "spec.rollout.oracle"


@dataclass(frozen=True)
class Reply:
    """One answer."""

    text: str
    truncated: bool
    prompt_tokens: int = 0
    """0 where the server does not say."""
    completion_tokens: int = 0


class _Useless(Exception):
    """No answer, or not a useful one; another may be. Its text continues «the endpoint ...»."""

    wait_s: float = 0.0


class Chat:
    """One endpoint."""

    def __init__(self, url: str, *, token: str, timeout_s: float, patience_s: float) -> None:
        self._url, self._timeout_s, self._patience_s = url.rstrip("/") + PATH, timeout_s, patience_s
        self._name = f"{_FIELD}.url {url}"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._jitter = random.Random()
        self._closed = threading.Event()

    def ask_all(self, requests: Sequence[Mapping[str, Any]], at_once: int) -> list[Reply]:
        """A reply to each, in order; at most ``at_once`` under way. The first failure ends all.

        The threads are daemons, so that a process that is told to end does not wait for an answer.

        Raises:
            InputError: the endpoint refuses what it is asked, or who asks.
            ServiceError: it gives no useful answer within its patience.
        """
        replies: dict[int, Reply] = {}
        waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        for number in range(len(requests)):
            waiting.put(number)

        def work(http: httpx.Client) -> None:
            with contextlib.suppress(queue.Empty):
                while not self._closed.is_set():
                    number = waiting.get_nowait()
                    try:
                        replies[number] = self._ask(http, requests[number])
                    except BaseException as error:
                        ended.put(error)
                        return
                    ended.put(None)

        http = httpx.Client(
            headers=self._headers,
            timeout=httpx.Timeout(self._timeout_s, connect=min(_CONNECT_S, self._timeout_s)),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
        )
        try:
            for _ in range(min(at_once, len(requests))):
                threading.Thread(target=work, args=(http,), daemon=True).start()
            for _ in requests:
                if (error := ended.get()) is not None:
                    raise error
        finally:
            self._closed.set()
            http.close()
        return [replies[number] for number in range(len(requests))]

    def _ask(self, http: httpx.Client, request: Mapping[str, Any]) -> Reply:
        since, attempt = time.monotonic(), 0
        while True:
            try:
                return self._once(http, request)
            except _Useless as error:
                problem = error
            attempt += 1
            waited = time.monotonic() - since
            longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(attempt - 1, 10))
            pause = max(problem.wait_s, longest * self._jitter.uniform(0.5, 1.0))
            if waited + pause > self._patience_s:
                raise ServiceError(
                    f"{self._name} {problem}, for {waited:.0f} s in {attempt} requests; look at its log, raise "
                    f"{_FIELD}.patience, or set {_FIELD}.required to false to go on without it"
                )
            if self._closed.wait(pause):
                raise ServiceError(f"{self._name} is asked no more")

    def _once(self, http: httpx.Client, request: Mapping[str, Any]) -> Reply:
        begun = time.monotonic()
        data = b""
        try:
            with http.stream("POST", self._url, json=dict(request)) as response:
                for piece in response.iter_bytes():
                    data += piece
                    if len(data) > _LARGEST:
                        raise _Useless(f"sent more than {_LARGEST >> 20} MiB")
                    if time.monotonic() - begun > self._timeout_s:
                        raise _Useless(f"sent no whole answer within {_FIELD}.requestTimeout, {self._timeout_s:g} s")
        except httpx.TimeoutException:
            raise _Useless(f"gave no answer within {_FIELD}.requestTimeout, {self._timeout_s:g} s") from None
        except httpx.InvalidURL as error:
            raise InputError(f"{self._name} is no address ({_line(str(error))}); correct it") from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise InputError(
                    f"{self._name} has a certificate that is not believed; name its authority in spec.pods.caBundle "
                    "(on one machine: SSL_CERT_FILE), or correct the address"
                ) from None
            raise _Useless(f"does not answer ({_line(str(error)) or type(error).__name__})") from None
        if response.status_code != 200:
            raise self._refused(response, data)
        return _reply(data)

    def _refused(self, response: httpx.Response, data: bytes) -> Exception:
        status = response.status_code
        problem = f"answers {status} ({_line(data.decode('utf-8', 'replace')) or 'and nothing else'})"
        if status in (401, 403):
            return InputError(
                f"{self._name} {problem}; name a Secret with a token that it takes in {_FIELD}.tokenSecret (on one "
                "machine: set SELFEVO_ORACLE_TOKEN)"
            )
        if status >= 500 or status in (408, 425, 429):
            useless = _Useless(problem)
            with contextlib.suppress(ValueError):
                useless.wait_s = min(max(0.0, float(response.headers.get("retry-after", "0"))), 3600.0)
            return useless
        if 300 <= status < 400:
            return InputError(f"{self._name} redirects ({status}) elsewhere; name the address to which it does")
        return InputError(
            f"{self._name} {problem}; it must be an OpenAI-compatible chat endpoint that knows {_FIELD}.model, with "
            f"room for {_FIELD}.maxCompletionLength"
        )


def _reply(data: bytes) -> Reply:
    try:
        content = json.loads(data)
        choice = content["choices"][0]
        text = choice["message"]["content"]
        usage = content.get("usage") or {}
        counts = [usage.get(name, 0) for name in ("prompt_tokens", "completion_tokens")]
    except (ValueError, RecursionError, KeyError, IndexError, TypeError, AttributeError):
        said = _line(data.decode("utf-8", "replace"))[:80]
        raise _Useless(f"answers with what is no chat completion ({said!r})") from None
    if text is None:  # all was spent on thinking that the server keeps to itself
        text = ""
    if not isinstance(text, str) or not all(isinstance(count, int) and count >= 0 for count in counts):
        raise _Useless("answers with a chat completion whose content is no text or whose usage is no count")
    return Reply(text, choice.get("finish_reason") == "length", *counts)


def _line(text: str) -> str:
    # It comes from elsewhere and goes to a terminal.
    return " ".join("".join(char if char.isprintable() else " " for char in text[:2000]).split())[:300].rstrip(".")
