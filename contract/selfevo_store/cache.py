"""A content-addressed cache of stored files, shared by the processes of a machine.

    <cache_dir>/sha256/<first two digits>/<digest>      an entry: complete, read-only
    <cache_dir>/locks/<digest>                          held by the process that downloads it
    <cache_dir>/tmp/...                                 downloads on their way

An entry is never trusted: its bytes are hashed each time they are handed out, and an entry that does not match is
dropped and downloaded again. What a consumer gets of a large file is a hard link, so that a model lies on the disk
once: it is read-only, and replacing the file (as save_pretrained, editors and rename do) leaves the entry alone.
Writing *into* it needs root or a chmod; that damages the entry, which the next reader notices. Small files, the ones
people edit in place, are copies.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from selfevo_store.digests import Digest, copy_hashing, digest_of_file
from selfevo_store.problems import DRAFT_PREFIX, local_error

LINK_FROM = 1 << 20
"""Bytes from which on a file is linked, not copied."""

_ABANDONED_S = 24 * 3600.0


Download = Callable[[Path], Digest]
"""Writes a file to the path that it is given, and says the digest of what it wrote."""


class Placer(Protocol):
    """How a checked file comes to where a consumer wants it."""

    def place(self, want: Digest, target: Path, download: Download) -> Digest:
        """Makes ``target`` a file with the digest ``want``.

        Args:
            want: What the file has to be.
            target: Where it shall lie; replaced if it is there, never seen incomplete.
            download: Gets the file.

        Returns:
            ``want``; another digest when two downloads in a row gave something else: then ``target`` is not written.
            (Two: the network may have damaged what the store has in good order.)
        """
        ...


class NoCache:
    """Downloads every time."""

    def place(self, want: Digest, target: Path, download: Download) -> Digest:
        found = self._once(want, target, download)
        return found if found == want else self._once(want, target, download)

    @staticmethod
    def _once(want: Digest, target: Path, download: Download) -> Digest:
        draft = target.with_name(f"{DRAFT_PREFIX}{secrets.token_hex(8)}")
        try:
            found = download(draft)
            if found == want:
                draft.replace(target)
            return found
        except OSError as error:
            raise local_error(error, target) from error
        finally:
            with contextlib.suppress(OSError):
                draft.unlink()


class DigestCache:
    """The cache below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._swept = False

    def place(self, want: Digest, target: Path, download: Download) -> Digest:
        entry = self.entry(want.sha256)
        if _hand_out(entry, want, target) == want:
            return want
        self._sweep()
        with self._locked(want.sha256):
            # Another process may have got it while this one waited.
            if _hand_out(entry, want, target) == want:
                return want
            found = self._downloaded(want, target, download)
            return found if found == want else self._downloaded(want, target, download)

    def _downloaded(self, want: Digest, target: Path, download: Download) -> Digest:
        draft = self._folder("tmp") / f"{want.sha256[:16]}-{secrets.token_hex(8)}"
        entry = self.entry(want.sha256)
        try:
            found = download(draft)
            if found == want:
                draft.chmod(0o444)
                found = _hand_out(draft, want, target, known=found) or Digest(0, "")
            if found == want:
                entry.parent.mkdir(parents=True, exist_ok=True)
                draft.replace(entry)
            return found
        except OSError as error:
            raise local_error(error, draft) from error
        finally:
            with contextlib.suppress(OSError):
                draft.unlink()

    def entry(self, sha256: str) -> Path:
        """Where the file with this digest lies, if it is here."""
        return self.folder / "sha256" / sha256[:2] / sha256

    def _folder(self, name: str) -> Path:
        folder = self.folder / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise local_error(error, folder) from error
        return folder

    @contextmanager
    def _locked(self, sha256: str) -> Iterator[None]:
        path = self._folder("locks") / sha256
        try:
            lock = path.open("w")
        except OSError as error:
            raise local_error(error, path) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _sweep(self) -> None:
        """Removes what processes that were killed left in tmp/."""
        if self._swept:
            return
        self._swept = True
        for path in self._folder("tmp").glob("*"):
            with contextlib.suppress(OSError):  # another process swept it first
                if time.time() - path.stat().st_mtime > _ABANDONED_S:
                    path.unlink()


def _hand_out(source: Path, want: Digest, target: Path, known: Digest | None = None) -> Digest | None:
    """Links or copies ``source`` to ``target`` if its digest is ``want``; removes it if not.

    Args:
        source: An entry, or a file that this process has just downloaded.
        want: What it has to be.
        target: Where it shall lie.
        known: What it is, where this process wrote it: then a link is not read once more.

    Returns:
        The digest that was found; None when there is no such file.
    """
    draft = target.with_name(f"{DRAFT_PREFIX}{secrets.token_hex(8)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # What is checked is what the consumer gets: first the link, then the digest, then the name.
        try:
            found = _link_or_copy(source, draft, link=want.size >= LINK_FROM, known=known)
        except FileNotFoundError:
            return None
        if found == want:
            draft.replace(target)
        else:
            source.unlink(missing_ok=True)
        return found
    except OSError as error:
        raise local_error(error, target) from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def _link_or_copy(source: Path, target: Path, *, link: bool, known: Digest | None) -> Digest:
    if link:
        try:
            os.link(source, target)
        except FileNotFoundError:
            raise
        except OSError:
            pass  # another file system, or one without links
        else:
            return known or digest_of_file(target)
    with source.open("rb") as stored, target.open("xb") as file:
        return copy_hashing(stored, file)
