"""Labels and annotations that a person may give to pods: all but those that mean something already."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

from selfevo_contract.rules import Rule, form
from selfevo_contract.spec.names import LabelKey

_RESERVED = (
    "(.*[.-])?(kubernetes|k8s)[.]io/.*|(.*[.])?selfevo[.]dev/.*|job-name|controller-uid"
    # container runtimes act upon these: devices, other hypervisors, other users
    "|io[.](kubernetes|containerd|katacontainers)[.].*|dev[.]gvisor[.].*|(.*[.])?(crio|cri-o|nri|gvisor)[.](io|dev)(/.*)?"
)
_FOR_SCHEDULERS = (
    "(cluster-autoscaler|descheduler[.]alpha|controller)[.]kubernetes[.]io/.*|kueue[.]x-k8s[.]io/podset-.*"
)
_IS_RESERVED, _IS_FOR_SCHEDULERS = re.compile(_RESERVED), re.compile(_FOR_SCHEDULERS)


def is_free_label(key: str) -> bool:
    """Whether a label means nothing to Kubernetes, to a container runtime or to selfevo."""
    return not _IS_RESERVED.fullmatch(key)


def is_free_annotation(key: str) -> bool:
    """The same of an annotation of pods, beside those that tell autoscaler, descheduler and Kueue something."""
    return not _IS_RESERVED.fullmatch(key) or _IS_FOR_SCHEDULERS.fullmatch(key) is not None


_TAKEN = "keys of Kubernetes, container runtimes and selfevo are not set by hand; choose another"
FreeLabelKey = Annotated[
    LabelKey,
    Rule(f"!self.matches(r'^(?:{_RESERVED})$')", is_free_label, f"{_TAKEN} (a queue is named by spec.queue)"),
]
FreeAnnotationKey = Annotated[
    LabelKey,
    Rule(
        f"!self.matches(r'^(?:{_RESERVED})$') || self.matches(r'^(?:{_FOR_SCHEDULERS})$')",
        is_free_annotation,
        f"{_TAKEN} (autoscalers, descheduler and kueue.x-k8s.io/podset-* excepted)",
    ),
]
AnnotationValue = Annotated[str, Field(max_length=4096), form(r"[^\x00]*", "text without a NUL character")]
