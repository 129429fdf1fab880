"""Who we are to the API server: the pod's ServiceAccount, or a kubeconfig outside of a cluster."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import kopf
import yaml

from selfevo_core.impersonation import impersonated
from selfevo_operator.api.kube import Endpoint

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TOKEN_LIFE_S = 60.0
"""The kubelet renews the token long before it ends; reading it once a minute is early enough."""


class CredentialsError(Exception):
    """There is no way to the API server; the message is one sentence."""


@dataclass(frozen=True)
class Connection(kopf.ConnectionInfo):
    """The way to the API server, and for whom we speak there."""

    impersonation: tuple[tuple[str, str], ...] = ()
    """Headers that kubeconfig's `as`, `as-uid`, `as-groups` and `as-user-extra` come to."""

    @property
    def all_headers(self) -> tuple[tuple[str, str], ...]:
        """What every request shows; a group of the impersonated is a header of its own."""
        return (*self.as_http_headers().items(), *self.impersonation)


def connection(kubeconfig: str | None, settings: kopf.OperatorSettings) -> Connection:
    """How kopf reaches the API server. Asked again whenever the server does not know us any more.

    Raises:
        CredentialsError: neither a ServiceAccount nor a usable kubeconfig is there.
    """
    host = os.environ.get("KUBERNETES_SERVICE_HOST")
    if kubeconfig is None and host and (_ACCOUNT / "token").exists():
        # By address as the kubelet tells it, as client-go does: a name needs a DNS that answers.
        port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        return Connection(
            server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
            ca_path=str(_ACCOUNT / "ca.crt"),
            token=(_ACCOUNT / "token").read_text().strip(),
        )
    if kubeconfig is not None:
        if not Path(kubeconfig).is_file():
            raise CredentialsError(f"--kubeconfig is {kubeconfig!r}, and there is no such file; name a kubeconfig")
        os.environ["KUBECONFIG"] = kubeconfig  # which kopf and the official client read
    try:
        found = kopf.login_with_kubeconfig(settings=settings)
        if found is not None and not (
            found.token or found.certificate_path or found.certificate_data or found.username
        ):
            # A plugin (exec, OIDC) makes the token: the official client knows how.
            found = _by_plugin(found)
        impersonation = impersonated(_user_of_kubeconfig()) if found is not None else ()
    except Exception as error:
        raise CredentialsError(f"the kubeconfig cannot be used: {error}; name another by --kubeconfig") from None
    if found is None:
        raise CredentialsError("there is neither a ServiceAccount nor a kubeconfig; name one by --kubeconfig")
    fields = {field.name: getattr(found, field.name) for field in dataclasses.fields(kopf.ConnectionInfo)}
    return Connection(**fields, impersonation=impersonation)


def _by_plugin(found: kopf.ConnectionInfo) -> kopf.ConnectionInfo:
    """``found`` with the token that the official client gets from the plugin.

    Not by kopf's way to that client: it takes the pod's ServiceAccount first, and a KUBECONFIG of when it was imported.
    """
    from kubernetes import client
    from kubernetes.config import kube_config

    made = client.Configuration()
    kube_config.load_kube_config(  # type: ignore[no-untyped-call]
        _kubeconfig(), client_configuration=made, persist_config=False
    )
    shown = made.get_api_key_with_prefix("BearerToken") or made.get_api_key_with_prefix("authorization") or ""
    scheme, _, token = shown.rpartition(" ")
    if not token and not made.cert_file:
        raise CredentialsError("its user has no token, no certificate and no password, nor did a plugin give one")
    return dataclasses.replace(
        found,
        scheme=scheme or None,
        token=token or None,
        certificate_path=made.cert_file,  # from a plugin, in a temporary file
        private_key_path=made.key_file,
    )


def _kubeconfig() -> str:
    return os.environ.get("KUBECONFIG") or str(Path("~/.kube/config").expanduser())


def _user_of_kubeconfig() -> Mapping[str, Any]:
    """The current context's user, as kubeconfig has it; of several files, the first that has a name."""
    paths = [path for path in _kubeconfig().split(os.pathsep) if path.strip()]
    files = [yaml.safe_load(Path(path.strip()).expanduser().read_text()) or {} for path in paths]

    def named(kind: str, name: str, of: str) -> Mapping[str, Any]:
        return next(item.get(of) or {} for file in files for item in file.get(kind) or [] if item["name"] == name)

    context = next(file["current-context"] for file in files if file.get("current-context"))
    return named("users", named("contexts", context, "context")["user"], "user")


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
    info: Connection, began: Callable[[], None], refused: Callable[[str, str], None]
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
        headers=info.all_headers,
        proxy=info.proxy_url,
        trust_env=info.trust_env,
        trace_configs=[trace],
    )
    patient: Any = _Patient(session, refused)
    return kopf.AiohttpSession(aiohttp_session=patient, server=info.server, default_namespace=info.default_namespace)


_RENEW_AGAIN_S = 5.0
"""A plugin that makes tokens is asked no oftener."""


class _Headers:
    def __init__(self, info: Connection, login: Callable[[], Connection] | None) -> None:
        self._fixed, self._login = dict(info.as_http_headers()), login
        self._impersonation = info.impersonation
        self._in_cluster = info.ca_path == str(_ACCOUNT / "ca.crt")
        self._read_at = time.monotonic()
        self._lock = threading.Lock()

    def __call__(self) -> Iterable[tuple[str, str]]:
        if self._in_cluster and time.monotonic() - self._read_at > _TOKEN_LIFE_S:
            self._fixed["Authorization"] = f"Bearer {(_ACCOUNT / 'token').read_text().strip()}"
            self._read_at = time.monotonic()
        return (*self._fixed.items(), *self._impersonation)

    def renew(self) -> bool:
        """Logs in again, as when we began; whether that gave something. Calls that come together share one login."""
        asked = time.monotonic()
        with self._lock:
            if self._read_at >= asked:
                return True  # somebody else has just done it
            if self._login is None or asked - self._read_at < _RENEW_AGAIN_S:
                return False
            try:
                info = self._login()
            except CredentialsError:
                return False
            finally:
                self._read_at = time.monotonic()
            self._fixed, self._impersonation = dict(info.as_http_headers()), info.impersonation
            return True


def endpoint(info: Connection, login: Callable[[], Connection] | None = None) -> Endpoint:
    """The same for our own calls. ``login`` is asked again when the server does not know us any more."""
    headers = _Headers(info, login)
    return Endpoint(info.server.rstrip("/"), _tls(info), headers, info.proxy_url, headers.renew)


def _tls(info: kopf.ConnectionInfo) -> Any:
    tls = info.as_ssl_context() if info.server.startswith("https://") else None
    return True if tls is None else tls
