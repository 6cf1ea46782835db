"""Names of a model hub: ``organisation/model`` becomes the folder of a snapshot in the local cache."""

import re
from pathlib import Path

FILES = ["*.safetensors", "*.json", "merges.txt"]
"""Files that are fetched: no pickle, no code."""


def looks_like_name(path: str | Path) -> bool:
    """True if ``path`` can be a name on a hub: two parts, and neither it nor its first part exists here."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", str(path)) is not None and not Path(path).parent.exists()


def fetch(name: str, revision: str | None = None) -> Path:
    """Fetch the weights of a name into huggingface_hub's cache, whose settings (offline, folder, token) hold.

    Args:
        name: ``organisation/model``.
        revision: a branch, tag or commit; None: the main branch.

    Returns:
        The folder of the snapshot; its files may be links.

    Raises:
        ValueError: huggingface_hub is not installed.
        FileNotFoundError: neither a folder here, nor in the cache, nor to be fetched.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError:
        raise ValueError(f"load: {name} is fetched by huggingface_hub: pip install huggingface_hub") from None
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=FILES))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        wanted = name if revision is None else f"{name} at revision {revision}"
        here = f"there is no folder {Path(name).parent} here"
        raise FileNotFoundError(f"load: {wanted}: {here}, and it cannot be fetched as a name on a hub: {why}") from None
