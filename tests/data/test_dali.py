"""DALI's graph with its CPU operators: near PIL's pixels, and one bad file does not end the run."""

import logging

import pytest
import torch

from fgclip_fast.config import Data
from fgclip_fast.data import causes, dali, loader as loader_module
from fgclip_fast.data.dali import Dali
from fgclip_fast.data.decode import decode, encoded_or_decoded
from fgclip_fast.data.loader import Loader
from fgclip_fast.data.workers import data_loader
from fgclip_fast.inputs.batch import replace_leaves
from fgclip_fast.inputs.tokenizer import Tokenizer

pytestmark = pytest.mark.skipif(not dali.available(), reason="DALI is not installed")
TOKENIZER = Tokenizer()
SIZE = 96


def load(path, decoder, workers=0, device="cpu"):
    data = Data(train=str(path), decoder=decoder, workers=workers, box_margin=2.0)
    return Loader(data, image_size=SIZE, batch_size=4, micro_batch_size=3, seed=0, tokenizer=TOKENIZER, device=device)


def as_tensor(file):
    """The bytes of a JPEG that is left to DALI."""
    assert encoded_or_decoded(file, SIZE) is file
    return torch.frombuffer(bytearray(file), dtype=torch.uint8)


def tensors(value):
    found = []
    replace_leaves(value, torch.Tensor, found.append)
    return found


def without_tables(file):
    """A JPEG without quantization tables: its header and end pass every quick check, yet no decoder can read it."""
    while (at := file.find(b"\xff\xdb")) >= 0:
        file = file[:at] + file[at + 2 + int.from_bytes(file[at + 2 : at + 4], "big") :]
    return file


@pytest.fixture(scope="module")
def mixed(tmp_path_factory, encoded, record, write_shard):
    """A shard of JPEGs, files that only Pillow reads, and one that nothing reads."""
    files = [encoded(200, 120, seed=number) for number in range(9)]
    files += [encoded(format="PNG"), encoded(mode="CMYK"), without_tables(encoded())]
    folder = tmp_path_factory.mktemp("mixed")
    write_shard(folder / "a.tar", [(file, record(number)) for number, file in enumerate(files)])
    return folder


def test_pixels_are_near_those_of_the_cpu_path(encoded):
    files = [encoded(640, 480), encoded(64, 300), encoded(33, 31)]
    images = Dali(SIZE, 4, "cpu").decode([as_tensor(file) for file in files])
    for ours, file in zip(images, files, strict=True):
        apart = (ours.int() - decode(file, SIZE).int()).abs()
        assert apart.float().mean() < 0.3 and apart.max() <= 8


def test_batches_of_any_size_up_to_the_largest_are_decoded(encoded):
    ours = Dali(SIZE, 4, "cpu")
    file = as_tensor(encoded())
    batches = [ours.decode([file] * n) for n in (4, 0, 1, 3)]
    assert [batch.shape for batch in batches] == [(n, 3, SIZE, SIZE) for n in (4, 0, 1, 3)]


def test_a_file_that_cannot_be_decoded_spoils_its_batch_and_no_other(encoded, caplog):
    ours = Dali(SIZE, 4, "cpu")
    good, bad = as_tensor(encoded()), as_tensor(without_tables(encoded()))
    results = [ours.decode(files) for files in ([good], [good, bad], [good])]
    assert results[1] is None and torch.equal(results[0], results[2])
    assert "Failed to decode sample #1" in caplog.text


@pytest.mark.parametrize("workers", [0, 1])
def test_the_loader_hands_out_the_batches_of_the_cpu_path(mixed, caplog, workers):
    caplog.set_level(logging.CRITICAL)  # four epochs name the bad one each time
    peer, ours = load(mixed, "cpu"), load(mixed, "dali", workers)
    for steps, _ in zip(zip(peer.batches(), ours.batches(), strict=False), range(12), strict=False):
        for theirs, mine in zip(*steps, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(tensors(theirs[1:]), tensors(mine[1:]), strict=True))
            apart = (theirs.image.int() - mine.image.int()).abs()
            assert apart.float().mean() < 0.3 and apart.max() <= 8
    assert peer.counts == ours.counts and peer.counts[causes.CORRUPT_IMAGE] > 0


def test_the_model_s_device_decides_who_decodes(mixed, monkeypatch):
    built = []
    monkeypatch.setattr(
        loader_module, "Dali", lambda size, batch_size, device: built.append(device) or Dali(size, batch_size, "cpu")
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # a machine with a GPU
    monkeypatch.setattr(loader_module, "data_loader", lambda *args: data_loader(*args[:-1], pin_memory=False))
    assert load(mixed, "auto").decoder == "cpu" and load(mixed, "auto", device="cuda:1").decoder == "dali"
    for device in ("cpu", "cuda:1"):
        next(load(mixed, "dali", device=device).batches())
    assert built == [torch.device("cpu"), torch.device("cuda:1")]


def test_an_unusable_decoder_is_refused(mixed, monkeypatch):
    assert load(mixed, "cpu").decoder == "cpu" and load(mixed, "dali").decoder == "dali" and dali.available()
    monkeypatch.setattr(loader_module, "available", lambda: False)
    with pytest.raises(ValueError, match="needs DALI: pip install"):
        load(mixed, "dali")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_decodes_nearly_the_same(mixed):
    peer, ours = load(mixed, "cpu"), load(mixed, "dali", device="cuda")
    for theirs, mine in zip(next(peer.batches()), next(ours.batches()), strict=True):
        apart = (theirs.image.int() - mine.image.cpu().int()).abs()
        assert mine.image.is_cuda and apart.float().mean() < 0.5
