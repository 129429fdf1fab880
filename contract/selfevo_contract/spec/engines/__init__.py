"""How text is generated: the settings of each kind of engine, one kind a file, and the registry.

A kind is a file beside this one and a name in `Engine`.
"""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import Field

from selfevo_contract.spec.engines.server import ServerEngine
from selfevo_contract.spec.engines.transformers import TransformersEngine
from selfevo_contract.spec.engines.vllm import VllmEngine

__all__ = ["ENGINES", "Engine", "ServerEngine", "TransformersEngine", "VllmEngine"]

Engine = Annotated[TransformersEngine | VllmEngine | ServerEngine, Field(discriminator="kind")]

ENGINES: dict[str, Any] = {
    get_args(settings.model_fields["kind"].annotation)[0]: settings for settings in get_args(get_args(Engine)[0])
}
"""Every kind of engine, with the class of its settings."""
