"""The lexicon is made from the files of WordNet."""

import sys
from pathlib import Path

import pytest

from fgclip_fast.curate.lexicon import drawn_nouns, make_lexicon

HOME = Path(make_lexicon.__file__).parent

DATA = """\
  1 a line of the licence
00000001 03 n 01 entity 0 000 | all there is
00000010 05 n 02 dog 0 domestic_dog 0 002 @ 00000001 n 0000 ~ 00000020 n 0000 | a canine
00000020 05 n 01 poodle 0 001 @ 00000010 n 0000 | a curly dog
00000030 05 n 01 Fido 0 001 @i 00000010 n 0000 | one dog
00000040 09 n 01 dog 1 001 @ 00000001 n 0000 | an idea
"""


@pytest.fixture
def made(tmp_path, monkeypatch):
    for name, text in {
        "data.noun": DATA,
        "index.noun": "dog n 2 1 @ 2 1 00000040 00000010\n",
        "noun.exc": "doggen dog\nfoo bar\n",
        "cntlist.rev": "dog%1:05:00:: 2 42\ndog%2:38:00:: 1 9\n",
    }.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(make_lexicon, "DRAWN", {"animal": "dog"})
    monkeypatch.setattr(make_lexicon, "__file__", str(tmp_path / "make_lexicon.py"))
    monkeypatch.setattr(sys, "argv", ["make_lexicon", str(tmp_path)])
    make_lexicon.main()
    return tmp_path


def test_synsets_of_the_categories_and_all_above_them_are_kept(made):
    expected = ["\t\tentity", "an\t0\tdog:43,domestic dog", "an\t1\tpoodle", "an\t\t"]
    assert (made / "nouns.tsv").read_text().splitlines() == expected[:3]
    assert (made / "plurals.tsv").read_text() == "dog\tdoggen\n"


def test_the_committed_lexicon_is_small_and_has_every_drawn_noun_and_the_notice():
    lexicon = (HOME / "nouns.tsv").read_text()
    assert len(lexicon) < 1_000_000
    for noun in " ".join(drawn_nouns.DRAWN.values()).split():
        assert f"{noun}:" in lexicon
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in (HOME / "LICENSE-wordnet").read_text()


def test_without_a_folder_it_says_what_it_needs(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["make_lexicon"])
    with pytest.raises(SystemExit, match=r"data\.noun"):
        make_lexicon.main()
