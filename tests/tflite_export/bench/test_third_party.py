"""Files of other people: every failure is a row with a reason, whatever it does to the runtime."""

import pytest

from tflite_export.bench.harness import benchmark
from tflite_export.bench.result import Result

# file -> words of the reason, one of them, on host and tflm.
REASONS = {
    "coral_invalid_model_invoking_error": ("fake-op-double", "its process down"),
    "support_whitespace_tokenizer_custom_op": ("WhitespaceTokenizer",),
    # It makes LiteRT write where it must not: mostly the process dies of it, sometimes nothing is seen.
    "tflm_keyword_scrambled_8bit": ("its process down",),
}
LUCKY = "tflm_keyword_scrambled_8bit"


@pytest.mark.parametrize("target", ["host", "tflm"])
def test_files_that_fail_are_rows(shared, target):
    if target == "tflm":
        pytest.importorskip("tflite_micro")
    paths = {name: shared / "data" / "tflite" / f"{name}.tflite" for name in REASONS}
    results = benchmark(paths, target, runs=2, profile=True)
    assert [r.name for r in results] == list(REASONS)
    for r in results:
        assert r.status == "failed" or (r.name == LUCKY and r.status == "ok")
        assert r.status == "ok" or any(words in r.reason for words in REASONS[r.name])


@pytest.mark.slow
@pytest.mark.parametrize("target, running", [("host", 13), ("tflm", 7)])
def test_all_sixteen_files(shared, target, running):
    if target == "tflm":
        pytest.importorskip("tflite_micro")
    paths = sorted((shared / "data" / "tflite").glob("*.tflite"))
    results = benchmark(paths, target, runs=2)
    assert len(results) == len(paths) == 16
    assert sum(r.status == "ok" for r in results if LUCKY not in r.name) == running
    for r in results:
        assert (r.status == "ok") == (r.reason == "") and Result.from_json(r.to_json()) == r
