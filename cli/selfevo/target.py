"""Which run is meant: the one that a manifest describes on this machine, or one in a cluster."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from selfevo_contract.errors import InputError

PLUGIN = "kubectl-selfevo"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Access:
    """How a cluster is chosen, as with kubectl: what is not given comes from the kubeconfig."""

    cluster: bool = False
    """A manifest's run is meant as it is in the cluster."""
    namespace: str | None = None
    context: str | None = None
    kubeconfig: Path | None = None

    def given(self) -> str:
        """The options with which a file makes no sense, as they were typed: ``-n research``."""
        options = {"-n": self.namespace, "--context": self.context, "--kubeconfig": self.kubeconfig}
        return shlex.join(word for name, value in options.items() if value is not None for word in (name, str(value)))

    def command(self, verb: str, name: str, *more: str) -> str:
        """A command about a run of the same cluster, to be typed next."""
        words = f"{program()} {shlex.join([verb, name, *more])}"
        return f"{words} {self.given()}".rstrip()


def access_of(cluster: bool, namespace: str | None, context: str | None, kubeconfig: Path | None) -> Access:
    """The access that a verb's options name; called as `kubectl selfevo`, a cluster is the default."""
    return Access(cluster or is_plugin(), namespace, context, kubeconfig)


@dataclass(frozen=True)
class ClusterRun:
    """A run in the cluster that ``access`` leads to."""

    name: str
    access: Access


def find(target: str, access: Access, storage: str | None = None) -> Path | ClusterRun:
    """The manifest or the cluster's run that ``target`` means. A file is this machine's run, unless --cluster is given.

    Raises:
        InputError: it can be neither, or options are given that it does not have.
    """
    path = Path(target)
    if target == "-" or path.is_file() or "/" in target or path.suffix in (".yaml", ".yml", ".json"):
        if not access.cluster:
            if access.given():
                raise InputError(
                    f"{target} is a file, so the run on this machine is meant, which has no {access.given()}; add "
                    "--cluster to find it in the cluster"
                )
            return path
        from selfevo.manifest import name_of

        name, namespace = name_of(path)
        if access.namespace is None and namespace is not None:
            access = Access(True, namespace, access.context, access.kubeconfig)
        found = ClusterRun(name, access)
    elif _NAME.fullmatch(target):
        found = ClusterRun(target, access)
    else:
        raise InputError(
            f"{target!r} is neither a file nor a run's name (at most 63 of a-z, 0-9 and '-'); name a manifest or a run"
        )
    if storage is not None:
        raise InputError(f"--storage is for runs on this machine, and {target} is a run in the cluster; leave it out")
    return found


def is_plugin() -> bool:
    """Whether we were called as `kubectl selfevo`. A cluster is meant then."""
    return Path(sys.argv[0]).stem == PLUGIN


def program() -> str:
    """What a person types to call us."""
    return "kubectl selfevo" if is_plugin() else "selfevo"


def is_store(place: str) -> bool:
    """Whether ``place`` is the address of a store or its folder, and not a manifest's file."""
    return "://" in place or Path(place).is_dir()
