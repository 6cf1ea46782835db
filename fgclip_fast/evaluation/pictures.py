"""Find the image files that annotations name: by the path given, by the file's name, or by COCO's older names."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

AS_GIVEN, BY_NAME, BY_OLDER_NAME = "path as given", "file name", "file name without COCO's prefix"
_PREFIX = re.compile(r"^COCO_(?:train|val|test)20\d\d_")


class Pictures:
    """The image files below some folders.

    A path is tried in each folder as it is given. Then each folder is searched for its file name, and for that name
    without the ``COCO_val2014_`` that COCO's files had before 2017. A name that several files have is not guessed.

    Args:
        folders: searched in this order.
        by_name: whether folders are searched for names; else paths are taken as given alone.

    Attributes:
        ways: way of finding → number of names found so.
    """

    def __init__(self, folders: Sequence[Path], *, by_name: bool = True) -> None:
        # Absolute, so that two suites name one file alike.
        self._folders = list(dict.fromkeys(folder.absolute() for folder in folders))
        self._searched = self._folders if by_name else []
        self._names: dict[Path, dict[str, Path | None]] = {}
        self.ways: Counter[str] = Counter()

    def find(self, name: str) -> Path | None:
        """Find a file; None if it does not exist, or if several have its name."""
        for folder in self._folders:
            if (path := folder / name).is_file():
                self.ways[AS_GIVEN] += 1
                return path
        last = Path(name).name
        for folder in self._searched:
            for way, sought in ((BY_NAME, last), (BY_OLDER_NAME, _PREFIX.sub("", last))):
                if (found := self._by_name(folder).get(sought)) is not None:
                    self.ways[way] += 1
                    return found
        return None

    def _by_name(self, top: Path) -> dict[str, Path | None]:
        """File name → its only file below a folder; None for several."""
        if top not in self._names:
            found = self._names[top] = {}
            for folder, _, names in os.walk(top, followlinks=True):
                for name in names:
                    found[name] = None if name in found else Path(folder, name)
        return self._names[top]


def around(questions: Path, images: Path | None, root: Path | None = None) -> Pictures:
    """The images of a file or folder of questions.

    They are sought below ``images``; without it below the folder of the questions, or the one above where that is
    called ``annotations``, and then below ``root``, a folder of several data sets.

    Raises:
        FileNotFoundError: ``images`` does not exist.
    """
    if images is not None:
        if not images.is_dir():
            raise FileNotFoundError(f"images must be an existing folder, got {images}")
        return Pictures([images])
    own = questions if questions.is_dir() else questions.absolute().parent
    own = own.parent if own.name == "annotations" else own
    return Pictures([own] if root is None or not root.is_dir() else [own, root.absolute()])
