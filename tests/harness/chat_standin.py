"""A small OpenAI-compatible chat endpoint on 127.0.0.1 that answers as a test wants it to."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

from selfevo_trainer.oracles import chat

Answer = Callable[[dict[str, Any], int], tuple[int, Any]]


def content(text: str | None, tokens: int = 5, finish: str = "stop") -> dict[str, Any]:
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": tokens}}


@contextlib.contextmanager
def endpoint(answer: Answer) -> Iterator[SimpleNamespace]:
    """A server that answers by ``answer(body, number of the request)``; bytes are sent as they are."""
    seen = SimpleNamespace(url="", bodies=[], headers=[], at_once=0, most=0)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                number = len(seen.bodies)
                seen.bodies.append(body)
                seen.headers.append(dict(self.headers))
                seen.at_once += 1
                seen.most = max(seen.most, seen.at_once)
            status, value = answer(body, number) if self.path == chat.PATH else (404, {})
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            with lock:
                seen.at_once -= 1
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            if status == 302:
                self.send_header("location", "http://127.0.0.1:1/")
            self.end_headers()
            self.wfile.write(data)

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: Any) -> None:  # a client that went away
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        seen.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield seen
        finally:
            server.shutdown()
            thread.join()
