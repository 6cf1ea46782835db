"""The folder for caches in the user's home."""

import os
from pathlib import Path


def cache_of(name: str) -> Path:
    """The folder of one of our caches, in ``$XDG_CACHE_HOME`` or ``~/.cache``.

    Raises:
        FileNotFoundError: the account has no home.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or home_cache()) / "fgclip_fast" / name


def home_cache() -> Path:
    """``~/.cache``.

    Raises:
        FileNotFoundError: the account has no home, as that of a container may.
    """
    try:
        return Path.home() / ".cache"
    except RuntimeError:
        raise FileNotFoundError(
            "this account has no home folder for a cache; set HOME, or FGCLIP_CACHE and XDG_CACHE_HOME, to a folder"
        ) from None
