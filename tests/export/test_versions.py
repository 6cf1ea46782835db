"""Folders work in other versions of transformers, and the released code runs on them.

``FGCLIP_TRANSFORMERS=/a/bin/python:/b/bin/python`` names interpreters of environments, each with another version;
``FGCLIP_RELEASED_CODE=DIR`` a folder of the released ``fgclip.py`` and what it imports (fgclip/model/clip_strc of the
authors' branch v1.0), which is not part of this repository. Without them the environment of the tests is asked alone.
"""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

import fgclip_fast
from fgclip_fast.inputs.image import normalize

pytest.importorskip("transformers")
from tests.export.reads_folders import BOX, TEXTS, pixels

PYTHONS = os.environ.get("FGCLIP_TRANSFORMERS", sys.executable).split(":")
CODE = os.environ.get("FGCLIP_RELEASED_CODE", "")


@pytest.mark.slow
@pytest.mark.parametrize("python", PYTHONS)
def test_transformers_reads_the_folders(folder, exported, tmp_path, python):
    code = CODE if python != sys.executable else ""  # the released code was written for transformers 4
    words = [str(x) for x in (folder, exported("hf"), exported("vision-tower"), code, tmp_path / "found")]
    script = os.path.join(os.path.dirname(__file__), "reads_folders.py")
    done = subprocess.run(
        [python, script, *words], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""}
    )
    assert done.returncode == 0, done.stderr
    found, model = load_file(tmp_path / "found"), fgclip_fast.load(folder).eval()
    token, offsets = model.tokenizer(TEXTS)
    for row, own in zip(found["ids"], token.split(offsets.diff().tolist()), strict=True):
        assert row[: len(own)].tolist() == own.tolist() and set(row[len(own) :].tolist()) <= {49407}
    grey = torch.tensor([200, 90, 10], dtype=torch.uint8)[:, None, None].expand(1, 3, 32, 32)
    torch.testing.assert_close(found["pixels"], normalize(grey), atol=1e-5, rtol=0)
    with torch.no_grad():
        image = pixels(32)
        expected = {
            "hf_image": model.encode_image(image, normalize=False),
            "hf_text": model.encode_text(TEXTS, normalize=False),
            "long": model.encode_text(TEXTS, kind="long", normalize=False),
            "region": model.encode_regions(image, [[BOX]] * 2, "fraction", normalize=False),
        }
        expected |= {"image": expected["hf_image"], "tower": expected["hf_image"], "short": expected["hf_text"]}
    for name in expected.keys() & found.keys():
        torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=1e-4, msg=name)
    assert not code or {"image", "short", "long", "region"} <= found.keys()
