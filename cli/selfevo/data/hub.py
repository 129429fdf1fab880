"""The rows of a registered data set, by `datasets`; what is wrong with the hub or with the data set is one sentence.

Only `selfevo data prepare` comes here. A run reads the file that this made.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfevo.data.base import DataSet, Row
from selfevo_contract.errors import InputError, SelfevoError, ServiceError

UNSTATED = "not stated"
"""The licence of a data set whose card has none."""


@dataclass(frozen=True)
class Fetched:
    """A data set as it was at one commit."""

    revision: str
    """The commit."""
    licence: str
    """As its card says it."""
    rows: list[Row]


def fetch(entry: DataSet, *, revision: str, split: str, limit: int | None, cache: Path) -> Fetched:
    """Download the split's rows, the first ``limit`` of them when that is given.

    Args:
        entry: which data set.
        revision: a branch, a tag or a commit.
        split: ``test``, for example.
        limit: rows at most.
        cache: a folder for what `datasets` makes of the files; the files themselves lie in the hub client's cache.

    Raises:
        InputError: there is no such data set, revision or split for this token, or it lacks a column.
        ServiceError: the hub does not deliver.
    """
    with _explained(entry, revision, split):
        return _fetch(entry, revision, split, limit, cache)


def _fetch(entry: DataSet, revision: str, split: str, limit: int | None, cache: Path) -> Fetched:
    try:
        import datasets
        from huggingface_hub import HfApi
    except ModuleNotFoundError as error:
        raise InputError(
            f"selfevo data prepare needs the package {error.name}; pip install 'selfevo[trainer]'"
        ) from None
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    # Asked first and by itself: `datasets` would take its cache where the hub is away.
    info = HfApi().dataset_info(entry.repository, revision=revision)
    if info.sha is None:
        raise ServiceError(f"the hub names no commit of {entry.repository}; try again later")
    loaded = datasets.load_dataset(entry.repository, entry.config, split=split, revision=info.sha, cache_dir=str(cache))
    lacking = [column for column in entry.columns if column not in loaded.column_names]
    if lacking:
        raise InputError(
            f"{entry.repository} at {info.sha[:12]} has no column {lacking[0]!r} in split {split!r}, only "
            f"{', '.join(loaded.column_names)}: the data set has changed; name an earlier commit by --revision"
        )
    return Fetched(info.sha, _licence(info.card_data), list(itertools.islice(loaded, limit)))


def _licence(card: Any) -> str:
    value = card.get("license") if card is not None else None
    names = value if isinstance(value, list) else [value]
    return ", ".join(str(name) for name in names if name) or UNSTATED


@contextlib.contextmanager
def _explained(entry: DataSet, revision: str, split: str) -> Iterator[None]:
    try:
        yield
    except SelfevoError:
        raise
    except Exception as error:
        raise _as_sentence(error, entry, revision, split) from None


def _as_sentence(error: Exception, entry: DataSet, revision: str, split: str) -> Exception:
    """What the hub's client or `datasets` raised, as an error of ours; itself where nothing is known of it."""
    import datasets
    import httpx
    from huggingface_hub import errors

    where = f"data set {entry.repository}"
    causes = list(_causes(error))
    for cause in causes:
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if isinstance(cause, errors.RevisionNotFoundError):
            return InputError(
                f"--revision is {revision!r}, which {where} does not have; name one of its branches, tags or commits"
            )
        # The repository was seen before: that `datasets` finds none means that its files are kept back.
        if isinstance(cause, (errors.GatedRepoError, datasets.exceptions.DatasetNotFoundError)):
            return InputError(
                f"{where} is given out on conditions; accept them on its page of the hub, and set HF_TOKEN "
                "to a token of that account"
            )
        if isinstance(cause, errors.RepositoryNotFoundError):
            return InputError(
                f"the hub has no {where} for this token; set HF_TOKEN if it is private, and see whether it has moved"
            )
        if status in (401, 403):
            return InputError(f"the hub refuses this token for {where} ({status}); renew HF_TOKEN, or ask for access")
    away = (httpx.HTTPError, errors.LocalEntryNotFoundError, ConnectionError, TimeoutError)
    for cause in causes:
        if isinstance(cause, away):
            return ServiceError(
                f"the hub at {os.environ.get('HF_ENDPOINT', 'its usual address')} did not deliver {where} "
                f"({type(cause).__name__}); check the network and HF_ENDPOINT"
            )
    detail = " ".join(str(causes[-1]).split())[:200]
    if isinstance(error, ValueError) and "split" in detail.lower():
        return InputError(f"--split is {split!r}, and {where} has no such split ({detail}); name one that it has")
    if isinstance(error, (ValueError, datasets.exceptions.DatasetsError)):
        return InputError(
            f"{where} cannot be read as it is at --revision {revision!r} ({type(error).__name__}: {detail}): it has "
            "changed, or its files are damaged; name an earlier commit by --revision"
        )
    return error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it came from, without end-less loops."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
