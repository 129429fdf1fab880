"""Which cluster the user means: kubectl's, by kubeconfig, context and login, or that of the pod."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfevo.cluster.client import Cluster
from selfevo.cluster.errors import Server, first_line
from selfevo.cluster.login import login_complaints
from selfevo.target import Access
from selfevo_contract import reasons
from selfevo_contract.errors import InputError
from selfevo_core.impersonation import impersonated

_IN_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def connect(access: Access) -> Cluster:
    """The cluster that kubectl would talk to with the same options.

    Raises:
        InputError: the client is not installed, or the kubeconfig does not lead to a cluster.
    """
    try:
        from kubernetes import client
        from kubernetes.config import kube_config
    except ModuleNotFoundError as error:
        raise InputError(
            f"access to a cluster needs the package {error.name}, which is not installed here; "
            "pip install 'selfevo[cluster]'",
            reason=reasons.NOT_INSTALLED,
        ) from None
    settings = client.Configuration()
    paths = str(access.kubeconfig or os.environ.get("KUBECONFIG") or Path("~/.kube/config").expanduser())
    files = [Path(path).expanduser() for path in paths.split(os.pathsep) if path]
    if not any(file.exists() for file in files):
        server, namespace = _of_this_pod(access, settings, paths)
        impersonation: dict[str, str] = {}
    else:
        server, namespace, impersonation = _of_kubeconfig(access, settings, paths, kube_config)
    settings.retries = False  # we say what is wrong at once, and a watch tries again at its own pace
    settings.keep_alive = True
    api = client.ApiClient(settings)
    for name, value in impersonation.items():
        api.set_default_header(name, value)  # type: ignore[no-untyped-call]
    return Cluster(api, server, access.namespace or namespace)


def _of_kubeconfig(access: Access, settings: Any, paths: str, kube_config: Any) -> tuple[Server, str, dict[str, str]]:
    try:
        config = kube_config.KubeConfigMerger(paths).config.value
        contexts = {item.value["name"]: item.value.get("context") or {} for item in config["contexts"]}
        name = access.context or config.get("current-context")
    except Exception as error:  # YAML, types, bytes: a file that is no kubeconfig fails in any way
        raise InputError(f"{paths} is no kubeconfig ({first_line(error)}); correct it or give --kubeconfig") from None
    if not name:
        raise InputError(f"{paths} has no current-context; give --context, one of {_listed(contexts)}")
    if name not in contexts:
        raise InputError(f"there is no context {name!r} in {paths}; choose one of {_listed(contexts)}")
    server = Server("", name, paths)
    with login_complaints(server):
        try:
            kube_config.load_kube_config(paths, name, settings, persist_config=False)
        except Exception as error:
            raise InputError(f"context {name!r} in {paths} cannot be used ({first_line(error)}); correct it") from None
    users = {item.value["name"]: item.value.get("user") or {} for item in config.get("users") or []}
    headers = _impersonation(users.get(contexts[name].get("user"), {}), f"user of context {name!r} in {paths}")
    return Server(str(settings.host), name, paths), str(contexts[name].get("namespace") or "default"), headers


def _impersonation(user: Any, of: str) -> dict[str, str]:
    """Headers for kubeconfig's `as` and its kin. The client library leaves them out and acts with other rights."""
    headers = impersonated(user.value if hasattr(user, "value") else user)
    names = [name for name, _ in headers]
    if len(names) != len(set(names)):
        raise InputError(f"the {of} has several as-groups, and only one can be sent from here; give one")
    return dict(headers)


def _of_this_pod(access: Access, settings: Any, paths: str) -> tuple[Server, str]:
    """As kubectl does in a pod that has no kubeconfig."""
    from kubernetes.config.config_exception import ConfigException
    from kubernetes.config.incluster_config import load_incluster_config

    try:
        if access.kubeconfig is not None or access.context is not None:
            raise ConfigException("a kubeconfig is asked for")
        load_incluster_config(settings)  # type: ignore[no-untyped-call]
        return Server(str(settings.host)), _IN_POD_NAMESPACE.read_text().strip() or "default"
    except (ConfigException, OSError):
        raise InputError(
            f"there is no kubeconfig: {paths} does not exist; give --kubeconfig or set KUBECONFIG",
            reason=reasons.NO_KUBECONFIG,
        ) from None


def _listed(contexts: Mapping[str, Any]) -> str:
    return ", ".join(sorted(contexts)) or "none: it has no contexts"
