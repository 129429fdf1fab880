"""What a run on this machine needs to publish."""

from __future__ import annotations

import os
from collections.abc import Collection

from selfevo_contract.errors import InputError
from selfevo_contract.plan import Plan
from selfevo_contract.pods import pods_of
from selfevo_contract.process import PUBLISH_TOKEN_ENV
from selfevo_contract.spec.publish import HUB_TOKENS
from selfevo_contract.spec.run import RunSpec


def refuse_without_token(spec: RunSpec, open_steps: Collection[str], steps: Plan) -> None:
    """At once, and not when the training is done.

    Args:
        open_steps: names of those of ``steps`` that are not done.

    Raises:
        InputError: the run is published at the hub, and there is no token here.
    """
    publishing = [step for step in steps.steps if step.type.publishes and step.name in open_steps]
    if spec.publish is None or not spec.publish.at_hub or not publishing:
        return
    given = {variable.name for variable in pods_of(spec, publishing[0].phase).env if variable.value}
    if {PUBLISH_TOKEN_ENV, *HUB_TOKENS} & {*given, *(name for name, value in os.environ.items() if value)}:
        return
    from huggingface_hub import get_token  # also what `hf auth login` left

    if not get_token():
        raise InputError(
            f"spec.publish.to is {spec.publish.to!r}, and no token may write there; set HF_TOKEN, or remove "
            "spec.publish until you have one"
        )
