"""Which weights live: thresholds, groups, blocks and channels worked by hand."""

import numpy as np
import pytest

from tfcompress.prune.patterns import Block, Channels, NofM, Unstructured, kept_count, largest, ranked, resolve


def test_the_number_that_lives_is_rounded_half_to_even_and_never_none():
    assert kept_count(5, 0.5) == 2 and kept_count(7, 0.5) == 4  # 2.5 -> 2, 3.5 -> 4
    assert kept_count(10, 0.99) == 1


def test_equal_scores_stay_together_unless_ranked():
    scores = np.array([2.0, 1.0, 1.0, 1.0])
    assert largest(scores, 2).tolist() == [True, True, True, True]
    assert largest(ranked(scores, np.array([0, 1, 3, 2])), 2).tolist() == [True, False, True, False]


def test_unstructured_takes_the_smallest():
    scores = np.array([[3.0, 1.0], [2.0, 4.0]])
    pattern = Unstructured()
    assert pattern.kept(pattern.units(scores, 1), 2, (2, 2), 1).tolist() == [[True, False], [False, True]]


def kept(pattern, scores, share, axis):
    units = pattern.units(scores, axis)
    return pattern.kept(units, kept_count(units.size, share), scores.shape, axis)


def test_two_of_four_live_along_the_inputs_of_each_output_and_place():
    rng = np.random.default_rng(0)
    scores = rng.random((3, 2, 8, 5))
    lives = kept(NofM(2, 4), scores, 0.5, 3)
    groups = lives.reshape(3, 2, 2, 4, 5)
    assert (groups.sum(3) == 2).all()
    values = scores.reshape(3, 2, 2, 4, 5)
    assert (np.where(groups, values, 9).min(3) > np.where(groups, 0, values).max(3)).all()


def test_a_group_of_a_transposed_kernel_lies_on_its_other_axis():
    lives = kept(NofM(1, 2), np.random.default_rng(0).random((3, 3, 5, 6)), 0.5, 2)  # [h, w, outputs, inputs]
    assert (lives.reshape(3, 3, 5, 3, 2).sum(-1) == 1).all()


def test_groups_follow_a_schedule_on_its_way():
    scores = np.random.default_rng(0).random((8, 3))
    zeros = [int((~kept(NofM(1, 4), scores, share, 1)).reshape(2, 4, 3).sum(1).max()) for share in (0.2, 0.4, 0.75)]
    assert zeros == [1, 2, 3]  # round(4 * share)


def test_a_last_group_that_is_shorter_has_its_share_of_zeros():
    lives = kept(NofM(2, 4), np.arange(1.0, 8.0)[:, None], 0.5, 1)[:, 0]  # 7 inputs: 4 and 3
    assert lives.tolist() == [False, False, True, True, False, True, True]  # floor(3 * 2 / 4) = 1 zero of the last 3


def test_blocks_live_by_their_mean():
    scores = np.zeros((4, 4))
    scores[:2, 2:] = [[4, 0], [0, 0]]  # mean 1
    scores[2:, :2] = 0.9
    lives = kept(Block(2, 2), scores, 0.75, 1)
    assert lives[:2, 2:].all() and lives.sum() == 4


def test_blocks_at_the_edge_are_smaller():
    units = Block(2, 3).units(np.arange(15.0).reshape(3, 5), 1)
    # rows {0, 1}, {2}; columns {0, 1, 2}, {3, 4}
    np.testing.assert_allclose(units, [[3.5, 6.0], [11.0, 13.5]])
    assert Block(2, 3).spread(np.array([[True, False], [False, True]]), (3, 5), 1).sum() == 6 + 2


def test_blocks_of_a_convolution_lie_at_each_place_of_its_window():
    assert Block(4, 1).units(np.ones((3, 3, 8, 5)), 3).shape == (3, 3, 2, 5)


@pytest.mark.parametrize(("axis", "shape"), [(3, (3, 3, 2, 4)), (2, (3, 3, 4, 2))])
def test_channels_lie_on_the_axis_of_outputs(axis, shape):
    scores = np.ones(shape) * np.arange(4).reshape([4 if a == axis else 1 for a in range(4)])
    lives = kept(Channels(), scores, 0.5, axis)
    assert np.moveaxis(lives, axis, 0).reshape(4, -1).all(1).tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    ("text", "pattern"),
    [("unstructured", Unstructured()), ("channels", Channels()), ("1:4", NofM(1, 4)), ((4, 1), Block(4, 1))],
)
def test_patterns_have_names(text, pattern):
    assert resolve(text) == pattern


@pytest.mark.parametrize("text", ["4:2", "2:2", "0:4", (0, 1), "dense", None])
def test_what_is_no_pattern_is_refused(text):
    with pytest.raises(ValueError, match=r"must be"):
        resolve(text)
