"""Look at a data set before training on it: counts, warnings, and a page of images with their boxes and texts."""

from fgclip_fast.inspection.page import figures, write
from fgclip_fast.inspection.survey import Settings, Survey, survey

__all__ = ["Settings", "Survey", "figures", "survey", "write"]
