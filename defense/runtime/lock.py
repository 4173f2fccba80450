"""One job at a time: a lock file that says who holds it, and a wait that says what it waits for.

The lock is the operating system's (flock): it ends with the process that holds it, whatever ends that. A lock file
may be removed by who holds it, since who gets a lock afterwards looks whether its file still has its name.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)
FIRST, AGAIN = 1.0, 60.0  # seconds of waiting until that is said, and said again
POLL = 0.1  # seconds between two tries
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # what a file system without flock answers

_held: set[int] = set()


def _let_go_in_child() -> None:
    """Close what a forked child has inherited: it would hold the locks of a parent that is killed."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go_in_child)


@dataclass(frozen=True)
class Lock:
    """A lock that is held."""

    path: Path
    descriptor: int

    def remove(self) -> None:
        """Remove the file; who waits for it takes a new one."""
        self.path.unlink()

    def release(self) -> None:
        """Let others have it."""
        if self.descriptor in _held:
            _held.remove(self.descriptor)
            os.close(self.descriptor)


def seize(path: Path) -> Lock | None:
    """Take the lock at `path` and write into it who has it; None where another process has it.

    Raises OSError if the file cannot be made, or the file system has no locks.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    _held.add(descriptor)
    lock = Lock(path, descriptor)
    try:
        if not flocked(descriptor) or not names(path, descriptor):
            lock.release()
            return None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
    except BaseException:
        lock.release()
        raise
    return lock


def free(path: Path) -> bool:
    """Return whether nobody has the lock at `path`, which is left as it is."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        return flocked(descriptor)
    finally:
        os.close(descriptor)


def flocked(descriptor: int) -> bool:
    """Return whether the lock on an open file was free, and is held now."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):  # the latter on some network file systems
            return False
        raise
    return True


def names(path: Path, descriptor: int) -> bool:
    """Return whether `path` is the name of an open file: its last holder may have removed it meanwhile."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):  # the latter on network file systems
            return False
        raise


@contextmanager
def locked(path: Path, what: str) -> Iterator[Lock]:
    """Hold the lock at `path` while inside; where that takes long, the log says who is at `what`."""
    begin, said = time.monotonic(), 0
    while (lock := seize(path)) is None:
        if time.monotonic() - begin >= FIRST + said * AGAIN:
            said += 1
            log.info("waiting for %s, locked by %s", what, holder(path))
        time.sleep(POLL)
    try:
        yield lock
    finally:
        lock.release()


def holder(path: Path) -> str:
    """Return who has the lock at `path`, as it has written there."""
    try:
        return path.read_text(encoding="utf-8", errors="replace") or "another process"
    except OSError:
        return "another process"
