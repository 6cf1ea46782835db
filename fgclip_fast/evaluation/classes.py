"""Class names and templates: from files, or ImageNet's as open_clip ships them."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from torch import Tensor

WNID = re.compile(r"n\d{8}")
"""A WordNet identifier, as ImageNet's folders are called."""


def imagenet_names() -> list[str]:
    """The 1,000 class names of OpenAI's list, in the order of the sorted WordNet identifiers."""
    return list(_metadata().IMAGENET_CLASSNAMES)


def imagenet_templates() -> list[str]:
    """OpenAI's 80 ImageNet templates, with ``{}`` in the place of the name."""
    return [template("{}") for template in _metadata().OPENAI_IMAGENET_TEMPLATES]


class Templates(NamedTuple):
    """Texts with ``{}`` in the place of a class name."""

    texts: list[str]
    about: str
    """For a protocol."""

    def described(self) -> dict[str, str]:
        """The set by name and by the first 16 digits of a hash, as ``evaluation.json`` holds it."""
        digest = hashlib.sha256("\n".join(self.texts).encode())
        return {"set": self.about, "sha256": digest.hexdigest()[:16]}


def read_templates(path: Path | None) -> Templates:
    """Read templates, one a line or a JSON list; None gives the 80.

    Raises:
        ValueError: a template without ``{}``, or none.
        OSError: the file cannot be read.
    """
    if path is None:
        return Templates(imagenet_templates(), "OpenAI's 80 templates")
    templates = read_list(path)
    if bad := next((t for t in templates if "{}" not in t), None) if templates else "nothing":
        raise ValueError(f"templates: each of {path} must hold {{}} in the place of the class name, got {bad!r}")
    return Templates(templates, f"{len(templates)} templates of {path.name}")


def read_names(path: Path, folders: Sequence[str]) -> list[str]:
    """Read the names of some classes.

    Args:
        path: a name a line or a JSON list, in the order of the sorted folders; or folder and name, a line each
            (a tab between, or a WordNet identifier and its synonyms), or a JSON object.
        folders: the classes' folders, sorted.

    Raises:
        ValueError: names do not fit the folders.
        OSError: the file cannot be read.
    """
    names = _named(path)
    if isinstance(names, Mapping):
        if lacking := [folder for folder in folders if folder not in names]:
            raise ValueError(f"classes: {path} must name each folder, it lacks {lacking[0]}")
        return [names[folder] for folder in folders]
    if len(names) != len(folders):
        raise ValueError(f"classes: {path} must hold a name for each of {len(folders)} classes, got {len(names)}")
    return names


def names_of_folders(folders: Sequence[str]) -> list[str]:
    """Names of classes that are known by their folders alone.

    Args:
        folders: sorted. All of ImageNet's identifiers, or its numbers 0 to 999 as ImageNet-v2 has them, give ImageNet's
            names; other folders are names themselves, ``_`` standing for a space.

    Raises:
        ValueError: some of ImageNet's folders, whose names the list does not tell.
    """
    if all(folder.isdigit() for folder in folders) and len(folders) == len(imagenet_names()):
        return [imagenet_names()[int(folder)] for folder in folders]
    if all(WNID.fullmatch(folder) for folder in folders):
        if len(folders) != len(imagenet_names()):
            raise ValueError(
                f"classes: {len(folders)} folders are called like ImageNet's 1,000, so give their names by a file, "
                "for instance LOC_synset_mapping.txt"
            )
        return imagenet_names()
    return [folder.replace("_", " ") for folder in folders]


def ranks(scores: Tensor, label: Tensor) -> Tensor:
    """Count the classes before the right one; of equal scores the class that stands first wins, as in ``argmax``.

    Args:
        scores: Tensor[N, C].
        label: Tensor[N], int64.

    Returns:
        Tensor[N], int64.
    """
    own = scores.gather(1, label[:, None])
    column = scores.new_ones(scores.shape[1]).cumsum(0)[None] - 1
    return ((scores > own) | ((scores == own) & (column < label[:, None]))).sum(dim=1)


def _named(path: Path) -> Mapping[str, str] | list[str]:
    if path.suffix.lower() == ".json":
        whole = _json(path)
        if isinstance(whole, dict) and all(isinstance(name, str) for name in whole.values()):
            return whole
        return _strings(path, whole)
    lines = read_list(path)
    if lines and all("\t" in line for line in lines):
        return dict(line.split("\t", 1) for line in lines)
    if lines and all(WNID.match(line) for line in lines):
        return {line[:9]: line[9:].split(",")[0].strip() for line in lines}
    return lines


def read_list(path: Path) -> list[str]:
    """Read texts, one a line or a JSON list.

    Raises:
        ValueError: another JSON.
        OSError: the file cannot be read.
    """
    if path.suffix.lower() == ".json":
        return _strings(path, _json(path))
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} must be JSON: {error}") from None


def _strings(path: Path, whole: Any) -> list[str]:
    if not isinstance(whole, list) or not all(isinstance(one, str) for one in whole):
        raise ValueError(f"{path} must hold a list of texts")
    return whole


@cache
def _metadata() -> ModuleType:
    """open_clip's file of names and templates, read alone: the whole package takes seconds to import."""
    home = find_spec("open_clip")
    if home is None or not home.submodule_search_locations:
        raise ValueError("ImageNet's names and templates need open_clip: pip install open_clip_torch")
    file = Path(home.submodule_search_locations[0]) / "zero_shot_metadata.py"
    spec = spec_from_file_location("_zero_shot_metadata", file)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
