"""Signs that a run goes wrong."""

import torch

from fgclip_fast.training.divergence import SkippedSteps, Spikes


def stops(limit, flags):
    skips = SkippedSteps(limit)
    return [skips.too_many(torch.tensor(float(flag))) for flag in flags]


def test_steps_in_a_row_count_and_are_read_one_step_late():
    assert stops(3, [1, 1, 0, 1, 1, 1, 1]) == [False] * 6 + [True]
    assert not any(stops(0, [1] * 99)) and not any(stops(2, [0, 1] * 50))


def test_a_falling_noisy_loss_has_no_spikes_and_a_jump_is_one():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1000, generator=generator).tolist()
    spikes = Spikes()
    losses = [2.0 + 8.0 * 0.99**step + 0.1 * noise[step] for step in range(1000)]
    assert [step for step, loss in enumerate(losses) if spikes.above(loss) is not None] == []
    assert abs(spikes.above(9.0) - 2.0) < 0.1


def test_few_steps_and_a_constant_loss_flag_nothing():
    spikes = Spikes()
    assert [spikes.above(loss) for loss in (1.0, 9.0, 1.0)] == [None] * 3
    steady = Spikes()
    assert [steady.above(1.0) for _ in range(99)] == [None] * 99 and steady.above(1.1) is None
