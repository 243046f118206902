"""A MobileNetV2 on images of your own becomes an INT8 file: `python examples/quantize_mobilenet.py FOLDER`.

FOLDER holds one folder of images for each class. Without pretrained weights (`--weights FILE.h5`, as
`keras.applications` downloads them) the network starts from random ones.
"""

import argparse
from pathlib import Path

import tensorflow as tf

import tfcompress as tfc
import tflite_export

keras = tf.keras


def images(folder: Path, side: int, part: str) -> tf.data.Dataset:
    """Batches of (images in [-1, 1], class numbers) of one part of the folder."""
    found = keras.utils.image_dataset_from_directory(
        folder, validation_split=0.2, subset=part, seed=0, image_size=(side, side), batch_size=32
    )
    names = found.class_names
    scaled = found.map(lambda x, y: (x / 127.5 - 1.0, y)).prefetch(2)
    scaled.class_names = names
    return scaled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="one folder of images for each class")
    parser.add_argument("--weights", type=Path, help="pretrained weights without the top, .h5")
    parser.add_argument("--side", type=int, default=96, help="pixels a side (%(default)s)")
    parser.add_argument("--alpha", type=float, default=0.35, help="width of the network (%(default)s)")
    parser.add_argument("--epochs", type=int, default=3, help="of float training (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("mobilenet.tflite"))
    options = parser.parse_args()
    train, test = (images(options.folder, options.side, part) for part in ("training", "validation"))

    shape = (options.side, options.side, 3)
    body = keras.applications.MobileNetV2(
        shape, alpha=options.alpha, include_top=False, pooling="avg", weights=options.weights
    )
    head = keras.layers.Dense(len(train.class_names), activation="softmax")
    model = keras.Model(body.input, head(body.output))
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(train, validation_data=test, epochs=options.epochs)

    quantized = tfc.quantize_model(model)
    quantized.compile(keras.optimizers.Adam(1e-4), "sparse_categorical_crossentropy", metrics=["accuracy"])
    quantized.fit(train, validation_data=test, epochs=1, callbacks=[tfc.quantize.FreezeBatchNorm(0)])

    exported = tflite_export.export(quantized, "int8", inputs="uint8")
    exported.save(options.out)
    samples = next(iter(test))[0].numpy()
    print(tflite_export.compare(quantized, exported, samples))
    print(f"{options.out}: {len(exported.content):,} bytes; classes: {', '.join(train.class_names)}")


if __name__ == "__main__":
    main()
