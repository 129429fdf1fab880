"""Environment variables of pods, and whom they trust."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from selfevo_contract.base import Closed
from selfevo_contract.rules import Rule, form
from selfevo_contract.spec.names import Name

OUR_VARIABLES = (
    "JOB_COMPLETION_INDEX",
    "MASTER_ADDR",
    "MASTER_PORT",
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)
"""Environment variables that selfevo sets itself, beside all of SELFEVO_* and PET_* (torch's elastic launcher)."""


class SecretKeyRef(Closed):
    """One key of a Secret in the run's namespace. Who writes the run must be allowed to `get` it."""

    name: Name
    """The Secret."""
    key: Annotated[str, Field(max_length=253), form("[-._A-Za-z0-9]+", "letters, digits, '-', '_' and '.'")]
    """Its key."""
    optional: bool = False
    """Start without the variable where Secret or key is not there; the pod waits for them when false or not given."""


class ValueFrom(Closed):
    """Where a value comes from."""

    secret_key_ref: SecretKeyRef
    """One key of a Secret."""


class EnvVar(Closed):
    """An environment variable, with a plain value or one from a Secret."""

    name: Annotated[
        str,
        Field(max_length=256),
        form("[A-Za-z_][A-Za-z0-9_]*", "letters, digits and '_', not beginning with a digit"),
        Rule(
            f"!self.startsWith('SELFEVO_') && !self.startsWith('PET_') && !(self in {[*OUR_VARIABLES]!r})",
            lambda name: not name.startswith(("SELFEVO_", "PET_")) and name not in OUR_VARIABLES,
            "selfevo sets this variable itself; remove it (credentials come from storage.credentialsSecret)",
        ),
    ]
    """Its name."""
    value: Annotated[str, Field(max_length=32768), form(r"[^\x00]*", "text without a NUL character")] = ""
    """Its value, which all see who may read the run."""
    value_from: ValueFrom | None = None
    """A Secret that holds it, for tokens such as HF_TOKEN; the server of a model gets none."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.valueFrom) || !has(self.value) || self.value == ''",
            lambda variable: variable.value_from is None or not variable.value,
            "value and valueFrom are both given; remove one",
        ),
    )


class CaBundle(Closed):
    """Certificates of the authorities that pods believe, in place of those of the image.

    Also the public ones, where a run reaches a store or a hub on the internet.
    """

    config_map: Name
    """A ConfigMap in the run's namespace."""
    key: Annotated[str, Field(max_length=253), form("[-._A-Za-z0-9]+", "letters, digits, '-', '_' and '.'")] = "ca.crt"
    """Its key; the value is a list of certificates in PEM."""
