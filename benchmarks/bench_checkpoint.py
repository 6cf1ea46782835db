"""Writing a checkpoint beside the training: the time that the loop loses, as a share of writing it in the loop."""

import torch

from benchmarks.measure import by_turns
from fgclip_fast.config_model import Model
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.training import checkpoint
from fgclip_fast.training.host_copy import snapshot


def test_saving_a_vit_b16(benchmark, tmp_path):
    torch.manual_seed(0)
    model = FGCLIP(Model())
    moments = {
        name: {moment: p.detach().clone() for moment in ("exp_avg", "exp_avg_sq")}
        for name, p in model.named_parameters()
    }
    values = {"model": model.state_dict(), "state": {"optimizer": moments}}
    copies = snapshot(values)
    assert all(torch.equal(copies["model"][name], value) for name, value in values["model"].items())

    def in_the_loop():
        checkpoint.save(tmp_path, 1, lambda folder: model.save(folder, values["model"]), values["state"], keep=1)

    ratios = by_turns(benchmark, lambda: snapshot(values), {"in the loop": in_the_loop}, rounds=3)
    if benchmark.enabled:
        benchmark.extra_info.update(peer="the same checkpoint, written in the loop", ratio=ratios["in the loop"])
        print(f"\na checkpoint of ViT-B/16: {ratios['in the loop']:.1f} times the loop's wait")
