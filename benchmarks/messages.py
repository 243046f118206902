"""SMS spam: messages as rows of word numbers, padded with 0, read from the file that --data names."""

import argparse
import re
from collections import Counter
from pathlib import Path

import numpy as np

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "SMSSpamCollection"
UNKNOWN = 1


def add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", type=Path, default=SHARED, metavar="FILE", help="SMS Spam Collection: label, tab, message in a line"
    )


def load(
    path: Path, length: int = 128, words: int = 4000, test: float = 0.2
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Tokens [N, length] int32 and labels (1: spam) of a seeded split; the vocabulary is that of the training part."""
    if not path.is_file():
        raise SystemExit(f"needs the SMS Spam Collection; there is none at {path}: name it with --data")
    lines = [line.split("\t", 1) for line in path.read_text(encoding="utf-8").splitlines() if "\t" in line]
    order = np.random.default_rng(0).permutation(len(lines))
    texts = [_words(lines[i][1]) for i in order]
    labels = np.array([lines[i][0] == "spam" for i in order], "int64")
    count = round(test * len(lines))
    counts = Counter(word for text in texts[count:] for word in text)
    number = {word: place for place, (word, _) in enumerate(counts.most_common(words), UNKNOWN + 1)}
    tokens = np.zeros((len(texts), length), "int32")
    for row, text in zip(tokens, texts, strict=True):
        found = [number.get(word, UNKNOWN) for word in text[:length]] or [UNKNOWN]
        row[: len(found)] = found
    return tokens[count:], labels[count:], tokens[:count], labels[:count]


def _words(text: str) -> list[str]:
    """Words in small letters; digits become 0, so that telephone numbers and prices are alike."""
    return re.findall(r"[a-z']+|0+|[^\sa-z0]", re.sub(r"\d", "0", text.lower()))
