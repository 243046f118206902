"""What the versions of benchmark_model print, read; the texts follow the formats of their sources."""

import pytest

from tflite_export.bench.benchmark_model import failure, measured, operations
from tflite_export.errors import ExportError

CLASSIC = """\
INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Min num runs: [50]
INFO: Graph: [model0.tflite]
INFO: Use xnnpack: [1]
INFO: Loaded model model0.tflite
INFO: Initialized TensorFlow Lite runtime.
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
VERBOSE: Replacing 29 out of 31 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 1 partitions for the whole graph.
INFO: XNNPACK delegate created.
INFO: Explicitly applied XNNPACK delegate, and the model graph will be partially executed by the delegate w/ 1 delegate kernels.
INFO: The input model file size (MB): 0.525598
INFO: Initialized session in 12.5ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=120 first=4098 curr=4100 min=4000 max=4500 avg=4110.5 std=70

INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=240 first=4090 curr=4080 min=3990 max=4400 avg=4101.25 std=64
{percentiles}
INFO: Inference timings in us: Init: 12500, First inference: 4198, Warmup (avg): 4110.5, Inference (avg): 4101.25
INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE.
INFO: Memory footprint delta from the start of the tool (MB): init=1.5 overall=3.25
"""  # noqa: E501


def test_the_classic_tool_in_milliseconds():
    found = measured(CLASSIC.format(percentiles=""))
    assert (found.runs, found.init, found.first) == (240, 12.5, 4.198)
    assert (found.average, found.min, found.max, found.std) == (4.10125, 3.99, 4.4, 0.064)
    assert found.median is None and found.p95 is None
    assert found.peak_memory == int(3.25 * 2**20)
    assert found.delegate == "XNNPACK (29 of 31 operations)"


def test_percentiles_of_newer_builds_on_a_line_of_their_own_or_behind():
    behind = CLASSIC.replace("std=64", "std=64 p5=4000 median=4095 p95=4300").format(percentiles="")
    for text in (CLASSIC.format(percentiles="p5=4000 median=4095 p95=4300"), behind):
        found = measured(text)
        assert (found.p5, found.median, found.p95, found.average) == (4.0, 4.095, 4.3, 4.10125)


@pytest.mark.parametrize("line", ["count=50 curr=79449(all same)", "count=50 curr=79449 (all same)"])
def test_equal_times_stand_for_every_figure(line):
    found = measured(f"INFO: {line}\nINFO: Inference timings in us: Init: 100, First inference: 79449")
    assert (found.runs, found.average, found.min, found.max, found.median, found.std) == (
        50, 79.449, 79.449, 79.449, 79.449, 0.0,
    )  # fmt: skip


def test_the_form_before_2020_in_exponents_too():
    found = measured(
        "STARTING!\nInitialized session in 38.467ms\n"
        "count=7 first=127425 curr=66709 min=66709 max=127425 avg=83235 std=20944\n\n"
        "count=15 first=66753 curr=66800 min=66699 max=1.04e+06 avg=79760.9 std=39\n\n"
        "Average inference timings in us: Warmup: 83235, Init: 38467, no stats: 79760.9\n"
        "Peak memory footprint (MB): init=0 overall=12.8672\n"
    )
    told = (found.runs, found.init, found.first, found.average, found.max)
    assert told == pytest.approx((15, 38.467, 127.425, 79.7609, 1040.0))
    assert found.peak_memory == int(12.8672 * 2**20)


def test_logcat_has_a_prefix_before_each_line():
    head = "05-31 10:31:13.022 21767 21767 I tflite  : "
    found = measured(
        f"{head}count=3 first=9 curr=9 min=8 max=10 avg=9 std=1\n"
        f"{head}Inference timings in us: Init: 5000, First inference: 11, Warmup (avg): 9, Inference (avg): 9\n"
    )
    assert (found.runs, found.init, found.first, found.min) == (3, 5.0, 0.011, 0.008)


