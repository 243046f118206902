"""The runner of both flavors counts what pytest says."""

from tests.__main__ import FLAVORS, ONCE, ROOT, counts, left_out


def test_counts_come_from_the_closing_line_alone():
    text = "3 failed lines in a test's output\n===== 2 failed, 10 passed, 1 skipped, 3 errors in 12.34s =====\n"
    assert counts(text) == {"failed": 5, "passed": 10, "skipped": 1}  # errors fail too: 2 + 3


def test_a_quiet_run_closes_without_a_frame():
    assert counts("29 passed, 1 deselected in 30.28s\n") == {"passed": 29}
    assert counts("1 failed, 5 passed in 407.63s (0:06:47)") == {"failed": 1, "passed": 5}


def test_a_run_without_a_closing_line_counts_nothing():
    assert counts("Fatal Python error: Segmentation fault") == {}


def test_what_is_tested_once_exists_and_is_left_out_by_one_flavor_alone():
    paths = [path for own in ONCE.values() for path in own]
    assert len(paths) == len(set(paths)) and all((ROOT / path.split("::")[0]).exists() for path in paths)
    outs = [out.split("=")[1] for flavor in FLAVORS for out in left_out(flavor)]
    assert sorted(outs) == sorted(paths)
