"""The best checkpoint by a figure, and patience."""

from fgclip_fast.training import checkpoint
from fgclip_fast.training.best import Best


def follow(best, values, first=1):
    for step, value in enumerate(values, first):
        if best.improved({best._metric: value}, step):
            checkpoint.save(best.path, step, lambda folder: folder.mkdir(), {}, keep=9)
        best.note()()


def test_the_highest_share_is_kept_and_patience_counts_from_it(tmp_path):
    best = Best(tmp_path, "hard_negative_top1", 2)
    follow(best, [0.3, 0.5, 0.5])
    assert not best.exhausted()
    follow(best, [0.4], first=4)
    assert best.exhausted() and [p.name for p in checkpoint.every(tmp_path / "best")] == ["step-00000002"]


def test_the_lowest_loss_is_kept(tmp_path):
    best = Best(tmp_path, "loss_total", 0)
    follow(best, [3.0, 1.0, 2.0])
    assert checkpoint.step_of(checkpoint.newest(best.path)) == 2 and not best.exhausted()


def test_a_resumed_run_remembers_what_came_before_and_forgets_what_came_after(tmp_path):
    follow(Best(tmp_path, "loss_total", 2), [1.0, 2.0, 3.0])
    assert Best(tmp_path, "loss_total", 2, done=3).exhausted()
    again = Best(tmp_path, "loss_total", 2, done=2)
    assert not again.exhausted() and not again.improved({"loss_total": 1.5}, 3) and again.exhausted()


def test_the_best_of_a_branch_that_was_given_up_is_replaced(tmp_path):
    follow(Best(tmp_path, "loss_total", 0), [3.0, 2.0, 1.0])
    follow(Best(tmp_path, "loss_total", 0, done=1), [2.5], first=2)
    assert [p.name for p in checkpoint.every(tmp_path / "best")] == ["step-00000002"]


def test_a_figure_that_the_validation_lacks_is_told_once(tmp_path, caplog):
    best = Best(tmp_path, "hard_negative_top1", 1)
    assert not best.improved({"loss_total": 1.0}, 1) and not best.improved({}, 2) and not best.exhausted()
    assert caplog.text.count("the validation has no hard_negative_top1") == 1
