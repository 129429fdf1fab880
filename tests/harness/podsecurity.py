"""What PodSecurity `restricted` (v1.36) asks of a pod, written down anew from its specification, and the way in which
the kubelet expands environment variables. tests/cluster/test_jobs.py holds the former against the API server."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_SELINUX_TYPES = ("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")


def violations(pod: Mapping[str, Any]) -> list[str]:
    """Why a namespace that enforces `restricted` refuses ``pod`` (a PodSpec); empty when it admits it."""
    return list(_violations(pod))


def _violations(pod: Mapping[str, Any]) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield field
    for volume in pod.get("volumes", []):
        if kinds := set(volume) - {"name"} - _VOLUMES:
            yield f"volume {volume['name']}: {kinds}"
    context = pod.get("securityContext", {})
    if context.get("sysctls"):  # a few are safe; none is wanted here
        yield "sysctls"
    yield from _of_a_context("pod", context)
    for container in [*pod.get("containers", []), *pod.get("initContainers", []), *pod.get("ephemeralContainers", [])]:
        own = container.get("securityContext", {})
        name = container["name"]
        yield from _of_a_context(name, own)
        if own.get("privileged") or own.get("procMount", "Default") != "Default":
            yield f"{name}: privileged or procMount"
        if own.get("allowPrivilegeEscalation") is not False:
            yield f"{name}: allowPrivilegeEscalation"
        capabilities = own.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", []) or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
            yield f"{name}: capabilities"
        if own.get("runAsNonRoot", context.get("runAsNonRoot")) is not True:
            yield f"{name}: runAsNonRoot"
        if not own.get("seccompProfile", context.get("seccompProfile")):
            yield f"{name}: no seccompProfile"
        if any(port.get("hostPort") for port in container.get("ports", [])):
            yield f"{name}: hostPort"
        calls = [container.get(probe, {}) for probe in ("startupProbe", "readinessProbe", "livenessProbe")]
        calls += container.get("lifecycle", {}).values()
        if any(call.get(kind, {}).get("host") for call in calls for kind in ("httpGet", "tcpSocket")):
            yield f"{name}: a probe's or hook's host"


def _of_a_context(name: str, context: Mapping[str, Any]) -> Iterator[str]:
    """What a securityContext may not say, be it the pod's, and every container says otherwise."""
    if context.get("runAsUser") == 0 or context.get("runAsNonRoot") is False:
        yield f"{name}: root"
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield f"{name}: a host process"
    for profile in ("seccompProfile", "appArmorProfile"):
        if context.get(profile, {}).get("type", "RuntimeDefault") not in ("RuntimeDefault", "Localhost"):
            yield f"{name}: {profile}"
    label = context.get("seLinuxOptions", {})
    if label.get("user") or label.get("role") or label.get("type", "") not in _SELINUX_TYPES:
        yield f"{name}: seLinuxOptions"


def in_container(env: list[dict[str, Any]]) -> dict[str, str]:
    """The plain variables of a container as its process sees them: ``$(NAME)`` expanded, ``$$`` a dollar."""
    seen: dict[str, str] = {}

    def expand(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return seen.get(match[1], match[0])

    for variable in env:
        if "value" in variable:
            seen[variable["name"]] = re.sub(r"\$\$|\$\(([^)]*)\)", expand, variable["value"])
    return seen
