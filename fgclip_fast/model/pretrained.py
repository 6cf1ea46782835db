"""Load a model with given weights: of FG-CLIP, of a CLIP that becomes one, or of a run of this package."""

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fgclip_fast.config.model import Model
from fgclip_fast.inputs.tokenizer import Tokenizer
from fgclip_fast.model import hub, weights
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.model.positions import long_table, stretch
from fgclip_fast.ops.tree import LONG_LENGTH, SHORT_LENGTH

TABLES = "text_model.embeddings.position_embedding"
# Tensors of FG-CLIP that plain CLIP lacks, and the tensor of CLIP that each is initialised from.
COPIES = {
    "text_filip_projection.weight": "text_projection.weight",
    "logit_scale_finegraind": "logit_scale",
    "logit_scale_hardneg": "logit_scale",
}


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Of a block, what enters a product as it is. LayerNorms, the biases that are added in fp32, tables and projections
# stay fp32.
PRODUCTS = re.compile(r"\.layers\.\d+\.(self_attn\.([qkv]_proj\.(weight|bias)|out_proj\.weight)|mlp\.fc[12]\.weight)$")


def load(
    path: str | Path,
    like: Model | None = None,
    *,
    revision: str | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    trust_file: bool = False,
) -> FGCLIP:
    """A model with the weights of a folder, or of a name on the Hugging Face hub.

    A CLIP becomes an FG-CLIP as in the released training code: its position table is stretched to 248 rows for the
    long path, and its text projection and logit scale are copied to the long path's and the finer terms'. Whether it
    is one is decided by the weights: an FG-CLIP has tables of its own for the long path.

    Args:
        path: a folder in the released layout (``config.json`` and ``model.safetensors``, one file or several), a
            CLIP in Hugging Face's, or a run or checkpoint of this package (of a run, the newest checkpoint); or a CLIP
            of OpenAI's (a ``.pt`` file) or open_clip's (a file, or a folder with ``open_clip_config.json``). A
            ``merges.txt`` beside the weights rules the tokenizer. Or ``organisation/model``, fetched by
            huggingface_hub: safetensors, JSON and merges only.
        like: how to run the model: packing, attention, residual, compile, recompute; its geometry is
            ignored.
        revision: of a hub's name: a branch, tag or commit.
        device: where the weights go; None: the CPU.
        dtype: of the products inside the blocks, "float32" (also None), "bfloat16" or "float16": their weights are
            converted once. LayerNorms, the residual stream, the projections and the embeddings stay fp32. Below fp32
            it is meant for encoding; training takes fp32 weights and autocast.
        trust_file: run what a pickle or a TorchScript archive asks for, if it cannot be read otherwise. OpenAI's
            ``.pt`` files are such archives.

    Raises:
        FileNotFoundError: the folder, its config, its weights or its checkpoint are missing, and no hub has it.
        ValueError: weights are missing, unknown or of another shape, and the message names the first; or the file must
            be trusted to be read. Or a tensor of the model is not bit for bit the file's.
    """
    products = product_dtype(dtype)
    where = find(path, revision)
    config, state = weights.read(where, like, trust_file)
    with without_values():
        model = FGCLIP(config)
    state = complete(state)
    _check(where, state, model.state_dict())
    state = converted(state, products)
    model.load_state_dict(state, assign=True)
    model.to(device or "cpu")
    if model.device.type == "cpu" and products == torch.bfloat16:
        _warn_of_slow_bf16()
    _compare(where, state, model.state_dict())
    if (where / "merges.txt").is_file():
        model.tokenizer = Tokenizer(where / "merges.txt")
    return model


def _warn_of_slow_bf16() -> None:
    has = torch.cpu.get_capabilities()
    if not (has.get("amx_bf16") or has.get("avx512_bf16") or has.get("architecture") == "aarch64"):
        warnings.warn(
            "load: this CPU has no instructions for bf16, so dtype bfloat16 is slower here than float32", stacklevel=3
        )


@contextmanager
def without_values() -> Iterator[None]:
    """A context in which models are made of tensors that have shapes alone, to be replaced by those of a file."""
    with torch.device("meta"), _Unfilled():
        yield


class _Unfilled(TorchFunctionMode):
    """Leaves new tensors as they are: to fill one that has no values, torch imports its compiler, for two seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        return given["tensor"] if func is nn.init.normal_ else func(*args, **given)


def find(path: str | Path, revision: str | None = None) -> Path:
    """Find the folder or file of weights that a path or a name on a hub means, as :func:`load` does.

    Raises:
        FileNotFoundError: neither exists.
        ValueError: ``revision`` is given for a path.
    """
    if hub.looks_like_name(path):
        return weights.find(hub.fetch(str(path), revision))
    if revision is not None:
        raise ValueError(f"load: revision is for a name on a hub, got {revision!r} for {path}")
    return weights.find(Path(path))


def product_dtype(wanted: str | torch.dtype | None) -> torch.dtype:
    """The dtype of products that a caller of :func:`load` names; None is fp32.

    Raises:
        ValueError: it is not one of :data:`DTYPES`.
    """
    found = DTYPES.get(str(wanted or "float32").removeprefix("torch."))
    if found is None:
        raise ValueError(f"load: dtype must be one of {', '.join(DTYPES)}, got {wanted!r}")
    return found


def converted(state: Mapping[str, Tensor], products: torch.dtype) -> dict[str, Tensor]:
    """The weights of a model, those of the blocks' products in another dtype."""
    return {name: value.to(products) if PRODUCTS.search(name) else value for name, value in state.items()}


def complete(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of an FG-CLIP from those of a CLIP (arXiv 2505.05071, stage 1); those of an FG-CLIP as they are.

    A Long-CLIP (arXiv 2403.15378) has the two long tables of an FG-CLIP and no short one: that becomes the first 77
    rows of the long path's.
    """
    if f"{TABLES}.weight" not in state:
        return state
    table = state[f"{TABLES}.weight"]
    copies = {target: state[source].clone() for target, source in COPIES.items() if source in state}
    if len(table) == LONG_LENGTH and f"{TABLES}_res.weight" in state:
        short = long_table(table, state[f"{TABLES}_res.weight"])[:SHORT_LENGTH].clone()
        return {**state, f"{TABLES}_ori.weight": table, f"{TABLES}.weight": short, **copies}
    if f"{TABLES}_res.weight" in state:
        return state
    added = {f"{TABLES}_{name}.weight": stretch(table) for name in ("ori", "res") if len(table) == SHORT_LENGTH}
    return {**state, **added, **copies}


def _check(folder: Path, state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    missing, unknown = [n for n in expected if n not in state], [n for n in state if n not in expected]
    if missing:
        raise ValueError(f"load: {folder} lacks {len(missing)} of {len(expected)} tensors, the first: {missing[0]}")
    if unknown:
        raise ValueError(f"load: {folder} has {len(unknown)} tensors that are not FG-CLIP's, the first: {unknown[0]}")
    for name, value in expected.items():
        if state[name].shape != value.shape:
            raise ValueError(f"load: {folder}: {name} is {list(state[name].shape)}, must be {list(value.shape)}")


def _compare(folder: Path, state: dict[str, Tensor], loaded: dict[str, Tensor]) -> None:
    """Compare every tensor of a model, on its device, with what was read: bits, since a NaN is equal to none."""
    for name, value in loaded.items():
        bits = (x.cpu().contiguous().flatten().view(torch.uint8) for x in (state[name], value))
        if value.dtype != state[name].dtype or not torch.equal(*bits):
            raise ValueError(f"load: {name} of the model differs from that of {folder}")
