"""What PodSecurity `restricted` (v1.36) asks of a pod, written down anew from its specification, and the way in which
the kubelet expands environment variables."""

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
    if context.get("sysctls") or context.get("windowsOptions", {}).get("hostProcess"):
        yield "sysctls or host process"
    if context.get("runAsUser") == 0:
        yield "pod runAsUser 0"
    for container in [*pod.get("containers", []), *pod.get("initContainers", []), *pod.get("ephemeralContainers", [])]:
        own = container.get("securityContext", {})
        name = container["name"]
        if own.get("privileged") or own.get("procMount", "Default") != "Default":
            yield f"{name}: privileged or procMount"
        if own.get("allowPrivilegeEscalation") is not False:
            yield f"{name}: allowPrivilegeEscalation"
        capabilities = own.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", []) or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
            yield f"{name}: capabilities"
        if own.get("runAsNonRoot", context.get("runAsNonRoot")) is not True or own.get("runAsUser") == 0:
            yield f"{name}: runAsNonRoot"
        profile = own.get("seccompProfile", context.get("seccompProfile", {})).get("type")
        if profile not in ("RuntimeDefault", "Localhost"):
            yield f"{name}: seccompProfile"
        if any(port.get("hostPort") for port in container.get("ports", [])):
            yield f"{name}: hostPort"
        probes = (container.get(probe, {}) for probe in ("startupProbe", "readinessProbe", "livenessProbe"))
        if any("host" in probe.get("httpGet", {}) for probe in probes):
            yield f"{name}: a probe's host"


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
