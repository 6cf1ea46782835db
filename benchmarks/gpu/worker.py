"""The process of one section: runs its cases in turn and appends a row for each to a file.

python -m benchmarks.gpu.worker MODULE ROWS [--rehearse]
"""

import gc
import importlib
import json
import sys
import traceback
from pathlib import Path
from time import perf_counter

import torch

from benchmarks.gpu import sizes
from benchmarks.gpu.case import Case, Figures, NotHereError
from fgclip_fast.files.whole_file import finite

OURS = ("fgclip_fast", "benchmarks", "tests", "kernels")


def work(module: str, rows: Path, rehearse: bool) -> None:
    """Run the cases of a section; a case that fails costs its own row."""
    chosen = sizes.of_a_rehearsal() if rehearse else sizes.of_a_card()
    with rows.open("a", buffering=1) as file:
        for case in importlib.import_module(module).cases(chosen):
            start = perf_counter()
            figures = _figures(case)
            print(f"{case.name}: {perf_counter() - start:.1f} s", flush=True)
            file.write(json.dumps(finite({"case": case.name, **figures})) + "\n")


def _figures(case: Case) -> Figures:
    try:
        return case.run()
    except NotHereError as reason:
        return {"note": str(reason)}
    except torch.OutOfMemoryError:
        return {"note": "does not fit the card's memory"}
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith(OURS):
            return {"note": f"{error.name} is not installed"}
        traceback.print_exc()
        return {"failed": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"}
    finally:
        gc.collect()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    work(sys.argv[1], Path(sys.argv[2]), rehearse="--rehearse" in sys.argv)
