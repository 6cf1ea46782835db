"""The text tower over a prefix tree, forward and backward, against three that pad; at B/16's width, two of its layers.

pytest benchmarks/bench_text_tower.py --benchmark-only -s                  # groups of 1 + 10 texts, three kinds
pytest benchmarks/bench_text_tower.py --benchmark-only -s -m slow          # all twelve layers

padded: every text to 77 or 248 tokens, scaled_dot_product_attention; released: the same with the released eager
attention of transformers; buckets: texts sorted by length, each bucket padded to its longest (open_clip's
--length-bucketing). Memory is the peak of forward and backward.
"""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import transformers
from torch import Tensor, nn

from benchmarks.measure import DEVICE, by_turns, peak_bytes
from benchmarks.texts import KINDS, Kind, texts_of
from fgclip_fast.config.model import Model, Text
from fgclip_fast.inputs.texts import Texts
from fgclip_fast.model.attention import causal
from fgclip_fast.model.text import TextTower
from fgclip_fast.ops import prefix_tree
from fgclip_fast.ops.tree import EOS, LONG_LENGTH, SHORT_LENGTH

LONGS = 8


def tower_of(layers: int) -> TextTower:
    torch.manual_seed(0)
    tower = TextTower(Model(text=Text(layers=layers)))
    for parameter in tower.parameters():
        nn.init.normal_(parameter, std=0.02)
    return tower.to(DEVICE)


def packed(tower: TextTower, texts: Texts) -> Tensor:
    return torch.cat(tower(texts))


def padded(tower: TextTower, texts: Texts) -> Tensor:
    """As a usual CLIP: all tokens through all blocks."""
    rows = zip(_padded(texts), _tables(tower), strict=True)
    return torch.cat([_run(tower, ids, table) for ids, table in rows if len(ids)])


def buckets(tower: TextTower, texts: Texts, count: int = 8) -> Tensor:
    """Short texts in ``count`` buckets by length, long ones in another."""
    short, long = _padded(texts)
    length = texts.offsets.diff()
    order = length[: texts.shorts].sort(stable=True).indices
    parts = order.chunk(count)
    tables = _tables(tower)
    features = [_run(tower, short[part, : int(length[part].max())], tables[0]) for part in parts]
    in_order = torch.cat(features).index_select(0, torch.cat(parts).argsort().to(DEVICE))
    if len(long) == 0:
        return in_order
    return torch.cat([in_order, _run(tower, long[:, : int(length[texts.shorts :].max())], tables[1])])


def _padded(texts: Texts) -> list[Tensor]:
    """ids [N, 77] and [N, 248]."""
    ids = []
    for rows, size in (
        (range(texts.shorts), SHORT_LENGTH),
        (range(texts.shorts, len(texts.offsets) - 1), LONG_LENGTH),
    ):
        filled = torch.full((len(rows), size), EOS, dtype=torch.int32)
        for n, r in enumerate(rows):
            row = texts.token[texts.offsets[r] : texts.offsets[r + 1]]
            filled[n, : len(row)] = row
        ids.append(filled.to(DEVICE))
    return ids


def _tables(tower: TextTower) -> tuple[Tensor, Tensor]:
    return tower.embeddings.position_embedding.weight, tower.embeddings.long_positions()


def _run(tower: TextTower, ids: Tensor, table: Tensor) -> Tensor:
    hidden = tower.embeddings(ids, torch.arange(ids.shape[1], device=DEVICE), table)
    stream = tower.encoder.run(tower.encoder.blocks()[-1], tower.encoder(hidden, causal), causal)
    hidden = stream.normed(tower.final_layer_norm)
    return _at_eos(hidden, ids)


def _at_eos(hidden: Tensor, ids: Tensor) -> Tensor:
    return hidden[torch.arange(len(ids), device=DEVICE), (ids == EOS).int().argmax(1)]


