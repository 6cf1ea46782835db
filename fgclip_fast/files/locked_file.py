"""A file that one process holds at a time; it is free again when that process ends, however it ends."""

import errno
import fcntl
import logging
import os
import socket
from datetime import datetime
from pathlib import Path
from typing import IO

log = logging.getLogger("fgclip_fast")


class HeldError(ValueError):
    """Another process holds the file; the message says which, as far as it is known."""


def locked(file: Path) -> IO[str]:
    """Open a file, made if missing, and hold it until it is closed. A file system without locks is warned of.

    Raises:
        HeldError: another process holds it.
        OSError: it cannot be opened.
    """
    opened = file.open("a+", encoding="utf-8")
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            log.warning("%s cannot be locked (%s); see that no other process writes there", file.parent, error)
            return opened
        with opened:
            opened.seek(0)
            raise HeldError(opened.read().strip() or "another process") from None
    opened.truncate(0)
    opened.write(f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M}")
    opened.flush()
    return opened
