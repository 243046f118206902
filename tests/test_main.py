"""The runner of both flavors counts what pytest says."""

from tests.__main__ import counts


def test_counts_come_from_the_closing_line_alone():
    text = "3 failed lines in a test's output\n===== 2 failed, 10 passed, 1 skipped, 3 errors in 12.34s =====\n"
    assert counts(text) == {"failed": 5, "passed": 10, "skipped": 1}  # errors fail too: 2 + 3


def test_a_run_without_a_closing_line_counts_nothing():
    assert counts("Fatal Python error: Segmentation fault") == {}
