"""Workers that die are started anew, with the same batches; signals for the command do not end them."""

import os
import signal
from pathlib import Path

import pytest
import torch

from fgclip_fast.config import Data
from fgclip_fast.data.loader import Loader
from fgclip_fast.data.workers import DEATHS, starting_anew
from fgclip_fast.inputs.tokenizer import Tokenizer


def take(batches, count):
    return [[batch.image for batch in next(batches)] for _ in range(count)]


def test_a_killed_worker_is_started_anew_with_the_same_samples_and_signals_end_none(shards, caplog):
    def loader(workers):
        data = Data(train=str(shards / "train-*.tar"), workers=workers)
        return Loader(data, image_size=16, batch_size=4, seed=0, tokenizer=Tokenizer())

    expected = take(loader(0).batches(), 9)
    killed = loader(1)
    batches = killed.batches()
    found = take(batches, 2)
    (worker,) = killed._worker_batches._iterator._workers
    parent = int(Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()[1])  # the fork server
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT):
        os.kill(worker.pid, number)
        os.kill(parent, number)
    found += take(batches, 2)
    assert worker.is_alive() and killed._worker_batches._iterator._workers == [worker]
    os.kill(worker.pid, signal.SIGKILL)
    found += take(batches, 5)
    for these, those in zip(found, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(these, those, strict=True))
    assert "the workers start anew after step" in caplog.text and "at hand: train-0000" in caplog.text


DEATH = RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly")


def dying(after, at, error=DEATH):
    """The batches after a step, by a worker that dies of batch ``at``."""
    yield from range(after, at)
    raise error


# After a kill a batch can be on its way whose memory the worker no longer hands over.
@pytest.mark.parametrize("error", [DEATH, ConnectionResetError(104, "reset"), EOFError()], ids=repr)
def test_a_worker_that_dies_of_one_sample_again_and_again_is_an_error_that_names_it(caplog, error):
    made = []
    batches = starting_anew(
        dying(2, 5, error), lambda after: dying(after, 5, error), 2, lambda: "at hand: a.tar, sample 17"
    )
    with pytest.raises(OSError, match=r"data: a worker died .*at hand: a.tar, sample 17; it was started anew 3 times"):
        made.extend(batches)
    assert made == [2, 3, 4] and caplog.text.count("start anew after step 5") == DEATHS


def test_an_error_that_a_worker_raised_is_no_death():
    error = ConnectionError("Caught ConnectionError in DataLoader worker process 0.")
    with pytest.raises(ConnectionError, match="Caught"):
        list(starting_anew(dying(0, 1, error), lambda after: dying(after, 5), 0, lambda: ""))


def test_deaths_that_lie_far_apart_are_forgiven_and_other_errors_are_raised():
    batches = starting_anew(dying(0, 1000), lambda after: dying(after, after + 1000), 0, lambda: "")
    assert [next(batches) for _ in range(9000)] == list(range(9000))

    def broken(_):
        raise RuntimeError("of another kind")
        yield

    with pytest.raises(RuntimeError, match="of another kind"):
        next(starting_anew(broken(0), broken, 0, lambda: ""))
