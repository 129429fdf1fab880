"""One OpenAI-compatible server, or several that serve the same: requests with retries, and sentences for what they say.

What a server sends is checked before anybody uses it: it may be of another version, broken, or not ours at all.
"""

from __future__ import annotations

import email.utils
import ipaddress
import json
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from selfevo_contract.errors import InputError, SelfevoError, ServiceError

Answer = TypeVar("Answer")

BAD_ANSWERS = 8
"""Answers to one request that are of no use, after which it is given up: with the waits between them a minute or so."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
"""Waits between two attempts double from the first to the longest; each is drawn from its upper half."""
_CONNECT_S = 10.0
_LARGEST = 256 << 20
"""Bytes of an answer that are read."""
_BUSY = (408, 425, 429, 502, 503, 504)
"""What a server, or a proxy before it, answers that may answer well later."""


class BadAnswer(Exception):
    """The answer is of no use; another may be. Its text continues «the server ...»."""


@dataclass(frozen=True)
class Words:
    """What sentences about a server call things by; an engine's, when not given."""

    timeout: str = "engine.requestTimeout"
    """The field that bounds one answer."""
    patience: str = "or raise engine.startupSeconds"
    """What else than its log helps when it gives no answer."""
    answer: str = "JSON"
    """What an answer has to be."""


