"""One stage-2 step of training, all of it, against the step as released (released_step.py): equal results, then time.

pytest benchmarks/bench_train_step.py --benchmark-only -s                    # B/16: the bar's workload, FineHARD's mean
pytest benchmarks/bench_train_step.py --benchmark-only -s -m slow            # L/14-336
"""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.measure import by_turns
from benchmarks.released_inputs import Inputs
from benchmarks.released_step import EOS, Released
from benchmarks.workload import stage2
from fgclip_fast.config import Loss, Optim
from fgclip_fast.config.model import Model
from fgclip_fast.inputs.batch import Batch
from fgclip_fast.model.config_json import write
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.ops import prefix_tree
from fgclip_fast.presets import B16, L14
from fgclip_fast.process import heap
from fgclip_fast.training.objective import objective
from fgclip_fast.training.optim import adamw, update

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
BAR = 4.0  # times faster than the released step, at least, for four regions with ten negatives each
ROUNDS = 3
TOLERANCE = 1e-4  # max|d| against max|g| of each gradient, and of each term of the loss


class Clock:
    """CPU seconds of each part of a step, all threads together: they tell the same on a busy machine."""

    def __init__(self) -> None:
        self.parts: Counter[str] = Counter()
        self.last = 0.0

    def watch(self, part: str, owner: nn.Module, method: str) -> None:
        """Counts every call of ``owner.method`` as ``part``."""
        run = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            self.lap("regions and losses")
            result = run(*args, **kwargs)
            self.lap(part)
            return result

        setattr(owner, method, timed)

    def lap(self, part: str) -> None:
        now = process_time()
        self.parts[part] += now - self.last
        self.last = now


