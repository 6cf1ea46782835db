"""Load a model with given weights: of FG-CLIP, of a CLIP that becomes one, or of a run of this package."""

from pathlib import Path

import torch
from torch import Tensor

from fgclip_fast.config import Model
from fgclip_fast.inputs.tokenizer import Tokenizer
from fgclip_fast.model import weights
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


def load(path: str | Path, like: Model | None = None) -> FGCLIP:
    """A model with the weights of a folder, on the CPU, in fp32.

    A CLIP becomes an FG-CLIP as in the released training code: its position table is stretched to 248 rows for the
    long path, and its text projection and logit scale are copied to the long path's and the finer terms'. Whether it
    is one is decided by the weights: an FG-CLIP has tables of its own for the long path.

    Args:
        path: a folder in the released layout (``config.json`` and ``model.safetensors``, one file or several), a
            CLIP in Hugging Face's, or a run or checkpoint of this package (of a run, the newest checkpoint); or a CLIP
            of OpenAI's (a ``.pt`` file) or open_clip's (a file, or a folder with ``open_clip_config.json``). A
            ``merges.txt`` beside the weights rules the tokenizer.
        like: how to run the model: packing, attention, residual, compile, activation_checkpointing; its geometry is
            ignored.

    Raises:
        FileNotFoundError: the folder, its config, its weights or its checkpoint are not there.
        ValueError: weights are missing, unknown or of another shape; the message names the first.
    """
    where = weights.find(Path(path))
    config, state = weights.read(where, like)
    with torch.device("meta"):
        model = FGCLIP(config)
    state = complete(state)
    _check(where, state, model.state_dict())
    model.load_state_dict(state, assign=True)
    if (where / "merges.txt").is_file():
        model.tokenizer = Tokenizer(where / "merges.txt")
    return model


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
