"""A small OpenAI-compatible server on 127.0.0.1 that answers by a hash, and goes wrong where a test wants it to.

    with openai_server("solver") as server:          # server.url
        server.wrong["/v1/completions"] = lambda asked: Reply(500)

What it writes depends on prompt and seed alone, as an engine's answers must.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]


@dataclass
class Reply:
    """One answer."""

    status: int = 200
    content: Any = None
    """Sent as JSON; bytes are sent as they are."""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False
    """Half of it, then the connection is closed."""
    drop: bool = False
    """The connection is closed without an answer."""


@dataclass
class Standin:
    """A running server."""

    models: tuple[str, ...]
    url: str = ""
    vocabulary: range = range(10, 60)
    """Token ids that answers are made of."""
    end: int = 1
    """The token that ends an answer."""
    longest: int = 4096
    score: Callable[[list[int]], float] | None = None
    """Of a judge: the output of its head for a row of token ids."""
    wrong: dict[str, Callable[[Body], Reply | None]] = field(default_factory=dict)
    """By path: the answer in place of the right one, or None for that."""
    asked: list[tuple[str, Body, dict[str, str]]] = field(default_factory=list)
    """Every request: path, body, headers with names in lower case."""
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def bodies(self, path: str = "/v1/completions") -> list[Body]:
        """What was asked at ``path``."""
        return [body for of, body, _ in self.asked if of == path]

    def reply(self, path: str, body: Body) -> Reply:
        """The right answer."""
        if path == "/v1/models":
            return Reply(content={"data": [{"id": name, "max_model_len": self.longest} for name in self.models]})
        if path == "/health":
            return Reply()
        if path == "/classify" and self.score is not None:
            if max(map(len, body["input"])) > self.longest:
                return self.too_long()
            outputs = [self.score(row) for row in body["input"]]
            if body.get("use_activation", True):
                outputs = [1 / (1 + math.exp(-output)) for output in outputs]
            data = [{"index": i, "label": "LABEL_0", "probs": [of], "num_classes": 1} for i, of in enumerate(outputs)]
            return Reply(content={"object": "list", "model": body["model"], "data": data})
        if path != "/v1/completions":
            return Reply(404, {"detail": "Not Found"})
        if len(body["prompt"]) + body["max_tokens"] > self.longest:
            return self.too_long()
        return Reply(content=self.completion(body))

    def too_long(self) -> Reply:
        """What vLLM says."""
        text = f"This model's maximum context length is {self.longest} tokens. However, you requested more."
        return Reply(400, {"error": {"message": text, "type": "BadRequestError", "code": 400}})

    def completion(self, body: Body) -> Body:
        """An answer in vLLM's form."""
        prompt, most = body["prompt"], body["max_tokens"]
        digest = hashlib.sha256(json.dumps([prompt, body.get("seed")]).encode()).digest()
        tokens = [self.vocabulary[byte % len(self.vocabulary)] for byte in digest][: 1 + digest[0] % 20]
        tokens = [*tokens, self.end][:most]
        choice = {
            "index": 0,
            "text": "?",
            "finish_reason": "stop" if tokens[-1] == self.end else "length",
            "token_ids": tokens,
            "prompt_token_ids": prompt,
        }
        if "prompt_logprobs" in body:
            choice["prompt_logprobs"] = [None, *({str(token): {"logprob": -token / 10}} for token in prompt[1:])]
        usage = {"prompt_tokens": len(prompt), "completion_tokens": len(tokens)}
        return {"id": "c", "model": body["model"], "choices": [choice], "usage": usage}


@contextlib.contextmanager
def openai_server(*models: str, end: int = 1, port: int = 0) -> Iterator[Standin]:
    """A server of ``models`` that runs until the block ends."""
    standin = Standin(models, end=end)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self.answer({})

        def do_POST(self) -> None:
            self.answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

        def answer(self, body: Body) -> None:
            with standin.lock:
                standin.asked.append((self.path, body, {name.lower(): value for name, value in self.headers.items()}))
                standin.at_once += 1
                standin.most_at_once = max(standin.most_at_once, standin.at_once)
            try:
                wrong = standin.wrong.get(self.path)
                self.send((wrong(body) if wrong else None) or standin.reply(self.path, body))
            finally:
                with standin.lock:
                    standin.at_once -= 1

        def send(self, reply: Reply) -> None:
            if reply.drop:
                self.close_connection = True
                return
            content = reply.content
            data = content if isinstance(content, bytes) else json.dumps({} if content is None else content).encode()
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if reply.cut else data)
            if reply.cut:
                self.wfile.flush()
                self.close_connection = True

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: Any) -> None:  # a client that went away
            pass

    with Server(("127.0.0.1", port), Handler) as server:
        standin.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield standin
        finally:
            server.shutdown()
            thread.join()