class Ours:
    """Our step, on weights of its own."""

    def __init__(self, model: Model, batch: Batch, bf16: bool = False) -> None:
        torch.manual_seed(0)
        self.model, self.batch, self.clock, self.bf16 = FGCLIP(model), batch, Clock(), bf16
        self.optimizer = adamw(self.model, Optim())
        self.clock.watch("vision forward", self.model.vision_model, "forward")
        self.clock.watch("text forward", self.model.text_model, "forward")

    def losses(self) -> dict[str, Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            embeddings = self.model(self.batch)
        return objective(embeddings, Loss())._asdict()

    def step(self) -> None:
        heap.keep_freed_memory("cpu")  # as the training command does
        _one_step(self.clock, self.losses, lambda: update(self.model, self.optimizer, Optim()))


class Theirs:
    """The released step on the same weights; the optimizer is the one that its trainer makes, plain AdamW."""

    def __init__(
        self, model: Model, inputs: Inputs, weights: dict[str, Tensor], folder: Path, bf16: bool = False
    ) -> None:
        self.model, self.inputs, self.clock, self.bf16 = released_model(model, folder), inputs, Clock(), bf16
        self.model.load_state_dict(weights)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-6, weight_decay=0.001)
        self.clock.watch("vision forward", self.model, "encode_image")
        self.clock.watch("vision forward", self.model, "dense")
        self.clock.watch("text forward", self.model, "encode_text")

    def losses(self) -> dict[str, Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            return self.model(self.inputs)

    def step(self) -> None:
        heap.return_large_tensors()
        _one_step(self.clock, self.losses, self._update)

    def _update(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()


def _one_step(clock: Clock, losses: Callable[[], dict[str, Tensor]], update: Callable[[], Any]) -> None:
    clock.last = process_time()
    total = losses()["total"]
    clock.lap("regions and losses")
    total.backward()
    clock.lap("backward")
    update()
    clock.lap("optimizer")


def released_model(model: Model, folder: Path) -> Released:
    write(folder / "config.json", model)
    stored = json.loads((folder / "config.json").read_text())
    stored["text_config"]["eos_token_id"] = EOS
    return Released(transformers.CLIPConfig(**stored, attn_implementation="eager"))


WORKLOADS = {  # regions of each of four images, and how many of them have negatives
    "four regions, all hard": ([4, 4, 4, 4], [4, 4, 4, 4]),
    "FineHARD's mean": ([4, 3, 3, 3], [1, 1, 1, 0]),
}
CASES = [
    pytest.param("b16", "four regions, all hard", id="b16-hard"),
    pytest.param("b16", "FineHARD's mean", id="b16-finehard"),
    pytest.param("l14", "FineHARD's mean", id="l14-finehard", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("size", "workload"), CASES)
def test_train_step(benchmark, size, workload, tmp_path):
    model = {"b16": B16, "l14": L14}[size]
    batch, inputs = stage2(model, *WORKLOADS[workload])
    ours = Ours(model, batch)
    theirs = Theirs(model, inputs, ours.model.state_dict(), tmp_path)
    _agree(ours, theirs)
    _settle(ours, theirs)
    ratios = by_turns(benchmark, ours.step, {"released": theirs.step}, ROUNDS)
    if benchmark.enabled:
        ratio, took = ratios["released"], benchmark.stats["median"]
        benchmark.extra_info.update(peer=f"released step, transformers {transformers.__version__}", ratio=ratio)
        print(f"\n{size}, {workload}: {_texts(batch, inputs)}")
        _print_parts(ours.clock.parts, theirs.clock.parts)
        print(f"  {'wall time':18} {ratio * took:7.2f} s -> {took:6.2f} s, {ratio:6.2f} x")
        assert workload != "four regions, all hard" or ratio >= BAR


@pytest.mark.parametrize(("size", "workload"), CASES)
def test_train_step_in_bf16(benchmark, size, workload, tmp_path):
    """Products in bf16, which pay on a CPU that has instructions for them, against the released step in both dtypes."""
    model = {"b16": B16, "l14": L14}[size]
    batch, inputs = stage2(model, *WORKLOADS[workload])
    ours = Ours(model, batch, bf16=True)
    peers = {
        name: Theirs(model, inputs, ours.model.state_dict(), tmp_path, name == "bf16") for name in ("fp32", "bf16")
    }
    _agree_in_bf16(ours, peers["fp32"], peers["bf16"])
    _settle(ours, *peers.values())
    ratios = by_turns(benchmark, ours.step, {name: peer.step for name, peer in peers.items()}, ROUNDS)
    if benchmark.enabled:
        took = benchmark.stats["median"]
        benchmark.extra_info.update(peer=f"released step, transformers {transformers.__version__}", **ratios)
        print(f"\n{size}, {workload}, ours in bf16: {took:.2f} s")
        for name, ratio in ratios.items():
            print(f"  released in {name:6} {ratio * took:7.2f} s, {ratio:6.2f} x")


def _settle(ours: Ours, *peers: Theirs) -> None:
    """Take the first steps: they make Adam's state, and our heap has all the memory that it needs after four."""
    for side in (*peers, *[ours] * 4):
        side.step()
    for side in (ours, *peers):
        side.clock.parts.clear()


def _agree_in_bf16(ours: Ours, exact: Theirs, peer: Theirs) -> None:
    """Our losses and gradients in bf16 are as near to those in fp32 as the released step's in bf16."""
    ours_losses, truth, peer_losses = (_with_gradients(side) for side in (ours, exact, peer))
    for name, value in truth.items():
        mine, theirs = (abs(losses[name] - value) for losses in (ours_losses, peer_losses))
        assert mine <= 2 * theirs + 5e-3 * abs(value), name
    truths = {name: p.grad for name, p in exact.model.named_parameters()}
    errors = [
        sum((p.grad - truths[name]).square().sum() for name, p in side.model.named_parameters()).sqrt()
        for side in (ours, peer)
    ]
    assert errors[0] <= 1.25 * errors[1], errors
    for side in (ours, exact, peer):
        side.optimizer.zero_grad()
        side.clock.parts.clear()


def _with_gradients(side: Ours | Theirs) -> dict[str, float]:
    """The losses of one side, whose gradients are then there; what it saved for them is freed before the next side."""
    losses = side.losses()
    losses["total"].backward()
    return {name: loss.item() for name, loss in losses.items()}


def _agree(ours: Ours, theirs: Theirs) -> None:
    """Losses and gradients are equal, each tensor; key biases, with no gradient in theory, by that of their weights."""
    mine, peer = _with_gradients(ours), _with_gradients(theirs)
    for name, value in peer.items():
        assert mine[name] == pytest.approx(value, rel=TOLERANCE, abs=0), name
    expected = {name: p.grad for name, p in theirs.model.named_parameters()}
    for name, parameter in ours.model.named_parameters():
        largest = expected[name.replace("k_proj.bias", "k_proj.weight")].abs().max()
        assert (parameter.grad - expected[name]).abs().max() <= TOLERANCE * largest, name
    for side in (ours, theirs):
        side.optimizer.zero_grad()
        side.clock.parts.clear()


def _texts(batch: Batch, inputs: Inputs) -> str:
    padded = sum(x.numel() for x in inputs if isinstance(x, Tensor) and not x.is_floating_point())
    lengths = (inputs.hard_texts == EOS).int().argmax(1) + 1
    alone = torch.cat([row[:length] for row, length in zip(inputs.hard_texts, lengths.tolist(), strict=True)]).int()
    tree = prefix_tree(alone, torch.cat([lengths.new_zeros(1), lengths]).cumsum(0), len(lengths))
    factors = 77 * len(lengths) / len(alone), len(alone) / len(tree.token)
    return (
        f"text tokens {padded} padded, {len(batch.texts.token)} unpadded, {batch.texts.processed_tokens} in the tree; "
        f"hard texts padded/unpadded {factors[0]:.2f}, unpadded/tree {factors[1]:.2f}"
    )


def _print_parts(ours: Counter[str], theirs: Counter[str]) -> None:
    """CPU seconds of each part and of the whole, of one step."""
    for part, seconds in [*theirs.items(), ("CPU time", theirs.total())]:
        mine = ours.total() if part == "CPU time" else ours[part]
        print(f"  {part:18} {seconds / ROUNDS:7.2f} s -> {mine / ROUNDS:6.2f} s, {seconds / mine:6.2f} x")


def test_the_peer_is_the_released_step():
    """It computes what the released modules did (tests/golden/README.md): else no ratio to it means anything."""
    golden, story = load_file(GOLDEN / "golden.safetensors"), json.loads((GOLDEN / "golden.json").read_text())
    stored = story["config"]
    stored["text_config"]["eos_token_id"] = EOS
    model = Released(transformers.CLIPConfig(**stored, attn_implementation="eager"))
    rows, token = golden["weights_token_rows"], "text_model.embeddings.token_embedding.weight"
    weights = {name.removeprefix("weights/"): x for name, x in golden.items() if name.startswith("weights/")}
    weights[token] = torch.zeros(49408, 32).index_copy(0, rows, weights[token])
    model.load_state_dict(weights)
    texts = (golden[f"inputs/{name}"].long() for name in ("text_short", "text_long", "box_texts", "hard_texts"))
    boxes = golden["inputs/boxes"], golden["inputs/hard_boxes"]
    losses = model(Inputs(golden["inputs/image"], *texts, *boxes, story["box_nums"], story["hard_nums"]))
    torch.testing.assert_close(losses["total"], golden["outputs/loss"].view(()), rtol=1e-5, atol=0)
    losses["total"].backward()
    for name, parameter in model.named_parameters():
        expected, grad = golden[f"grads/{name}"], parameter.grad[rows] if name == token else parameter.grad
        atol = 1e-6 if "k_proj.bias" in name else 1e-5 * expected.abs().max().item()
        torch.testing.assert_close(grad, expected, rtol=0, atol=atol)
