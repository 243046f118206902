"""A `benchmark_model` for the tests' phone: the flags and the output of TFLite's tool, LiteRT behind them.

Its further flag `--fake` makes it misbehave: wrong (outputs of noise), broken (NaN outputs), refuse, crash, hang.
"""

import os
import sys
import time

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

KNOWN = (
    "graph num_threads num_runs min_secs warmup_min_secs use_xnnpack use_gpu use_nnapi input_layer input_layer_shape "
    "input_layer_value_files output_filepath report_peak_memory_footprint enable_op_profiling op_profiling_output_mode "
    "op_profiling_output_file signature_to_run_for fake"
).split()


def main() -> None:
    flags = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:])
    print("INFO: STARTING!")
    unknown = [f"--{name}={value}" for name, value in flags.items() if name not in KNOWN]
    if unknown:
        print("WARN: Unconsumed cmdline flags:", *unknown)
    fake = flags.get("fake", "")
    if fake == "hang":
        time.sleep(600)
    if fake == "crash":
        os.abort()
    if fake == "refuse":
        sys.exit("ERROR: Failed to apply GPU delegate.\nERROR: Benchmarking failed.")
    xnnpack = flags.get("use_xnnpack") == "true"
    kernels = OpResolverType.AUTO if xnnpack else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    begin = time.perf_counter()
    try:
        interpreter = Interpreter(flags["graph"], num_threads=int(flags["num_threads"]),
                                  experimental_op_resolver_type=kernels)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        sys.exit(f"ERROR: {error}\nERROR: Benchmarking failed.")
    print(f"INFO: Initialized session in {1e3 * (time.perf_counter() - begin):.3f}ms.")
    if flags.get("use_gpu") == "true":
        print("INFO: Though GPU delegate is explicitly applied, the model graph will not be executed by the delegate.")
    if xnnpack:
        print("INFO: Explicitly applied XNNPACK delegate, and the model graph will be completely executed by the "
              "delegate.")
    given = dict(pair.split(":") for pair in flags.get("input_layer_value_files", "").split(",") if pair)
    for detail, name in zip(interpreter.get_input_details(), given, strict=True):
        with open(given[name], "rb") as file:
            values = np.frombuffer(file.read(), detail["dtype"]).reshape(detail["shape"])
        interpreter.set_tensor(detail["index"], values)
    for runs in (1, int(flags["num_runs"])):
        times = []
        for _ in range(runs):
            begin = time.perf_counter()
            interpreter.invoke()
            times.append(1e6 * (time.perf_counter() - begin))
        print(f"INFO: count={runs} first={times[0]:.0f} curr={times[-1]:.0f} min={min(times):.0f} max={max(times):.0f} "
              f"avg={np.mean(times):.6g} std={np.std(times):.0f} p5={np.percentile(times, 5):.0f} "
              f"median={np.median(times):.0f} p95={np.percentile(times, 95):.0f}\n")
    print("INFO: Inference timings in us: Init: 2500, First inference: 1234, Warmup (avg): 9, Inference (avg): 9")
    print("INFO: Memory footprint delta from the start of the tool (MB): init=1 overall=2")
    if "output_filepath" in flags:
        outputs = [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]
        if fake == "wrong":
            outputs = [np.random.default_rng(0).permutation(one.ravel())[::-1] for one in outputs]
        if fake == "broken":
            outputs = [np.full_like(one, np.nan) for one in outputs]
        with open(flags["output_filepath"], "wb") as file:
            file.write(b"".join(one.tobytes() for one in outputs))
    if flags.get("enable_op_profiling") == "true":
        with open(flags["op_profiling_output_file"], "w") as file:
            file.write("Operator-wise Profiling Info for Regular Benchmark Runs:\n==== Run Order ====\n"
                       "node type, first, avg_ms, %, cdf%, mem KB, times called, name\n"
                       "CONV_2D, 0.5, 0.25, 75%, 75%, 0, 1, [conv]:0\nSOFTMAX, 0.1, 0.1, 25%, 100%, 0, 1, [out]:1\n\n")


if __name__ == "__main__":
    main()
