"""The files by which transformers' AutoTokenizer and AutoProcessor do to texts and images what the model expects."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from fgclip_fast.files.whole_file import write_whole
from fgclip_fast.inputs.image import MEAN, STD
from fgclip_fast.inputs.tokenizer import Tokenizer, installed_merges
from fgclip_fast.ops.tree import SHORT_LENGTH

_START, _END = "<|startoftext|>", "<|endoftext|>"
_SPECIAL = {"bos_token": _START, "eos_token": _END, "pad_token": _END, "unk_token": _END}
# transformers' number for bicubic, which is Pillow's.
_BICUBIC = 3


def write(folder: Path, tokenizer: Tokenizer, image_size: int) -> None:
    """Write the files of tokenizer and image processor into a folder, each one whole.

    Args:
        folder: exists.
        tokenizer: its vocabulary and merges are written.
        image_size: side of the square that images are squashed to, in pixels.

    Raises:
        FileNotFoundError: the file of the merges does not exist.
    """
    source = tokenizer.merges or installed_merges()
    settings = {name: json.dumps(content, indent=2) + "\n" for name, content in _settings(image_size).items()}
    for name, content in {**_tables(source, source.stat().st_mtime_ns), **settings}.items():
        write_whole(folder / name, content)


@lru_cache(maxsize=2)
def _tables(merges: Path, _changed: int) -> dict[str, str]:
    """The large files, by name; kept, since a run writes them with each checkpoint."""
    saved = Tokenizer(merges).saved()
    model = saved["model"]
    # A merge is one string here: tokenizers before 0.20 (transformers 4.41) read no pairs.
    model["merges"] = pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    return {
        "tokenizer.json": json.dumps(saved, ensure_ascii=False),
        "vocab.json": json.dumps(model["vocab"], ensure_ascii=False),
        "merges.txt": "\n".join(["#version: 0.2", *pairs, ""]),
    }


def _settings(image_size: int) -> dict[str, dict[str, Any]]:
    """The small files, by name."""
    side = {"height": image_size, "width": image_size}
    return {
        "special_tokens_map.json": _SPECIAL,
        "tokenizer_config.json": {
            **_SPECIAL,
            "add_prefix_space": False,
            "do_lower_case": True,
            "errors": "replace",
            "model_max_length": SHORT_LENGTH,
            "tokenizer_class": "CLIPTokenizer",
        },
        "preprocessor_config.json": {
            "image_processor_type": "CLIPImageProcessor",
            "processor_class": "CLIPProcessor",
            "do_convert_rgb": True,
            "do_resize": True,
            "size": side,
            "resample": _BICUBIC,
            "do_center_crop": False,
            "crop_size": side,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(MEAN),
            "image_std": list(STD),
        },
    }
