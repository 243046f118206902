"""A program for `test_resumed`: iterative pruning that is killed in the middle of an epoch, or goes on.

    python interrupted.py FOLDER SCORE whole|killed|continued

Masks are written to FOLDER/<mode>.npz. A checkpoint is written after the first epoch of 8 steps; "killed" dies in the
second one, past a decision of which the checkpoint knows nothing.
"""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from tests.prune.small import X, Y, compiled, kernels, network
from tfcompress.prune import Iterative, Pruning

keras = tf.keras


class Kill(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if int(tf.convert_to_tensor(self.model.optimizer.iterations)) == 13:
            os.kill(os.getpid(), signal.SIGKILL)


def main(folder, score, mode):
    checkpoint = folder / "model.keras"
    callbacks = [Pruning(Iterative(0.9, rounds=5, recovery_steps=4), score=score)]
    if mode == "killed":
        callbacks += [keras.callbacks.ModelCheckpoint(str(checkpoint), save_freq="epoch"), Kill()]
    first = 1 if mode == "continued" else 0
    model = keras.models.load_model(checkpoint) if first else compiled(network())
    model.fit(X, Y, batch_size=4, epochs=3, initial_epoch=first, shuffle=False, verbose=0, callbacks=callbacks)
    np.savez(folder / f"{mode}.npz", *kernels(model))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
