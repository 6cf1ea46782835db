"""The prompts, which are files that a user can edit."""

import hashlib
from pathlib import Path
from string import Template

from fgclip_fast.files.whole_file import write_whole

_HOME = Path(__file__).parent / "prompts"
NAMES = tuple(sorted(file.stem for file in _HOME.glob("*.txt")))
"""Names of the prompts."""


def prompt(name: str, folder: Path | None, **values: object) -> str:
    """Fill in a prompt.

    Args:
        name: one of :data:`NAMES`.
        folder: the user's prompts; None, or a folder without this one: ours.
        values: what stands for ``$name`` in it.

    Raises:
        ValueError: the user's prompt names a value that there is not, or lacks one that is needed.
    """
    text = text_of(name, folder)
    missing = [key for key in values if f"${key}" not in text and f"${{{key}}}" not in text]
    if missing:
        raise ValueError(f"curate: the prompt {name}.txt must hold ${missing[0]}, got none in {folder}")
    try:
        return Template(text).substitute({key: str(value) for key, value in values.items()})
    except (KeyError, ValueError) as error:
        known = ", ".join(f"${key}" for key in values) or "none"
        raise ValueError(f"curate: the prompt {name}.txt may use {known}, and $$ for a dollar, got {error}") from None


def text_of(name: str, folder: Path | None) -> str:
    """The text of a prompt, as :func:`prompt` finds it.

    Raises:
        ValueError: ``folder`` is no folder, or holds none of the prompts.
    """
    if folder is None:
        return (_HOME / f"{name}.txt").read_text(encoding="utf-8").strip()
    if not any((folder / f"{known}.txt").is_file() for known in NAMES):
        raise ValueError(
            f"curate: --prompts must be a folder with {', '.join(NAMES)}.txt or some of them, got {folder}"
        )
    own = folder / f"{name}.txt"
    return own.read_text(encoding="utf-8-sig").strip() if own.is_file() else text_of(name, None)


def digest_of(name: str, folder: Path | None) -> str:
    """A digest of a prompt, by which an edit is noticed."""
    return hashlib.blake2b(text_of(name, folder).encode(), digest_size=8).hexdigest()


def write_prompts(folder: Path) -> list[Path]:
    """Write our prompts as files to edit; files that exist stay as they are.

    Returns:
        The files that were written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [folder / f"{name}.txt" for name in NAMES if not (folder / f"{name}.txt").exists()]
    for file in missing:
        write_whole(file, text_of(file.stem, None) + "\n")
    return missing
