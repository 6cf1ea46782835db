"""The cost of one training step on a card, counted from the real step on tensors without values; needs no GPU.

python -m benchmarks.roofline_step --preset stage2-vit-b16                       # 512 images, four hard regions each
python -m benchmarks.roofline_step --preset stage2-vit-l14 --workload finehard --card a100 --micro-batch-size 128
"""

import argparse
from dataclasses import replace

import torch.distributed as dist

from fgclip_fast.config import Config
from fgclip_fast.cost.cards import CARDS, Card
from fgclip_fast.cost.fake_cuda import DEVICE
from fgclip_fast.cost.step_cost import StepCost, step_cost
from fgclip_fast.cost.table import heaviest, table
from fgclip_fast.cost.workload import HARD_REGIONS, stage2_batch
from fgclip_fast.presets import PRESETS
from fgclip_fast.training.distributed import Processes


def cost_of(config: Config, images: int, workload: str, micro_batch_size: int | None = None) -> StepCost:
    """The cost of a step of ``images`` on this process, in micro-batches if asked."""
    size = micro_batch_size or images
    sizes = [min(size, images - first) for first in range(0, images, size)]
    side = config.model.vision.image_size
    batches = [stage2_batch(count, side, workload, seed) for seed, count in enumerate(sizes)]
    texts = [batch.texts for batch in batches]
    flat, packed = sum(len(part.token) for part in texts), sum(part.processed_tokens for part in texts)
    print(f"texts: {flat:,} tokens, {packed:,} in the tree")
    group = dist.group.WORLD if dist.is_initialized() else None
    world_size = dist.get_world_size() if group is not None else 1
    return step_cost(config, batches, Processes(0, world_size, group, DEVICE))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="stage2-vit-b16")
    parser.add_argument("--images", type=int, help="of one process; the preset's batch size if left out")
    parser.add_argument("--workload", choices=HARD_REGIONS, default="hard")
    parser.add_argument("--card", choices=CARDS, default="h100")
    parser.add_argument("--micro-batch-size", type=int)
    parser.add_argument("--recompute", choices=["none", "mlp", "blocks"], default="none",
                        help="made again in the backward pass")  # fmt: skip
    parser.add_argument("--residual", choices=["fp32", "bf16"], default="fp32", help="dtype of the residual stream")
    parser.add_argument("--world-size", type=int, default=1, help="processes that share the global losses")
    parser.add_argument("--attained", type=float, nargs=2, metavar=("PRODUCTS", "MEMORY"),
                        help="shares of the card's rates that are thought to be reached, as 0.58 0.81")  # fmt: skip
    parser.add_argument("--operations", type=int, default=0, help="list this many that move most bytes")
    chosen = parser.parse_args()
    config, card = PRESETS[chosen.preset], CARDS[chosen.card]
    config = replace(config, model=replace(config.model, residual=chosen.residual, recompute=chosen.recompute))
    if chosen.world_size > 1:
        _join_nobody(chosen.world_size)
    images = chosen.images or config.batch_size
    print(f"{chosen.preset}, {images} images, {chosen.workload}, {card.name}")
    cost = cost_of(config, images, chosen.workload, chosen.micro_batch_size)
    print(table(cost, card, _at(card, *chosen.attained) if chosen.attained else None))
    if chosen.operations:
        print("\n" + heaviest(cost, chosen.operations))


def _at(card: Card, products: float, memory: float) -> Card:
    return card._replace(half=products * card.half, single=products * card.single, bandwidth=memory * card.bandwidth)


def _join_nobody(world_size: int) -> None:
    """A process group whose other processes are pretended."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=0, world_size=world_size, store=FakeStore())


if __name__ == "__main__":
    main()
