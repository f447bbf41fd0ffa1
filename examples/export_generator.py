"""Exports a trained generator for other runtimes, and compares each file in its own runtime.

Command:   python examples/export_generator.py --model runs/fashion_mnist/model.keras
Needs:     pip install ".[export]" for ONNX and LiteRT; SavedModel needs nothing more
Result:    runs/export/ with saved_model/, generator.onnx, generator.tflite and generator.keras,
           which holds only plain Keras layers; for each, the largest pixel difference is printed

Without --model, it exports an untrained generator, as a demonstration.
"""

import argparse
from pathlib import Path

import keras
import numpy as np

from keras_sagan import SAGAN
from keras_sagan.models import FORMATS, bake_spectral_norm, export_generator


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", help="a model.keras that an example left (default: untrained)")
    parser.add_argument("--output", default="runs/export", help="folder (default: %(default)s)")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    settings = parser.parse_args(arguments)
    output = Path(settings.output)
    if settings.model is None:
        model = SAGAN.from_preset("sagan_fashion_mnist_32", seed=0)
    else:
        model = keras.saving.load_model(settings.model)

    # Save a network of plain Keras layers, which loads without this package.
    generator = model.ema_generator or model.generator
    baked = bake_spectral_norm(generator)
    output.mkdir(parents=True, exist_ok=True)
    baked.save(output / "generator.keras")
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((4, model.latent_dim)).astype("float32")]
    if model.num_classes is not None:
        inputs.append(np.arange(4, dtype="int32") % model.num_classes)
    inputs = inputs if len(inputs) > 1 else inputs[0]
    loaded = keras.saving.load_model(output / "generator.keras")
    difference = np.abs(loaded.predict(inputs, verbose=0) - generator.predict(inputs, verbose=0))
    print(f"{'keras':12} {output / 'generator.keras'}  largest difference {difference.max():.1e}")

    for name, (path, largest) in export_generator(model, output, settings.formats).items():
        print(f"{name:12} {path}  largest difference {largest:.1e}")


if __name__ == "__main__":
    main()
