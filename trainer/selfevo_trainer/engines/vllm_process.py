"""vLLM as a guest of the trainer's process: what it would change of it, and does not."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import torch

from selfevo_contract.errors import InputError
from selfevo_contract.spec.sampling import Sampling
from selfevo_trainer.engines.drawing import vllm_seed
from selfevo_trainer.engines.vllm_limits import ENVIRONMENT, OF_A_RANK
from selfevo_trainer.models.loading import first_line

_ENVIRONMENT = {
    **ENVIRONMENT,
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # standard output is for progress
    "VLLM_LOGGING_LEVEL": "ERROR",  # its warnings are many, and about what is meant so
}


def library(field: str) -> Any:
    """The package vllm, its logging turned down. ``field`` asks for it.

    Raises:
        InputError: it is not installed, or cannot be imported.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import vllm
    except ModuleNotFoundError as error:
        if error.name != "vllm":
            raise _broken(field, error) from error
        raise InputError(
            f"{field} is 'vllm', and vLLM is not installed here; install selfevo[vllm], or choose {field} "
            "'transformers'"
        ) from None
    except Exception as error:
        raise _broken(field, error) from error
    return vllm


def _broken(field: str, error: Exception) -> InputError:
    return InputError(
        f"{field} is 'vllm', and vLLM cannot be imported here ({first_line(error)}); install selfevo[vllm] anew, "
        "with the versions that it wants"
    )


def request(sampling: Sampling, ends: Collection[int], own: int, **more: Any) -> Any:
    """vLLM's settings of one completion.

    Args:
        ends: tokens that end it.
        own: its random stream.
    """
    from vllm import SamplingParams

    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k or -1,
        max_tokens=sampling.max_completion_length,
        stop_token_ids=sorted(ends),
        seed=vllm_seed(own),
        detokenize=False,
        **more,
    )


@contextlib.contextmanager
def threads_kept() -> Iterator[None]:
    """On a CPU vLLM puts a function that does nothing in the place of torch.set_num_threads."""
    setter, count = torch.set_num_threads, torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads = setter
        torch.set_num_threads(count)


@contextlib.contextmanager
def surroundings(child: bool) -> Iterator[None]:
    """The environment in which vLLM starts; afterwards it is as it was.

    A child is one process with one GPU, whatever this process is among those that train.
    """
    before = {
        name: os.environ.get(name) for name in (*OF_A_RANK, "CUDA_VISIBLE_DEVICES", "VLLM_ENABLE_V1_MULTIPROCESSING")
    }
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = str(int(child))
    if child:
        if torch.cuda.is_available():
            seen = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
            os.environ["CUDA_VISIBLE_DEVICES"] = seen.split(",")[int(os.environ.get("LOCAL_RANK", "0"))]
        for name in OF_A_RANK:
            os.environ.pop(name, None)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextlib.contextmanager
def random_state_kept(is_child: bool) -> Iterator[None]:
    """vLLM seeds this process when it starts, and moves its random state when it samples.

    Args:
        is_child: it runs in another process, so that the GPU's random state is its own.
    """
    python, of_numpy = random.getstate(), np.random.get_state()
    devices = [] if is_child or not torch.cuda.is_available() else [torch.cuda.current_device()]
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(of_numpy)
