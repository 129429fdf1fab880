"""The network of another process: sockets in it, and bridges between its ports and those out here."""

from __future__ import annotations

import ctypes
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from socket import socket as Socket

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Network:
    """The network namespace that the process ``pid`` has made for itself."""

    def __init__(self, pid: int, limit_s: float = 60.0) -> None:
        self._path = Path(f"/proc/{pid}/ns/net")
        own, deadline = Path("/proc/self/ns/net").readlink(), time.monotonic() + limit_s
        while self._path.readlink() == own:
            assert time.monotonic() < deadline, f"process {pid} stays in the network of this one"
            time.sleep(0.01)
        # A socket belongs to the network of the thread that makes it; this one thread lives in there.
        self._inside = ThreadPoolExecutor(1, initializer=self._enter)
        self._listeners: list[socket.socket] = []

    def _enter(self) -> None:
        descriptor = os.open(self._path, os.O_RDONLY)
        try:
            if _libc.setns(descriptor, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(descriptor)

    def socket(self, kind: int = socket.SOCK_STREAM) -> Socket:
        """A socket in there, of TCP when not given."""
        return self._inside.submit(socket.socket, socket.AF_INET, kind).result()

    def bound(self, address: str, port: int) -> Socket:
        """A UDP socket in there that gets what is sent to address:port; `close` closes it."""
        listener = self.socket(socket.SOCK_DGRAM)
        listener.bind((address, port))
        self._listeners.append(listener)
        return listener

    def lead_in(self, port: int) -> None:
        """Whoever connects to 127.0.0.1:port out here comes to 127.0.0.1:port in there."""
        self._bridge(socket.socket(), ("127.0.0.1", port), port, inwards=True)

    def lead_out(self, port: int, address: str = "127.0.0.1", at: int = 0) -> None:
        """Whoever connects to address:port in there, or address:at, comes to 127.0.0.1:port out here."""
        self._bridge(self.socket(), (address, at or port), port, inwards=False)

    def close(self) -> None:
        for listener in self._listeners:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self._inside.shutdown()

    def _bridge(self, listener: Socket, at: tuple[str, int], port: int, *, inwards: bool) -> None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(at)
        listener.listen(128)
        self._listeners.append(listener)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    server = self.socket() if inwards else socket.socket()
                    try:
                        server.connect(("127.0.0.1", port))
                    except OSError:
                        client.close()
                        server.close()
                        continue
                    for source, sink in ((client, server), (server, client)):
                        threading.Thread(target=_pump, args=(source, sink), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
