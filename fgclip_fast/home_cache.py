"""The folder for caches in the user's home."""

from pathlib import Path


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
