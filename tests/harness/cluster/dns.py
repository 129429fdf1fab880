"""Names of headless Services, as a cluster's DNS has them: the addresses of the pods behind a Service by
`service.namespace.svc.cluster.local`, and that of one pod by the same with its host name before it.

They are those of the EndpointSlices that the control plane's own controller writes, which are asked for anew each time:
so whether a pod has a name hangs on its labels, its host name and its Service, as in any cluster. No other names.
"""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress

from urllib3.exceptions import HTTPError

from harness.cluster.client import Api, ApiError

DOMAIN = "cluster.local"
PORT = 53
_SLICES = "discovery.k8s.io/v1/endpointslices"
_A, _IN = 1, 1
_ANSWER, _NO_SUCH_NAME = 0x8580, 0x8583
"""Flags of a reply: with authority; the same, for a name that there is not."""


def serve(listener: socket.socket, api: Api) -> None:
    """Answer what comes to ``listener``, a bound UDP socket, in a thread that ends when it is closed."""

    def answer() -> None:
        with suppress(OSError):
            while True:
                query, client = listener.recvfrom(512)
                with suppress(ApiError, HTTPError, ValueError, IndexError, struct.error):
                    listener.sendto(reply(query, api), client)

    threading.Thread(target=answer, name="cluster-dns", daemon=True).start()


def reply(query: bytes, api: Api) -> bytes:
    """The reply to one query of one question."""
    name, end = _name(query)
    kind, family = struct.unpack_from(">HH", query, end)
    question = query[12 : end + 4]
    found = addresses(name, api)
    # A name without an address of the kind asked for (IPv6) is there all the same.
    shown = found if (kind, family) == (_A, _IN) else []
    flags = _ANSWER if found else _NO_SUCH_NAME
    header = struct.pack(">HHHHHH", struct.unpack_from(">H", query)[0], flags, 1, len(shown), 0, 0)
    records = (struct.pack(">HHHIH", 0xC00C, _A, _IN, 0, 4) + socket.inet_aton(address) for address in shown)
    return header + question + b"".join(records)


def addresses(name: str, api: Api) -> list[str]:
    """Of the pods that ``name`` is a name of; none when it is no Service's."""
    below = name.lower().removesuffix(f".svc.{DOMAIN}").split(".")
    if not name.lower().endswith(f".svc.{DOMAIN}") or len(below) not in (2, 3):
        return []
    *host, service, namespace = below
    slices = api.list(_SLICES, namespace, labels=f"kubernetes.io/service-name={service}")
    ready = [end for each in slices for end in each["endpoints"] or [] if end["conditions"].get("ready")]
    return [address for end in ready if not host or end.get("hostname") == host[0] for address in end["addresses"]]


def _name(query: bytes) -> tuple[str, int]:
    """The name that is asked for, and where it ends."""
    labels, at = [], 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode("ascii"))
        at += 1 + length
    return ".".join(labels), at + 1
