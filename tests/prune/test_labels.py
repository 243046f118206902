"""Labels in classes."""

import numpy as np
import pytest

from tfcompress.prune.labels import Labels


def test_what_is_tied_is_one_class_and_fixing_one_fixes_all():
    labels = Labels()
    a, b, c = labels.fresh(3), labels.fresh(3), labels.fresh(3)
    labels.tie(a, b)
    labels.tie(b[:1], c[2:])
    assert labels.roots(a).tolist() == labels.roots(b).tolist() == [1, 2, 3]
    assert labels.roots(c).tolist() == [7, 8, 1]
    labels.fix(c[2:], "why")
    assert labels.reason(a[0]) == labels.reason(b[0]) == "why"
    assert labels.reason(a[1]) is None


def test_a_label_tied_to_what_has_none_is_fixed_alone():
    labels = Labels()
    a = labels.fresh(2)
    labels.tie(a, np.array([0, a[1]]))
    assert "input" in labels.reason(a[0])
    assert labels.reason(a[1]) is None
    assert labels.free(a)


def test_a_reason_survives_a_tie_in_either_order():
    for fixed, other in ((0, 1), (1, 0)):
        labels = Labels()
        pair = [labels.fresh(1), labels.fresh(1)]
        labels.fix(pair[fixed], "first")
        labels.tie(pair[0], pair[1])
        assert labels.reason(pair[other][0]) == labels.reason(pair[fixed][0]) == "first"


def test_groups_of_a_shuffle_lose_the_same_places():
    # 6 channels as 2 groups of 3: the axis of 3 leaves three classes, that of 2 only two.
    labels = Labels()
    v = labels.fresh(6)
    axis, found = labels.along(v.reshape(2, 3))
    assert axis == 1
    assert found.tolist() == [1, 2, 3]
    assert labels.roots(v).tolist() == [1, 2, 3, 1, 2, 3]


def test_a_flattened_map_comes_back_without_a_tie():
    labels = Labels()
    v = labels.fresh(4)
    axis, found = labels.along(np.broadcast_to(v, (3, 5, 4)))
    assert (axis, found.tolist()) == (2, [1, 2, 3, 4])
    assert np.unique(labels.roots(v)).size == 4


def test_what_is_padded_around_channels_ties_nothing_and_new_channels_are_fixed():
    labels = Labels()
    v = labels.fresh(3)
    elements = np.full((4, 5), -1)
    elements[1:3, :3] = v  # a border of 1 row each side, two channels more
    axis, found = labels.along(elements)
    assert axis == 1
    assert found.tolist() == [1, 2, 3, 0, 0]
    assert labels.reason(v[0]) is None


def test_no_free_axis_is_an_error():
    with pytest.raises(ValueError, match="free axis"):
        Labels().along(np.ones((1, 1), int))