class Client:
    """Asks servers that serve the same model. Threads may share it."""

    def __init__(
        self,
        name: str,
        urls: Sequence[str],
        *,
        token: str = "",
        timeout: float,
        patience: float,
        check_alive: Callable[[], None] = lambda: None,
        bad_answers: int | None = BAD_ANSWERS,
        words: Words = Words(),
    ) -> None:
        """
        Args:
            name: what a person knows it by, e.g. ``engine.endpoint.url http://llm:8000``.
            urls: addresses without a path, as many as there are servers.
            timeout: seconds for one answer.
            patience: seconds for which a server may give no answer at all.
            check_alive: called before another attempt; raises an error when the server has ended.
            bad_answers: of no use to one request, after which it is given up; None: only patience ends it.
        """
        self.name = name
        self.urls = [url.rstrip("/") for url in urls]
        self._timeout, self._patience, self._check_alive = timeout, patience, check_alive
        self._bad_answers, self._words = bad_answers, words
        self._jitter = random.Random()
        self._closed = threading.Event()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # A proxy that is meant for the world outside cannot reach this machine.
        local = all(map(is_local, self.urls))
        self._http = httpx.Client(
            headers=headers,
            timeout=httpx.Timeout(timeout, connect=min(_CONNECT_S, timeout)),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            trust_env=not local,
            follow_redirects=False,
        )

    def ask(
        self,
        path: str,
        body: Mapping[str, Any] | None,
        read: Callable[[Any], Answer],
        *,
        number: int = 0,
        refused: Callable[[int, str], SelfevoError | None] = lambda status, text: None,
    ) -> Answer:
        """What ``read`` makes of the JSON at ``path``; it raises `BadAnswer` where that is of no use.

        Args:
            body: sent as JSON by POST; None: the path is only read.
            number: which of the servers is asked first.
            refused: the error for an answer of 3xx, 4xx or 500, where there is a better one than ours.

        Raises:
            InputError: the server refuses what it is asked, or who asks, or is not whom its certificate names.
            ServiceError: it does not answer, or not in a useful way.
        """
        since, bad, attempt = time.monotonic(), 0, 0
        while True:
            pause = 0.0
            try:
                status, headers, data = self._once(self.urls[(number + attempt) % len(self.urls)], path, body)
                if status == 200:
                    return read(self._json(data))
                text = error_text(data)
                problem = answers(status, text)
                if status in _BUSY:
                    pause = _retry_after(headers)
                elif (known := refused(status, text)) is not None:
                    raise known
                elif status >= 500:
                    bad += 1
                else:
                    raise self._refused(status, headers, problem)
            except BadAnswer as error:
                problem, bad = str(error), bad + 1
            except httpx.InvalidURL as error:
                raise InputError(f"{self.name} is no address ({one_line(str(error))}); correct it") from None
            except httpx.TransportError as error:
                if "CERTIFICATE_VERIFY_FAILED" in str(error):
                    raise InputError(
                        f"{self.name} has a certificate that is not believed ({self._cause(error)}); name the "
                        "authority's in spec.pods.caBundle (on one machine: SSL_CERT_FILE), or correct the address"
                    ) from None
                problem = f"does not answer ({self._cause(error)})"
            attempt += 1
            if self._bad_answers is not None and bad >= self._bad_answers:
                raise ServiceError(f"{self.name} {problem}, {bad} times; look at its log")
            if (waited := time.monotonic() - since) >= self._patience:
                raise ServiceError(
                    f"{self.name} {problem}, for {waited:.0f} s in {attempt} requests; look at its log, "
                    f"{self._words.patience}"
                )
            self._check_alive()
            self._wait(attempt, pause, self._patience - waited)

    def _wait(self, attempt: int, asked: float, left: float) -> None:
        """Before another attempt: ``asked`` seconds at least, which the server has asked for, and ``left`` at most."""
        longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(attempt - 1, 10))
        pause = max(asked, longest * self._jitter.uniform(0.5, 1.0))
        if self._closed.wait(min(pause, max(0.1, left))):
            raise ServiceError(f"{self.name} is asked no more; the phase has ended")

    def ask_once(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON at ``path`` of the first server; None where it has none to give. For what not every server has."""
        try:
            status, _, data = self._once(self.urls[0], path, body)
            return self._json(data) if status == 200 else None
        except (BadAnswer, httpx.HTTPError):
            return None

    def _once(self, url: str, path: str, body: Mapping[str, Any] | None) -> tuple[int, httpx.Headers, bytes]:
        """Status, headers and body of one attempt."""
        begun = time.monotonic()
        method = "GET" if body is None else "POST"
        with self._http.stream(method, url + path, json=body) as response:
            data = b""
            try:
                for piece in response.iter_bytes():
                    data += piece
                    if len(data) > _LARGEST:
                        raise BadAnswer(f"sent more than {_LARGEST >> 20} MiB")
                    if time.monotonic() - begun > self._timeout:
                        raise httpx.ReadTimeout(f"its answer was not complete after {self._timeout:.0f} s")
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.DecodingError) as error:
                raise BadAnswer(f"sent a part of an answer only ({self._cause(error)})") from None
            return response.status_code, response.headers, data

    def _refused(self, status: int, headers: httpx.Headers, problem: str) -> InputError:
        if status in (401, 403):
            return InputError(
                f"{self.name} {problem}; name a Secret with a token that it takes in engine.endpoint.tokenSecret "
                "(on one machine: set SELFEVO_SERVER_TOKEN)"
            )
        if 300 <= status < 400:
            where = one_line(headers.get("location", "nowhere"))
            return InputError(f"{self.name} redirects ({status}) to {where}; name that address")
        return InputError(
            f"{self.name} {problem}; it must be an OpenAI-compatible server that takes prompts of token ids, as vLLM "
            "does"
        )

    def _json(self, data: bytes) -> Any:
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise self.no_answer(data) from None

    def no_answer(self, data: bytes) -> BadAnswer:
        """What to say of an answer that is not what it has to be."""
        return BadAnswer(
            f"answers with what is no {self._words.answer} ({one_line(data.decode('utf-8', 'replace'))[:80]!r})"
        )

    def _cause(self, error: Exception) -> str:
        if isinstance(error, httpx.ConnectTimeout):
            return "no connection in time"
        if isinstance(error, httpx.TimeoutException):
            return str(error) if "complete" in str(error) else f"no answer within {self._words.timeout}"
        return one_line(str(error)) or type(error).__name__

    def close(self) -> None:
        """No further attempts; requests under way end when they do."""
        self._closed.set()
        self._http.close()


def is_local(url: str) -> bool:
    """Whether ``url`` names this machine.

    >>> is_local("http://127.0.0.1:8000"), is_local("http://[::1]/"), is_local("http://llm:8000")
    (True, True, False)
    """
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def error_text(data: bytes) -> str:
    """The message of an error response, on one line; OpenAI's form, FastAPI's, or text."""
    try:
        content = json.loads(data)
        for _ in range(2):
            if isinstance(content, dict):
                content = content.get("error") or content.get("message") or content.get("detail") or content
    except (ValueError, RecursionError):
        content = data.decode("utf-8", "replace")
    return one_line(content if isinstance(content, str) else json.dumps(content))[:500]


def answers(status: int, text: str) -> str:
    """The words, behind a server's name, about an error response with this text."""
    return f"answers {status} ({text or 'and nothing else'})"


def one_line(text: str) -> str:
    """``text``, which comes from elsewhere and goes to a terminal."""
    return " ".join("".join(char if char.isprintable() else " " for char in text[:2000]).split()).rstrip(".")


def _retry_after(headers: httpx.Headers) -> float:
    """Seconds that the server asks for, by number or by date; 0 when it does not."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError):
            return 0.0
    return seconds if 0 < seconds < 86400 else 0.0
