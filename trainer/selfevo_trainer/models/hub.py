"""Models of the hub: only the files that are loaded, kept in the node's cache and shared by its pods.

    <cache_dir>/hub/...     the hub client's own layout (blobs, snapshots, locks): one download a node and commit

A weights file's name there is its sha256. It is hashed each time it is handed out, as every entry of the node's cache
is (selfevo_store/cache.py), and one that does not match is dropped and downloaded again.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from selfevo_contract import reasons
from selfevo_contract.errors import InputError, SelfevoError, ServiceError
from selfevo_store.digests import digest_of_file
from selfevo_store.problems import local_error
from selfevo_trainer.models.weights import INDEX, named_in

_LOADED = re.compile(r"\.(json|safetensors|model|model\.v\d+|tiktoken|txt|jinja|py)$")
_SINGLE = "model.safetensors"
_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def wanted(names: Sequence[str], read_index: Callable[[], bytes]) -> list[str]:
    """What is loaded of a repository: configuration, tokenizer, code, and one set of weights.

    Weights lie there more than once: `original/`, `consolidated.safetensors`, another precision, pickles beside them.
    Those of the index are taken where there is one, else model.safetensors, else all. Of folders only code is
    loaded.

    Args:
        names: of all files, e.g. ["config.json", "original/params.json", "model.safetensors"].
        read_index: gives the index's bytes; called when ``names`` has one.

    Raises:
        ValueError: the index is not one.
    """
    kept = [name for name in names if fnmatch(name, "*.py") or ("/" not in name and _LOADED.search(name))]
    weights = {name for name in kept if name.endswith(".safetensors")}
    taken = weights
    if INDEX in names:
        taken = weights & named_in(json.loads(read_index()))
    elif _SINGLE in weights:
        taken = {_SINGLE}
    return [name for name in kept if name not in weights or name in taken]


def pickled(names: Sequence[str]) -> str | None:
    """The first of ``names`` that is a pickle, in the order of how they are usually called."""
    return next((name for pattern in _PICKLES for name in sorted(names) if fnmatch(name, pattern)), None)


def fetch_hub(uri: str, cache_dir: Path) -> Path:
    """The folder of a model's files in the node's cache, fetched if it lacks one.

    Args:
        uri: ``hf://owner/name`` or ``hf://owner/name@revision``; without a revision main's newest commit.

    Raises:
        InputError: there is no such model for this token, or its files are not a model's.
        ServiceError: the hub does not deliver.
    """
    repo, _, revision = uri.removeprefix("hf://").partition("@")
    cache = cache_dir / "hub"
    try:
        return _fetch(uri, repo, revision or "main", cache)
    except SelfevoError:
        raise
    except Exception as error:
        raise _explained(error, uri, cache) from None


def _fetch(uri: str, repo: str, revision: str, cache: Path) -> Path:
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    info = HfApi().model_info(repo, revision=revision)
    names = [file.rfilename for file in info.siblings or []]

    def read_index() -> bytes:
        return Path(hf_hub_download(repo, INDEX, revision=info.sha, cache_dir=cache)).read_bytes()

    with index_read(uri):
        chosen = wanted(names, read_index)
    if not any(name.endswith(".safetensors") for name in chosen) and (pickle := pickled(names)):
        raise InputError(pickles_refused(uri, pickle))
    for last in (False, True):
        patterns = [glob.escape(name) for name in chosen]
        folder = Path(snapshot_download(repo, revision=info.sha, cache_dir=cache, allow_patterns=patterns))
        damaged = [name for name in chosen if not _is_whole(folder / name)]
        if not damaged:
            break
        if last:
            raise ServiceError(
                f"spec.model.uri is {uri!r}, whose file {damaged[0]} is damaged each time it is downloaded; try again",
                reason=reasons.CORRUPT_ARTIFACT,
            )
        for name in damaged:
            (folder / name).resolve().unlink()
            (folder / name).unlink()
    return folder


@contextlib.contextmanager
def index_read(uri: str) -> Iterator[None]:
    """Inside, an index is read: what is wrong with it is one sentence."""
    try:
        yield
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"spec.model.uri is {uri!r}, whose {INDEX} is not an index ({error}); download it again"
        ) from None


def pickles_refused(uri: str, name: str) -> str:
    """The sentence for weights in pickles only."""
    return (
        f"spec.model.uri is {uri!r}, whose weights are pickled ({name}), and loading a pickle can run code; "
        "convert them with save_pretrained(safe_serialization=True)"
    )


def _is_whole(file: Path) -> bool:
    """Where the hub's client has named the bytes by their sha256, they are what it names."""
    blob = file.resolve().name
    return not _SHA256.fullmatch(blob) or digest_of_file(file).sha256 == blob


def _explained(error: Exception, uri: str, cache: Path) -> Exception:
    """One sentence for what the hub's client raised; the error itself where nothing is known of it."""
    import httpx
    from huggingface_hub import errors

    if isinstance(error, (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError)):
        return InputError(
            f"spec.model.uri is {uri!r}, and the hub has no such model or revision for this token; "
            "check the name, and HF_TOKEN for a private or gated one"
        )
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return InputError(
            f"spec.model.uri is {uri!r}, and the hub refuses this token ({status}); renew HF_TOKEN, or ask for access"
        )
    answered: tuple[Any, ...] = (httpx.HTTPError, errors.LocalEntryNotFoundError, ConnectionError, TimeoutError)
    if isinstance(error, OSError) and error.errno and not isinstance(error, answered):
        return local_error(error, cache)
    if isinstance(error, (*answered, OSError)):
        return ServiceError(
            f"spec.model.uri is {uri!r}, and the hub at {os.environ.get('HF_ENDPOINT', 'its usual address')} did not "
            f"deliver it ({type(error).__name__}); check the network and HF_ENDPOINT"
        )
    return error
