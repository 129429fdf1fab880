"""A repository of the hub, by its client: made when it is not there, private unless `private` is false, written by
one commit that takes all files or none."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from selfevo_contract import reasons
from selfevo_contract.digests import file_digest
from selfevo_contract.errors import InputError, SelfevoError, ServiceError
from selfevo_contract.process import PUBLISH_TOKEN_ENV
from selfevo_contract.spec.publish import HUB

T = TypeVar("T")
_OF_THE_HUB = (".gitattributes",)
"""Files that every repository begins with."""


def hub_token(to: str) -> str:
    """The token to write with: the run's own, or the one that the hub's client finds.

    Raises:
        InputError: there is none.
    """
    from huggingface_hub import get_token

    token = os.environ.get(PUBLISH_TOKEN_ENV, "").strip() or get_token()
    if not token:
        raise InputError(
            f"spec.publish.to is {to!r}, and no token may write there; name a Secret that holds one in "
            "spec.publish.tokenSecret or, on one machine, set HF_TOKEN",
            reason=reasons.NO_TOKEN,
        )
    return token


class HubRepository:
    """A model or a data set of the hub, at one of its branches."""

    def __init__(
        self, to: str, kind: Literal["model", "dataset"], branch: str | None, token: str, *, private: bool
    ) -> None:
        from huggingface_hub import HfApi

        self._name, self._kind, self._branch, self._private = to.removeprefix(HUB), kind, branch, private
        self._of: dict[str, Any] = {"repo_id": self._name, "repo_type": kind}
        prefix = HUB if kind == "model" else f"{HUB}datasets/"
        self.address = f"{prefix}{self._name}" + (f"@{branch}" if branch else "")
        self._api: Any = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=token)
        self._commit: str | None = None
        self._is_there = False
        self._files: dict[str, Any] | None = None

    def names(self) -> Collection[str]:
        if self._files is None:
            self._read()
        return list(self._files or {})

    def holds(self, name: str, path: Path) -> bool:
        """Large files are known by their sha256, others by git's digest of a blob."""
        there = (self._files or {})[name]
        if there.size != path.stat().st_size:
            return False
        large = there.lfs
        return bool(large.sha256 == file_digest(path) if large is not None else there.blob_id == git_digest(path))

    def put(self, files: Mapping[str, Path], message: str) -> str:
        """One commit on the state that was read: should somebody else write meanwhile, the hub refuses it, and the next
        attempt reads the state anew."""
        from huggingface_hub import CommitOperationAdd

        if self._commit is None:
            self._make()
        added = [CommitOperationAdd(name, str(path)) for name, path in sorted(files.items())]
        commit = self._asked(
            lambda: self._api.create_commit(
                operations=added,
                commit_message=message,
                revision=self._branch,
                parent_commit=self._commit,
                **self._of,
            )
        )
        return str(commit.oid)

    def _read(self) -> bool:
        """Read what is there; whether the branch is."""
        from huggingface_hub import errors

        self._files, self._commit = {}, None
        try:
            info = self._asked(lambda: self._api.repo_info(revision=self._branch, files_metadata=True, **self._of))
        except errors.RevisionNotFoundError:
            self._read_main()
            return False
        except errors.RepositoryNotFoundError:
            return False
        self._refuse_public(info)
        found = {each.rfilename: each for each in info.siblings or []}
        self._files = {name: each for name, each in found.items() if name not in _OF_THE_HUB}
        self._commit = info.sha
        return True

    def _read_main(self) -> None:
        """A new branch begins with what the main one has."""
        main = self._asked(lambda: self._api.repo_info(**self._of))
        self._refuse_public(main)
        self._is_there = True
        files = sorted(each.rfilename for each in main.siblings or [] if each.rfilename not in _OF_THE_HUB)
        if files:
            raise InputError(
                f"spec.publish.to is {self.address!r}, a branch that is not there and would begin with {files[0]} of "
                "the main one; name another repository",
                reason=reasons.PUBLISHED_OTHERWISE,
            )

    def _refuse_public(self, info: Any) -> None:
        if self._private and info.private is False:
            raise InputError(
                f"spec.publish.to is {self.address!r}, which is public, and spec.publish.private is true; make it "
                "private at the hub, name another, or set private to false",
                reason=reasons.PUBLISHED_OTHERWISE,
            )

    def _make(self) -> None:
        """The repository and its branch, as far as they are not there; their state is read after that."""
        if not self._is_there:
            self._asked(lambda: self._api.create_repo(private=self._private, exist_ok=True, **self._of))
        branch = self._branch
        if branch is not None:
            self._asked(lambda: self._api.create_branch(branch=branch, exist_ok=True, **self._of))
        if not self._read() or self._files:
            raise ServiceError(
                f"spec.publish.to is {self.address!r}, where somebody else wrote at the same time; the next "
                "attempt reads it"
            )

    def _asked(self, call: Callable[[], T]) -> T:
        from huggingface_hub import errors

        try:
            return call()
        except (SelfevoError, errors.RevisionNotFoundError):
            raise
        except errors.RepositoryNotFoundError as error:
            if error.response.request.method == "GET" and error.response.status_code == 404:
                raise
            raise _refused(self.address, error.response.status_code) from None
        except Exception as error:
            raise explained(error, self.address) from None


def git_digest(path: Path) -> str:
    """What git calls a file's content by."""
    size = path.stat().st_size
    digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _refused(address: str, status: int) -> InputError:
    return InputError(
        f"spec.publish.to is {address!r}, and the hub lets this token not write there ({status}); take a token that "
        "may write to it, or name another repository",
        reason=reasons.NOT_WRITABLE,
    )


def explained(error: Exception, address: str) -> Exception:
    """One sentence for what the hub's client raised; the error itself where nothing is known of it."""
    import httpx
    from huggingface_hub import errors

    given = f"spec.publish.to is {address!r}"
    if isinstance(error, errors.HFValidationError):
        return InputError(f"{given}, which is no name of a repository; correct it")
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if status in (401, 403):
        return _refused(address, status)
    if status in (409, 412):
        return ServiceError(
            f"{given}, where somebody else wrote at the same time ({status}); the next attempt reads it"
        )
    if isinstance(status, int) and 400 <= status < 500 and status not in (408, 429):
        why = " ".join((getattr(error, "server_message", None) or type(error).__name__).split())[:200]
        return InputError(f"{given}, and the hub refuses it ({status}: {why}); correct it, or name another repository")
    if "Invalid metadata" in str(error):
        why = " ".join(str(error).split())[:200]
        return InputError(f"{given}, and the hub refuses the card ({why}); update selfevo, or publish to a store")
    # Of a large file that was not taken the client says so by a RuntimeError; of an answer that is none, a ValueError.
    if status is not None or isinstance(error, (httpx.HTTPError, OSError, ValueError)) or "uploading" in str(error):
        return ServiceError(
            f"{given}, and the hub at {os.environ.get('HF_ENDPOINT') or 'its usual address'} did not take it "
            f"({status or type(error).__name__}); check the network and HF_ENDPOINT"
        )
    return error
