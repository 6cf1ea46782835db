"""FG-OVD in twenty lines: which of a right text and near-identical wrong ones fits a box, by file.

``python examples/fg_ovd.py WEIGHTS FGOVD COCO``: a folder of weights or a run, the folder of FG-OVD's .jsonl files,
the folder that holds ``val2017/`` and ``train2017/``. Without arguments: a small random model on rendered scenes.
"""

import sys
import tempfile
from pathlib import Path

import fgclip_fast
from fgclip_fast.evaluation import fg_ovd
from fgclip_fast.presets import PRESETS
from fgclip_fast.scenes.write import write_scenes


def main(model: fgclip_fast.FGCLIP, questions: Path, images: Path) -> dict[str, float]:
    """Print and return the top-1 accuracy for each file of questions."""
    model.eval()
    accuracy = {}
    for file in sorted(questions.glob("*.jsonl")):
        figures = fg_ovd.evaluate(model, file, images).values
        low, high = figures["interval"]
        accuracy[file.stem] = figures["top1"]
        print(f"{file.stem:12} {figures['top1']:.1%} ({low:.1%} to {high:.1%}) of {figures['questions']}", end="; ")
        print(f"chance {figures['chance']:.1%}; not asked: {figures['skipped'] or 'none'}")
    return accuracy


if __name__ == "__main__":
    if len(sys.argv) == 4:
        main(fgclip_fast.load(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            write_scenes(Path(folder), train=0, val=20)
            levels = Path(folder) / "levels"
            main(fgclip_fast.FGCLIP(PRESETS["tiny"].model), levels / "unseen", levels / "images")
