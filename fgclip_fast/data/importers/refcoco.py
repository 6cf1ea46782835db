"""RefCOCO, RefCOCO+ and RefCOCOg: references as JSON, with the ``instances.json`` that holds their boxes."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from fgclip_fast.data.importers import coco, json_stream
from fgclip_fast.data.importers.source import Options, Source, SourceRecord, described, head, split_of

_SENTENCES = re.compile(rb'"sentences"\s*:\s*\[')
_PICKLES = (".p", ".pkl", ".pickle")
_HELD_OUT = ("train", "val", "test")  # from the least to the most


class _References(NamedTuple):
    texts: dict[Any, list[str]]
    """Sentences of each annotation."""
    split: dict[Any, str]
    """Split of each image; where its references are of several, the one that is held out most."""


def recognise(source: Source, options: Options) -> str | None:
    """Evidence that the source holds references.

    Raises:
        ValueError: they are a pickle, or the boxes are missing.
    """
    files = _files(source)
    pickles = [file for file in source.ending(*_PICKLES) if file.name.startswith("refs")]
    if pickles and not files:
        name = pickles[0]
        raise ValueError(
            f"data import: {name} is a pickle, which is not read, since unpickling runs code; if you trust it, convert"
            f' it there: python -c "import json, pickle;'
            f" json.dump(pickle.load(open('{name.name}', 'rb')), open('{name.stem}.json', 'w'))\""
        )
    if not files:
        return None
    if len(files) > 1:
        raise ValueError(
            f"data import: source must hold one file of references, got {', '.join(file.name for file in files)}, which"
            " divide the same images differently; name one of them and instances.json"
        )
    boxes = coco.files(source)
    if not boxes:
        raise ValueError(
            f"data import: {files[0]} needs instances.json, with the boxes of its annotations, as a source too"
        )
    return f"{files[0].name}: a list of references with sentences, boxes in {boxes[0].name}"


def read(source: Source, options: Options) -> Iterator[SourceRecord]:
    """Read each image that has references; of its annotations, those that they name."""
    references = _references(_files(source)[0])

    def regions(annotations: list[dict[str, Any]], _: dict[Any, str]) -> dict[str, Any]:
        named = [entry for entry in annotations if "bbox" in entry and entry.get("id") in references.texts]
        return {"bbox_info": [described(coco.box_of(entry), references.texts[entry["id"]]) for entry in named]}

    for image_id, record in coco.records(source, options, regions):
        if image_id in references.split:
            yield record._replace(split=references.split[image_id])


def _files(source: Source) -> list[Path]:
    return [file for file in source.ending(".json") if json_stream.kind(head(file)) == "list" and _names(head(file))]


def _names(beginning: bytes) -> bool:
    return bool(_SENTENCES.search(beginning)) and b'"ann_id"' in beginning


@lru_cache(maxsize=1)
def _references(file: Path) -> _References:
    texts: dict[Any, list[str]] = defaultdict(list)
    split: dict[Any, str] = {}
    for line in json_stream.entries(file):
        entry = line.value
        if isinstance(entry, Mapping) and isinstance(entry.get("sentences"), list):
            texts[entry.get("ann_id")] += [text for one in entry["sentences"] if (text := _text(one))]
            own = split_of(str(entry.get("split") or "train")) or "train"
            split[entry.get("image_id")] = max(own, split.get(entry.get("image_id"), "train"), key=_HELD_OUT.index)
    return _References(texts, split)


def _text(sentence: Any) -> str:
    if isinstance(sentence, str):
        return sentence
    text = sentence.get("sent") or sentence.get("raw") if isinstance(sentence, Mapping) else ""
    return text if isinstance(text, str) else json.dumps(text)
