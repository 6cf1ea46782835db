"""Modules of the ops, each of which is hidden behind the function of the same name in ``fgclip_fast.ops``."""

import importlib
from types import ModuleType


def op_module(name: str) -> ModuleType:
    """Import ``fgclip_fast/ops/<name>.py``: as an attribute, ``fgclip_fast.ops.<name>`` is the function."""
    return importlib.import_module(f"fgclip_fast.ops.{name}")
