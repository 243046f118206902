"""A program for `test_resumed`: iterative pruning that is killed in the middle of an epoch.

    python interrupted.py FOLDER SCORE...

A checkpoint, FOLDER/<score>.keras, is written after the first epoch of 8 steps. Training ends in the second one, past a
decision of which the checkpoint knows nothing; with the last score the process dies there.
"""

import contextlib
import os
import signal
import sys
from pathlib import Path

import tensorflow as tf

from tests.prune.small import X, Y, compiled, network
from tfcompress.prune import Iterative, Pruning

keras = tf.keras


class Interrupted(Exception):
    pass


class End(keras.callbacks.Callback):
    def __init__(self, kill):
        super().__init__()
        self.kill = kill

    def on_train_batch_end(self, batch, logs=None):
        if int(tf.convert_to_tensor(self.model.optimizer.iterations)) == 13:
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise Interrupted


def train(model, score, *callbacks, first=0):
    """Three epochs, from the one numbered `first` on."""
    pruning = Pruning(Iterative(0.9, rounds=5, recovery_steps=4), score=score)
    model.fit(X, Y, batch_size=4, epochs=3, initial_epoch=first, shuffle=False, verbose=0,
              callbacks=[pruning, *callbacks])  # fmt: skip
    return model


def main(folder, *scores):
    for score in scores:
        checkpoint = keras.callbacks.ModelCheckpoint(str(folder / f"{score}.keras"), save_freq="epoch")
        with contextlib.suppress(Interrupted):
            train(compiled(network()), score, checkpoint, End(kill=score == scores[-1]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
