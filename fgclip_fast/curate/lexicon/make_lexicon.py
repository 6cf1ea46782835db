"""Make the lexicon of nouns from the files of WordNet 3.0: ``python -m fgclip_fast.curate.lexicon.make_lexicon DICT``.

``DICT`` is the folder with ``data.noun``, ``index.noun``, ``noun.exc`` and ``cntlist.rev``. The command writes
``nouns.tsv`` and ``plurals.tsv`` beside this file; ``LICENSE-wordnet`` there is WordNet's notice, which must go with
them.

A line of ``nouns.tsv`` is a synset: category, the line numbers of its hypernyms, its lemmas. A lemma with a count may
stand in a negative, in this sense: :mod:`fgclip_fast.curate.lexicon.drawn_nouns` lists them. The count is how often the
lemma is tagged with a sense of that category in WordNet's texts, plus one.
"""

import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from fgclip_fast.curate.lexicon.drawn_nouns import DRAWN
from fgclip_fast.files.whole_file import write_whole

CATEGORIES = {
    "05": "animal",
    "06": "artifact",
    "08": "body",
    "13": "food",
    "17": "object",
    "18": "person",
    "20": "plant",
}
"""WordNet's lexicographer files whose senses are kept, and the names of their categories."""


class Synset(NamedTuple):
    """A sense: its category ("" for an ancestor outside the categories), hypernyms and lemmas."""

    category: str
    parents: tuple[str, ...]
    lemmas: tuple[str, ...]


def main() -> None:
    """Run the command."""
    if len(sys.argv) != 2:
        sys.exit(
            "error: make_lexicon: pass the folder of WordNet 3.0's data.noun, index.noun, noun.exc and cntlist.rev"
        )
    source, home = Path(sys.argv[1]), Path(__file__).parent
    synsets = _read(source / "data.noun")
    kept = _with_ancestors(synsets)
    counts = _drawn(synsets, _senses(source / "index.noun"), _tag_counts(source / "cntlist.rev"))
    number = {offset: str(i) for i, offset in enumerate(kept)}
    lines = []
    for offset in kept:
        synset = synsets[offset]
        lemmas = (f"{lemma}:{counts[offset, lemma]}" if (offset, lemma) in counts else lemma for lemma in synset.lemmas)
        parents = ",".join(number[parent] for parent in synset.parents)
        lines.append(f"{synset.category[:2]}\t{parents}\t{','.join(lemmas)}\n")
    write_whole(home / "nouns.tsv", "".join(lines))
    known = {lemma for offset in kept for lemma in synsets[offset].lemmas}
    exceptions = (line.split()[:2] for line in (source / "noun.exc").read_text().splitlines())
    plurals = sorted({(lemma, plural) for plural, lemma in exceptions if lemma in known and plural.isalpha()})
    write_whole(home / "plurals.tsv", "".join(f"{lemma}\t{plural}\n" for lemma, plural in plurals))
    print(f"{len(kept)} synsets, {len(known)} lemmas, {len(counts)} of them drawn, {len(plurals)} irregular plurals")


def _read(path: Path) -> dict[str, Synset]:
    """Read all noun synsets; the fields of a line are described in WordNet's manual page wndb(5)."""
    synsets = {}
    for line in path.read_text().splitlines():
        if line.startswith(" "):
            continue
        fields = line.partition(" | ")[0].split()
        words = int(fields[3], 16)
        lemmas = [fields[4 + 2 * i].replace("_", " ") for i in range(words)]
        pointers = fields[5 + 2 * words :]
        parents = [pointers[i + 1] for i in range(0, len(pointers) - 3, 4) if pointers[i] == "@"]
        instance = any(pointers[i] == "@i" for i in range(0, len(pointers) - 3, 4))
        usable = tuple(lemma for lemma in lemmas if lemma.islower() and lemma.count(" ") < 2 and not instance)
        synsets[fields[0]] = Synset(CATEGORIES.get(fields[1], ""), tuple(parents), usable)
    return synsets


def _senses(path: Path) -> dict[str, list[str]]:
    """Map each lemma to the offsets of its senses, the most frequent first."""
    lines = (line.split() for line in path.read_text().splitlines() if not line.startswith(" "))
    return {fields[0].replace("_", " "): fields[-int(fields[2]) :] for fields in lines}


def _tag_counts(path: Path) -> dict[tuple[str, str], int]:
    """Map (lemma, lexicographer file) to the count of its most frequent sense there."""
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for line in path.read_text().splitlines():
        sense, _, count = line.split()
        lemma, _, rest = sense.partition("%")
        kind, file = rest.split(":")[:2]
        if kind == "1":
            key = lemma.replace("_", " "), CATEGORIES.get(file, "")
            counts[key] = max(counts[key], int(count))
    return counts


def _with_ancestors(synsets: Mapping[str, Synset]) -> list[str]:
    """List the synsets of the categories that have lemmas, and all their ancestors, in the order of the file."""
    kept: set[str] = set()
    waiting = [offset for offset, synset in synsets.items() if synset.category and synset.lemmas]
    while waiting:
        offset = waiting.pop()
        if offset not in kept:
            kept.add(offset)
            waiting += synsets[offset].parents
    return sorted(kept)


def _drawn(
    synsets: Mapping[str, Synset], senses: Mapping[str, list[str]], tags: Mapping[tuple[str, str], int]
) -> dict[tuple[str, str], int]:
    """Map (synset, lemma) of each noun that negatives may name to its weight."""
    weights = {}
    for category, lines in DRAWN.items():
        for lemma in lines.split():
            sense = next((offset for offset in senses[lemma] if synsets[offset].category == category), None)
            if sense is None:
                sys.exit(f"error: make_lexicon: WordNet has no sense of {lemma!r} among {category}")
            weights[sense, lemma] = tags.get((lemma, category), 0) + 1
    return weights


if __name__ == "__main__":
    main()