class Released(nn.Module):
    """transformers' encoder with eager attention and an explicit mask, holding the weights of ``tower``."""

    def __init__(self, tower: TextTower, layers: int) -> None:
        super().__init__()
        config = transformers.CLIPTextConfig(num_hidden_layers=layers, vocab_size=49408, attn_implementation="eager")
        self.tower = tower
        self.encoder = transformers.CLIPTextModel(config).encoder.to(DEVICE)
        self.encoder.load_state_dict(tower.encoder.state_dict())

    def forward(self, texts: Texts) -> Tensor:
        features = []
        for ids, table in zip(_padded(texts), _tables(self.tower), strict=True):
            N, L = ids.shape
            if N > 0:
                hidden = self.tower.embeddings(ids, torch.arange(L, device=DEVICE), table)
                mask = torch.full((L, L), torch.finfo(torch.float32).min, device=DEVICE).triu(1).expand(N, 1, L, L)
                hidden = self.encoder(inputs_embeds=hidden, attention_mask=mask).last_hidden_state
                features.append(_at_eos(self.tower.final_layer_norm(hidden), ids))
        return torch.cat(features)


def with_gradients(run: Callable[[], Tensor], module: nn.Module) -> tuple[Tensor, Tensor]:
    """Features, and the gradient of the first block's first matrix."""
    module.zero_grad(set_to_none=True)
    features = run()
    features.backward(torch.ones_like(features))
    return features.detach(), module.encoder.layers[0].mlp.fc1.weight.grad  # type: ignore[union-attr]


def token_ratios(texts: Texts, kind: Kind) -> tuple[float, float]:
    """padded / unpadded and unpadded / tree, of the groups alone."""
    token, offsets = texts.token[: texts.offsets[texts.shorts]], texts.offsets[: texts.shorts + 1]
    tree = prefix_tree(token, offsets, texts.shorts, multiple=1)
    padding, prefixes = SHORT_LENGTH * texts.shorts / len(token), len(token) / len(tree.token)
    assert abs(padding - kind.padding) <= 0.4, f"padded / unpadded is {padding:.2f}, must be {kind.padding} ± 0.4"
    assert abs(prefixes - kind.prefixes) <= 0.15, f"unpadded / tree is {prefixes:.2f}, must be {kind.prefixes} ± 0.15"
    return padding, prefixes


@pytest.mark.parametrize("layers", [2, pytest.param(12, marks=pytest.mark.slow)])
@pytest.mark.parametrize("longs", [0, LONGS], ids=["short", "long"])
@pytest.mark.parametrize("name", KINDS)
def test_text_tower(benchmark, name, longs, layers):
    texts = texts_of(KINDS[name], longs)
    padding, prefixes = token_ratios(texts, KINDS[name])
    on_device = texts.to(DEVICE)
    tower = tower_of(layers)
    released = Released(tower, layers)
    ours = partial(with_gradients, lambda: packed(tower, on_device), tower)
    peers = {
        "padded": partial(with_gradients, lambda: padded(tower, texts), tower),
        "released": partial(with_gradients, lambda: released(texts), released),
        "buckets": partial(with_gradients, lambda: buckets(tower, texts), tower),
    }
    own_peak, mine = peak_bytes(ours)
    peaks: dict[str, int] = {}
    for peer, run in peers.items():  # a fast wrong answer has no speed
        peaks[peer], theirs = peak_bytes(run)
        for x, y in zip(mine, theirs, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5 * float(y.abs().max()))
    ratios = by_turns(benchmark, ours, peers, rounds=2)  # agreement has warmed them up
    if benchmark.enabled:
        tokens = SHORT_LENGTH * texts.shorts + LONG_LENGTH * longs
        real = len(prefix_tree(*texts[:3], multiple=1).token)
        memory = {peer: peak / own_peak for peer, peak in peaks.items()}
        benchmark.extra_info.update(
            peer=f"torch {torch.__version__}, transformers {transformers.__version__}", device=DEVICE,
            time=ratios, memory=memory, padding=padding, prefixes=prefixes, tokens=tokens / real,
        )  # fmt: skip
        print(
            f"\n{name}, {longs} long captions, {layers} layers on {DEVICE}: {tokens} padded tokens, {len(texts.token)} "
            f"without padding, {real} in the tree; of the groups {padding:.2f} x by padding, {prefixes:.2f} x by "
            f"prefixes; time {_shown(ratios)}; memory {_shown(memory)}; "
            f"padded time / token ratio {ratios['padded'] / (tokens / real):.2f}"
        )
        if name == "hard" and DEVICE == "cpu":
            assert ratios["padded"] >= (0.8 if longs else 0.95) * tokens / real


def _shown(ratios: dict[str, float]) -> str:
    return ", ".join(f"{value:.1f} x {peer}" for peer, value in ratios.items())
