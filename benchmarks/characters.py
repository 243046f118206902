"""Does a quantized decoder write what Keras writes? A character-level decoder on the SMS messages, with its cache.

It learns to read 32 characters of a message and to say them again, twice, which it can only do from its cache. The file
reads prompts of messages that were not trained on ("prefill") and writes 64 characters one by one ("decode"); the
quantized Keras model must write the same. The perplexity of the INT8 file stands beside the float model's on such
messages, those of the first, unknown 32 characters included; both see each character behind the same ones.

With `--times 1` the text runs on instead, and nothing in it says which character must follow: greedy text then hangs on
ties of two integers. How often the runtime's own kernel sets write the same text stands beside in both cases.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from flavors import add_flavor, current, each
from rich.console import Console
from rich.table import Table

import tflite_export

sys.path.append(str(Path(__file__).resolve().parent.parent / "examples"))
import decoder

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "SMSSpamCollection"
LENGTH, WINDOW = 96, 32  # tokens that the cache holds, tokens that "prefill" reads at once
BATCH = 32


def messages(path: Path) -> tuple[list[np.ndarray], list[np.ndarray], list[str]]:
    """(messages to train on, messages to test on) as indices, 1 message in 10 to test on, and the characters."""
    lines = [line.split("\t", 1)[1] + "\n" for line in path.read_text(encoding="utf-8").splitlines()]
    lines = [line.lower() for line in dict.fromkeys(lines) if line.isascii()]
    letters = sorted(set("".join(lines)))
    order = np.random.default_rng(0).permutation(len(lines))
    ids = [np.array([letters.index(letter) for letter in lines[i]], "int32") for i in order]
    return ids[len(ids) // 10 :], ids[: len(ids) // 10], letters


def windows_of(text: np.ndarray, begins: np.ndarray, times: int) -> np.ndarray:
    """[N, LENGTH + 1]: what begins at `begins`, said `times` times; run on when that is once."""
    size = WINDOW if times > 1 else LENGTH + 1
    return np.tile(text[begins[:, None] + np.arange(size)], (1, -(-(LENGTH + 1) // size)))[:, : LENGTH + 1]


def perplexity(step: Any, states: decoder.Tensors, windows: np.ndarray) -> float:
    """exp of the mean negative log likelihood, in nats, of the characters of windows [N, LENGTH + 1] but the first.

    Args:
        step: reads as many rows at once as are in `states`, WINDOW tokens each.
        states: before anything was read.
        windows: held-out text.
    """
    rows = len(states["past"])
    losses = []
    for begin in range(0, len(windows) - rows + 1, rows):
        part, given = windows[begin : begin + rows], states
        for at in range(0, LENGTH, WINDOW):
            positions = np.tile(np.arange(at, at + WINDOW, dtype="int32"), (rows, 1))
            given = dict(step({"tokens": part[:, at : at + WINDOW], "positions": positions, **given}))
            logits = np.asarray(given.pop("logits"), "float64")
            logits -= logits.max(-1, keepdims=True)
            truth = part[:, at + 1 : at + WINDOW + 1, None]
            losses.append(np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, truth, -1)[..., 0])
    return float(np.exp(np.mean(losses)))


def written(prefill: Any, decode: Any, states: decoder.Tensors, prompts: decoder.Tensors, count: int) -> np.ndarray:
    """The characters [B, count] that are written behind prompts."""
    return np.stack([tokens for _, tokens in decoder.greedy(prefill, decode, states, prompts, count)], -1)


def perplexities(
    step: Any, quantized: Any, file: tflite_export.Exported, windows: np.ndarray
) -> list[tuple[str, float]]:
    """(what, perplexity): of the float model, of the quantized one, of the file."""
    many, one = decoder.start(step, 20), decoder.start(step, 1)
    return [
        ("float, Keras", perplexity(step.predict_on_batch, many, windows)),
        ("INT8, Keras", perplexity(quantized.predict_on_batch, many, windows)),
        ("INT8, file", perplexity(tflite_export.Runner(file, signature="prefill"), one, windows)),
    ]


def agreement(
    step: Any, quantized: Any, file: tflite_export.Exported, prompts: decoder.Tensors
) -> tuple[np.ndarray, np.ndarray]:
    """For each prompt [B] whether the file writes what Keras writes, and what its builtin kernels write."""
    rows, count = len(prompts["tokens"]), LENGTH - WINDOW
    run, one = quantized.predict_on_batch, decoder.start(step, 1)
    in_keras = written(run, run, decoder.start(step, rows), prompts, count)
    texts = []
    for kernels in ("xnnpack", "builtin"):
        pair = [tflite_export.Runner(file, kernels, signature=name) for name in ("prefill", "decode")]
        each_row = ({name: values[row : row + 1] for name, values in prompts.items()} for row in range(rows))
        texts.append(np.concatenate([written(*pair, one, prompt, count) for prompt in each_row]))
    return (texts[0] == in_keras).all(-1), (texts[0] == texts[1]).all(-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flavor(parser)
    parser.add_argument("--data", type=Path, default=DATA, help="SMSSpamCollection (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=700, help="of training (%(default)s)")
    parser.add_argument("--prompts", type=int, default=50, help="(%(default)s)")
    parser.add_argument("--windows", type=int, default=200, help="of held-out text for the perplexity (%(default)s)")
    parser.add_argument("--times", type=int, choices=(1, 3), default=3, help="each text is said (%(default)s)")
    options = parser.parse_args()
    each(options.flavor)
    begin = time.perf_counter()
    train, test, letters = messages(options.data)
    count = len(letters)
    decoder.keras.utils.set_random_seed(0)
    model, text = decoder.Decoder(count, LENGTH), np.concatenate(train)
    begins = np.random.default_rng(0).integers(0, len(text) - LENGTH - 1, options.steps * BATCH)
    decoder.train(model, windows_of(text, begins, options.times), BATCH)
    step, trained = model.step(), time.perf_counter() - begin

    representative = decoder.filled([m[:WINDOW] for m in train if len(m) > WINDOW][:32], WINDOW)
    quantized, file = decoder.quantized_file(step, representative, tokens=LENGTH - WINDOW)
    windows = windows_of(np.concatenate(test), np.arange(options.windows) * LENGTH, options.times)
    figures = perplexities(step, quantized, file, windows)
    prompts = decoder.filled([m[:WINDOW] for m in test if len(m) > WINDOW][: options.prompts], WINDOW)
    equal, floor = agreement(step, quantized, file, prompts)

    title = f"character-level decoder, {current()}, {options.steps} steps, {len(file.content):,} bytes"
    table = Table("", "perplexity", "to float", title=title)
    for name, value in figures:
        table.add_row(name, f"{value:.3f}", f"{100 * (value / figures[0][1] - 1):+.2f} %")
    Console(width=120).print(table)
    print(
        f"bar 3, {current()}: perplexity of the file {100 * (figures[2][1] / figures[0][1] - 1):+.2f} % of float's "
        f"(allowed 2); text of {LENGTH - WINDOW} characters equal for {equal.sum()} of {len(equal)} prompts, "
        f"{equal.mean():.0%} (asked for 95 %; XNNPACK and builtin kernels: {floor.mean():.0%}); {trained:.0f} s of "
        f"training, {time.perf_counter() - begin:.0f} s in all"
    )


if __name__ == "__main__":
    main()
