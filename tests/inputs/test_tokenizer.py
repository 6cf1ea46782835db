"""Ids equal those of the released FG-CLIP's tokenizer, flat and without padding."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, strategies as st
from safetensors.torch import load_file

from fgclip_fast.inputs import tokenizer as module
from fgclip_fast.inputs.tokenizer import BOS, Tokenizer
from fgclip_fast.ops.tree import EOS, LONG_LENGTH, SHORT_LENGTH

GOLDEN = Path(__file__).parents[1] / "golden"
TOKENIZER = Tokenizer()
NASTY = [
    "",
    "  ",
    "A  RED\tmug\n",
    "it's the dog's can't we'll I'd 'S 12345 3.14",
    "café cafe\u0301 nai\u0308ve e\u0301\u0301",
    "日本語 テキスト हिन्दी",
    "😀👩\u200d👩\u200d👧",
    "a&amp;b “quotes” — don’t",
    "İstanbul ẞ ﬁ ΣΑΣ",
    "\u200bzero\u00a0width\ufeff \u2028 \u0085",
    "\x00\x01control \uffff",
    "½ ² ④ ٣ Ω≈ç√∫",
    "</w> a</w>",
    "a <|endoftext|> b<|endoftext|>",
    "<|startoftext|> hi",
    "<|ENDOFTEXT|> <|StartOfText|>",
    "x" * 300,
    "mug " * 260,
]


def ids(texts, max_length=SHORT_LENGTH):
    token, offsets = TOKENIZER(texts, max_length)
    return [row.tolist() for row in token.split(offsets.diff().tolist())]


@pytest.fixture(scope="module")
def peer():
    pytest.importorskip("transformers")
    from transformers import CLIPTokenizer

    merges = module.read_merges(module.installed_merges())
    return CLIPTokenizer(vocab=TOKENIZER._encoder.get_vocab(), merges=merges)


@pytest.mark.parametrize(("kind", "max_length"), [("short", 77), ("long", 248)])
def test_ids_are_the_golden_ones(kind, max_length):
    texts = json.loads((GOLDEN / "golden.json").read_text())["texts"][kind]
    expected = load_file(GOLDEN / "golden.safetensors")[f"inputs/text_{kind}"]
    for row, padded in zip(ids(texts, max_length), expected, strict=True):
        assert row + [EOS] * (max_length - len(row)) == padded.tolist()


@pytest.mark.parametrize("max_length", [2, 3, SHORT_LENGTH, LONG_LENGTH])
def test_odd_strings_are_read_as_transformers_does(peer, max_length):
    expected = [peer(text, max_length=max_length, truncation=True)["input_ids"] for text in NASTY]
    assert ids(NASTY, max_length) == expected


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_string_is_read_as_transformers_does(peer, text):
    assert ids([text]) == [peer(text, max_length=SHORT_LENGTH, truncation=True)["input_ids"]]


@given(words=st.lists(st.sampled_from([*"a \u0301'\n", "mug", "Σ", "\u2028", "é", "s", "<|endoftext|>"]), max_size=30))
def test_words_are_encoded_alone_as_within_their_text(words):
    text = "".join(words)
    whole = TOKENIZER._encoder.encode(text, add_special_tokens=False).ids
    assert ids([text]) == [[BOS, *whole, EOS]]


def test_remembers_a_limited_number_of_words(monkeypatch):
    monkeypatch.setattr(module, "_WORDS", 4)
    tokenizer = Tokenizer()
    first = tokenizer(NASTY)
    for text in NASTY:
        tokenizer([text])
        assert len(tokenizer._known) <= 4 + len(text.split(" "))
    assert torch.equal(tokenizer(NASTY).token, first.token)


@given(texts=st.lists(st.text(max_size=30), max_size=5), max_length=st.integers(2, 20))
def test_rows_are_bos_to_eos_and_never_too_long(texts, max_length):
    rows = ids(texts, max_length)
    assert len(rows) == len(texts)
    assert all(row[0] == BOS and row[-1] == EOS and len(row) <= max_length for row in rows)


def test_no_texts_give_no_tokens():
    token, offsets = TOKENIZER([])
    assert (token.shape, token.dtype, offsets.tolist()) == ((0,), torch.int32, [0])


def test_a_literal_endoftext_is_eos():
    assert ids(["a<|endoftext|>b"])[0].count(EOS) == 2


def test_a_lone_surrogate_does_not_end_the_run():
    assert ids(["a \ud83d mug"]) == ids(["a ? mug"])


def test_counts_the_texts_that_it_cuts():
    texts = ["a mug", "mug " * 75, "mug " * 76]
    assert TOKENIZER.truncated(texts) == 1
    assert TOKENIZER.truncated(texts, LONG_LENGTH) == 0


def test_a_pickled_tokenizer_is_small_and_gives_the_same_ids():
    pickled = pickle.dumps(TOKENIZER)
    assert len(pickled) < 500
    again = pickle.loads(pickled)
    assert torch.equal(again(NASTY).token, TOKENIZER(NASTY).token)


def test_decodes_to_the_normalised_text():
    assert TOKENIZER.decode(TOKENIZER(["A  Red mug!"]).token) == "a red mug !"


def test_merges_of_a_hugging_face_folder_are_read(tmp_path):
    lines = [" ".join(pair) for pair in module.read_merges(module.installed_merges())]
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *lines]) + "\n", encoding="utf-8")
    assert torch.equal(Tokenizer(tmp_path / "merges.txt")(NASTY).token, TOKENIZER(NASTY).token)


def test_a_file_without_merges_is_refused(tmp_path):
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    with pytest.raises(ValueError, match=r"merges\.txt must hold a version line and 48894 merges"):
        Tokenizer(tmp_path / "merges.txt")(["a"])


def test_missing_merges_say_what_to_install(monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install open_clip_torch"):
        module.installed_merges()


@pytest.mark.parametrize(("texts", "got"), [("a mug", "one string"), (["a", 3], "one of type int")])
def test_error_names_the_argument(texts, got):
    with pytest.raises(ValueError, match=f"texts must be a list of strings, got {got}"):
        TOKENIZER(texts)


def test_open_clip_is_not_imported():
    code = "import sys; from fgclip_fast.inputs.tokenizer import Tokenizer; Tokenizer()(['a']); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"open_clip", "transformers", "torchvision", "timm"} & set(loaded)
