"""A run that starts from weights says which of its settings these overrule."""

from dataclasses import replace

import pytest

from fgclip_fast.config import Config
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.training import start
from tests.models import MINI


@pytest.mark.parametrize(("side", "told"), [(64, True), (224, False), (32, False)], ids=["asked", "default", "same"])
def test_geometry_that_the_weights_contradict_is_told(tmp_path, caplog, side, told):
    FGCLIP(MINI).save(tmp_path)
    wanted = replace(Config().model, vision=replace(Config().model.vision, image_size=side))
    assert start.model(Config(model=wanted, init=str(tmp_path))).config.vision.image_size == 32
    assert ("model.vision.image_size is 32 in the weights, which rule; 64 is ignored" in caplog.text) == told
