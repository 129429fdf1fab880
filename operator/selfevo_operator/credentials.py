"""Who we are to the API server: the pod's ServiceAccount, or a kubeconfig outside of a cluster."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import kopf

from selfevo_operator.kube import Endpoint

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TOKEN_LIFE_S = 60.0
"""The kubelet renews the token long before it ends; reading it once a minute is early enough."""


class CredentialsError(Exception):
    """There is no way to the API server; the message is one sentence."""


def connection(kubeconfig: str | None, settings: kopf.OperatorSettings) -> kopf.ConnectionInfo:
    """How kopf reaches the API server. Asked again whenever the server does not know us any more.

    Raises:
        CredentialsError: neither a ServiceAccount nor a usable kubeconfig is there.
    """
    host = os.environ.get("KUBERNETES_SERVICE_HOST")
    if kubeconfig is None and host and (_ACCOUNT / "token").exists():
        # By address as the kubelet tells it, as client-go does: a name needs a DNS that answers.
        port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        return kopf.ConnectionInfo(
            server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
            ca_path=str(_ACCOUNT / "ca.crt"),
            token=(_ACCOUNT / "token").read_text().strip(),
        )
    if kubeconfig is not None:
        if not Path(kubeconfig).is_file():
            raise CredentialsError(f"--kubeconfig is {kubeconfig!r}, and there is no such file; name a kubeconfig")
        os.environ["KUBECONFIG"] = kubeconfig  # where kopf and the official client look
    try:
        found = kopf.login_with_kubeconfig(settings=settings)
        if found is not None and not (
            found.token or found.certificate_path or found.certificate_data or found.username
        ):
            # A plugin (exec, OIDC) makes the token: the official client knows how.
            found = kopf.login_via_client(logger=logging.getLogger("selfevo"), settings=settings)
    except Exception as error:
        raise CredentialsError(f"the kubeconfig cannot be used: {error}; name another by --kubeconfig") from None
    if found is None:
        raise CredentialsError("there is neither a ServiceAccount nor a kubeconfig; name one by --kubeconfig")
    return found


_OF_NAMESPACE = re.compile(r"/namespaces/([^/]+)/[a-z]+$")
_ASK_AGAIN_S = 10.0


class _Patient:
    """An HTTP session in which one namespace that is refused to us waits until it is not, and holds up no other.

    kopf ends all watches, and with them the process, when one of them is refused.
    """

    def __init__(self, session: aiohttp.ClientSession, refused: Callable[[str, str], None]) -> None:
        self._session, self._refused = session, refused
        self._held: set[tuple[str, str]] = set()
        """Namespaces and paths that wait."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    async def request(self, method: str, url: str, **how: Any) -> aiohttp.ClientResponse:
        while True:
            response = await self._session.request(method, url, **how)
            place = _OF_NAMESPACE.search(response.url.path)
            if place is None or method.lower() != "get":
                return response
            namespace, path = place[1], response.url.path
            if response.status != 403:
                if (namespace, path) in self._held:
                    self._held.discard((namespace, path))
                    if all(held != namespace for held, _ in self._held):
                        self._refused(namespace, "")
                return response
            text = await response.text()
            response.release()
            self._held.add((namespace, path))
            self._refused(namespace, _sentence(text))
            await asyncio.sleep(_ASK_AGAIN_S)


def _sentence(text: str) -> str:
    """What a Status says."""
    try:
        return str(json.loads(text).get("message") or text)[:500]
    except (ValueError, AttributeError):
        return text[:500]


def watching_session(
    info: kopf.ConnectionInfo, began: Callable[[], None], refused: Callable[[str, str], None]
) -> kopf.AiohttpSession:
    """What kopf asks the API server through.

    Args:
        began: called whenever a watch has begun.
        refused: called with a namespace and the server's words whenever it does not let us list or watch there, and
            with no words when it does again.
    """

    async def answered(_: object, __: object, request: aiohttp.TraceRequestEndParams) -> None:
        if request.response.status == 200 and request.url.query.get("watch") == "true":
            began()

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(answered)
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=_tls(info)),
        headers=info.as_http_headers(),
        proxy=info.proxy_url,
        trust_env=info.trust_env,
        trace_configs=[trace],
    )
    patient: Any = _Patient(session, refused)
    return kopf.AiohttpSession(aiohttp_session=patient, server=info.server, default_namespace=info.default_namespace)


class _Headers:
    def __init__(self, info: kopf.ConnectionInfo) -> None:
        self._fixed = dict(info.as_http_headers())
        self._in_cluster = info.ca_path == str(_ACCOUNT / "ca.crt")
        self._read_at = time.monotonic()

    def __call__(self) -> Mapping[str, str]:
        if self._in_cluster and time.monotonic() - self._read_at > _TOKEN_LIFE_S:
            self._fixed["Authorization"] = f"Bearer {(_ACCOUNT / 'token').read_text().strip()}"
            self._read_at = time.monotonic()
        return self._fixed


def endpoint(info: kopf.ConnectionInfo) -> Endpoint:
    """The same for our own calls."""
    return Endpoint(info.server.rstrip("/"), _tls(info), _Headers(info))


def _tls(info: kopf.ConnectionInfo) -> Any:
    tls = info.as_ssl_context() if info.server.startswith("https://") else None
    return True if tls is None else tls