LITERT = """\
INFO: [benchmark_litert_model.h:73] 
========== BENCHMARK RESULTS ==========
INFO: [benchmark_litert_model.h:75] Model initialization: 45.32 ms
INFO: [benchmark_litert_model.h:77] Warmup (first):       120.45 ms
INFO: [benchmark_litert_model.h:79] Warmup (avg):         98.76 ms (1 runs)
INFO: [benchmark_litert_model.h:81] Inference (avg):      85.23 ms (50 runs)
INFO: Inference (min):      82.10 ms
INFO: Inference (max):      92.45 ms
INFO: Inference (std):      3.21
INFO: Throughput:           12.45 MB/s
INFO: 
Memory Usage:
INFO: Init footprint:       10.00 MB
INFO: Overall footprint:    20.50 MB
INFO: Peak memory:          25.60 MB
INFO: ======================================
"""


def test_the_tool_of_litert():
    found = measured(LITERT)
    assert (found.runs, found.init, found.first, found.average) == (50, 45.32, 120.45, 85.23)
    assert (found.min, found.max, found.std, found.median) == (82.1, 92.45, 3.21, None)
    assert found.peak_memory == int(25.6 * 2**20)
    assert measured(LITERT.replace("Warmup (first): ", "First inference:")).first == 120.45


def test_the_finer_figures_of_the_same_run_win():
    text = "INFO: count=50 first=85230 curr=85111 min=82101 max=92449 avg=85228.5 std=3210\n" + LITERT
    assert (measured(text).average, measured(text).min) == (85.2285, 82.101)


def test_a_delegate_in_vain_is_told():
    line = (
        "INFO: Though NNAPI delegate is explicitly applied, the model graph will not be executed by the delegate.\n"
        "INFO: count=2 first=9 curr=9 min=8 max=10 avg=9 std=1\n"
    )
    assert (measured(line).unused, measured(line).delegate) == ("NNAPI", "")
    whole = line.replace("Though GPU", "").replace(
        "Though NNAPI delegate is explicitly applied, the model graph will not be executed by the delegate.",
        "Explicitly applied GPU delegate, and the model graph will be completely executed by the delegate.",
    )
    assert (measured(whole).unused, measured(whole).delegate) == ("", "GPU (all operations)")


def test_flags_that_the_tool_does_not_know():
    text = "WARN: Unconsumed cmdline flags: --a=1 --b\ncount=2 first=9 curr=9 min=8 max=10 avg=9 std=1"
    assert measured(text).ignored == ("--a=1", "--b")


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ("INFO: STARTING!\nERROR: Failed to apply GPU delegate.\nERROR: Benchmarking failed.\n", 1,
         "Failed to apply GPU delegate. (exit status 1)"),
        ("ERROR: Didn't find op for builtin opcode 'X' version '2'.\nERROR: Registration failed.\n", 1,
         "Didn't find op for builtin opcode 'X' version '2'. | Registration failed. (exit status 1)"),
        ("CANNOT LINK EXECUTABLE \"./b\": library \"libx.so\" not found\n", 127, "libx.so"),
        ("sh: ./benchmark_model: not executable: 64-bit ELF file\n", 126, "not executable"),
        ("STARTING!\nSegmentation fault \n", 139, "(SIGSEGV)"),
        ("", 132, "lacks"),
        ("", 0, "it timed no inference"),
        ("count=1 curr=9\nRunning benchmark for at least 5 iterations\ncount=0\n", 0, "failed"),
        ("INFO: Graph: [x]\nERROR: Benchmarking failed.\n", 1, "Benchmarking failed."),
    ],
)  # fmt: skip
def test_a_failure_is_told_in_the_words_of_the_tool(text, code, told):
    assert told in failure(text, code)
    with pytest.raises(ExportError, match="benchmark_model failed"):
        measured(text, code)


