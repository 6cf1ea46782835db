"""Run in another environment, by its own interpreter: what its transformers makes of our folders, as safetensors.

Arguments: a saved model, its ``hf`` export, its ``vision-tower`` export, a folder of the released code or "", and the
file to write. This package is not imported.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoProcessor, AutoTokenizer, CLIPModel, CLIPVisionModel

TEXTS = ["A red  mug's 12", "two dogs on a sofa, looking at a cat", ""]
BOX = (0.1, 0.2, 0.8, 0.9)


def pixels(size: int) -> torch.Tensor:
    """Two images of noise, Tensor[2, 3, size, size]; the same in every environment."""
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def main(saved: str, hf: str, tower: str, code: str, output: str) -> None:
    """Compute embeddings in each way and write them."""
    size = json.loads((Path(saved) / "config.json").read_text())["vision_config"]["image_size"]
    tokenizer, processor = AutoTokenizer.from_pretrained(saved), AutoProcessor.from_pretrained(saved)
    ids, long = (
        torch.tensor(tokenizer(TEXTS, padding="max_length", truncation=True, max_length=length)["input_ids"])
        for length in (77, 248)
    )
    grey = Image.new("RGB", (40, 90), (200, 90, 10))
    found = {"ids": ids, "pixels": torch.as_tensor(processor(images=grey, return_tensors="pt")["pixel_values"])}
    clip, vision = CLIPModel.from_pretrained(hf).eval(), CLIPVisionModel.from_pretrained(tower).eval()
    image = pixels(size)
    found["hf_image"] = clip.visual_projection(clip.vision_model(pixel_values=image).pooler_output)
    found["hf_text"] = clip.text_projection(clip.text_model(input_ids=ids).pooler_output)
    found["tower"] = clip.visual_projection(vision(pixel_values=image).pooler_output)
    if code:
        found |= released(saved, code, image, ids, long)
    save_file({name: value.contiguous() for name, value in found.items()}, output)


def released(saved: str, code: str, image: torch.Tensor, ids: torch.Tensor, long: torch.Tensor) -> dict:
    """The same by the released code, from a copy of it beside the weights."""
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top) / "folder"
        shutil.copytree(saved, folder)
        for file in Path(code).glob("*.py"):
            shutil.copy(file, folder)
        config = json.loads((folder / "config.json").read_text())
        config["auto_map"] = {"AutoConfig": "fgclip.CLIPConfig", "AutoModelForCausalLM": "fgclip.FGCLIPModel"}
        (folder / "config.json").write_text(json.dumps(config))
        model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
    grid = config["vision_config"]["image_size"] // config["vision_config"]["patch_size"]
    return {
        "image": model.get_image_features(image),
        "short": model.get_text_features(ids, walk_short_pos=True),
        "long": model.get_text_features(long, walk_short_pos=False),
        "region": model.get_image_box_roi_features(image, box_info=[torch.tensor([BOX]) * grid] * 2),
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