def test_times_of_a_run_that_failed_do_not_count():
    with pytest.raises(ExportError, match="SIGSEGV"):
        measured(CLASSIC.format(percentiles=""), 139)


CSV = """\
Profiling Info for Benchmark Initialization:
============================== Run Order ==============================
node type, first, avg_ms, %, cdf%, mem KB, times called, name
AllocateTensors, 12.1, 12.1, 100%, 100%, 0, 1, AllocateTensors/0

Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
node type, first, avg_ms, %, cdf%, mem KB, times called, name
TfLiteXNNPackDelegate, 3.5, 3.25, 81%, 81%, 0, 1, [a]:31
SOFTMAX, 0.75, 0.5, 12%, 93%, 0, 1, [probabilities\tmore]:30
WHILE, 0.25, 0.125, 7%, 100%, 0, 2, [loop]:7

============================== Top by Computation Time ==============================
node type, first, avg_ms, %, cdf%, mem KB, times called, name
TfLiteXNNPackDelegate, 3.5, 3.25, 81%, 81%, 0, 1, [a]:31

Number of nodes executed: 3
============================== Summary by node type ==============================
node type, count, avg_ms, avg %, cdf %, mem KB, times called
SOFTMAX, 1, 0.5, 12%, 93%, 0, 1

Timings (microseconds): count=50 first=9 curr=9 min=8 max=10 avg=9 std=1
"""
INSIDE = """\
Delegate internal:
============================== Run Order ==============================
node type, first, avg_ms, %, cdf%, mem KB, times called, name
Convolution (NHWC, F32) IGEMM, 2.5, 2.25, 75%, 75%, 0, 1, Delegate/Convolution (NHWC, F32) IGEMM:0
Fully Connected (NC, F32) GEMM, 1, 1, 25%, 100%, 0, 1, Delegate/Fully Connected (NC, F32) GEMM:1

"""


def rows(text):
    return [(one.kind, one.name, one.where, one.count) for one in operations(text)]


def test_a_profile_in_commas_by_its_headings():
    expected = [
        ("TfLiteXNNPackDelegate", "a", "XNNPACK", 3.25),
        ("SOFTMAX", "probabilities,more", "builtin", 0.5),
        ("WHILE", "loop", "builtin", 0.25),  # twice an inference
    ]
    assert rows(CSV) == expected
    started = CSV.replace("node type, first", "node type, start, first").replace("e, 3.5", "e, 0, 3.5")
    started = started.replace("X, 0.75", "X, 3.5, 0.75").replace("E, 0.25", "E, 4, 0.25")
    started = started.replace("s, 12.1", "s, 0, 12.1")
    assert rows(started) == expected


def test_operations_inside_a_delegate_stand_for_its_node():
    assert rows(CSV + INSIDE) == [
        ("Convolution (NHWC, F32) IGEMM", "", "XNNPACK", 2.25),
        ("Fully Connected (NC, F32) GEMM", "", "XNNPACK", 1.0),
        ("SOFTMAX", "probabilities,more", "builtin", 0.5),
        ("WHILE", "loop", "builtin", 0.25),
    ]


def test_a_profile_in_columns_behind_prefixes():
    text = (
        "INFO: ============================== Run Order ==============================\n"
        "INFO: \t             [node type]\t          [start]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]"
        "\t[times called]\t[Name]\n"
        "\t Delegate/Convolution (NHWC, QC8) DWConv\t 0.000\t 0.006\t 0.006\t 33.3%\t 55.5%\t 0.000\t 1\t[Delegate]:1\n"
        "\t                 SOFTMAX\t 0.010\t 0.002\t 0.003\t 33.3%\t 55.5%\t 0.000\t 1\t[out]:2\n\n"
    )
    assert rows(text) == [
        ("Convolution (NHWC, QC8) DWConv", "", "XNNPACK", 0.006),
        ("SOFTMAX", "out", "builtin", 0.003),
    ]


def test_no_profile_is_none():
    assert operations(LITERT) == ()
