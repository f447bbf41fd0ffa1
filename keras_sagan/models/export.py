"""Exports a generator for other runtimes, and compares the exported files with the model."""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from keras_sagan.checks import check_boolean, check_choices, check_integer, check_path, require
from keras_sagan.lazy import tf
from keras_sagan.models.baking import bake_spectral_norm
from keras_sagan.ops.latent import sample_labels, sample_latents

FORMATS = ("saved_model", "onnx", "litert")
NEEDED = {"onnx": ("tf2onnx", "onnxruntime"), "litert": ("ai_edge_litert.interpreter",)}


def export_generator(
    model: keras.Model,
    directory: str | Path,
    formats: Sequence[str] = FORMATS,
    num_images: int = 4,
    seed: int | None = 0,
    use_ema: bool = True,
) -> dict[str, tuple[Path, float]]:
    """Writes the generator as SavedModel, ONNX and LiteRT files, and compares them with the model.

    First, `bake_spectral_norm` converts the generator to plain Keras layers. The exported models
    take float32 latents `(batch, latent_dim)` and, for a model with classes, int32 labels
    `(batch,)`; they return float32 images in [-1, 1]. Any batch size works: a LiteRT interpreter
    starts with a batch of one, and its `resize_tensor_input` changes the size.

    Args:
        model: A `SAGAN`.
        directory: String or path of the folder for `saved_model/`, `generator.onnx` and
            `generator.tflite`.
        formats: Sequence of `"saved_model"`, `"onnx"` and `"litert"`.
        num_images: Positive integer, the number of images to compare.
        seed: Integer, the seed for the latents and labels of the compared images.
        use_ema: Boolean, whether to export the averaged generator, if the model has one.

    Returns:
        Dictionary that maps each format to its path and the largest pixel difference from the
        model's output, on a scale from -1 (black) to 1 (white).

    Raises:
        ValueError: If a format is unknown, or `num_images` isn't positive.
        ImportError: If a format needs a converter or runtime that isn't installed.
        RuntimeError: If the backend isn't TensorFlow.

    Example:
    ```python
    files = export_generator(model, "runs/first/export", ["saved_model"])
    path, difference = files["saved_model"]
    ```
    """
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise RuntimeError(
            "`export_generator` needs the TensorFlow backend: save the model and export the "
            ".keras file under KERAS_BACKEND=tensorflow, for example by `keras-sagan export`. "
            f"Received: the {backend} backend"
        )
    directory = Path(check_path("directory", directory))
    formats = check_choices("formats", formats, FORMATS)
    num_images = check_integer("num_images", num_images)
    seed = check_integer("seed", seed, 0, optional=True)
    use_ema = check_boolean("use_ema", use_ema)
    for name in formats:  # Check all packages before writing.
        for module in NEEDED.get(name, ()):
            require(module, f"The {name} format", "export")
    generator = model._generator_in_use(use_ema)
    baked = bake_spectral_norm(generator)
    rng = np.random.default_rng(seed)
    inputs = [sample_latents(num_images, model.latent_dim, rng)]
    if model.num_classes is not None:
        inputs.append(sample_labels(num_images, model.num_classes, rng))
    given = inputs if len(inputs) > 1 else inputs[0]
    baked(given)  # Keras exports only models that have been called.
    expected = keras.ops.convert_to_numpy(generator(given, training=False))
    directory.mkdir(parents=True, exist_ok=True)
    writers = {"saved_model": _saved_model, "onnx": _onnx, "litert": _litert}
    files = {}
    for name in formats:
        path, images = writers[name](baked, directory, inputs)
        files[name] = (path, float(np.abs(images - expected).max()))
    return files


def _saved_model(baked, directory, inputs):
    path = directory / "saved_model"
    baked.export(path, format="tf_saved_model", verbose=False)
    loaded = tf.saved_model.load(str(path))  # Without this reference, the variables are deleted.
    return path, loaded.serve(inputs if len(inputs) > 1 else inputs[0]).numpy()


def _onnx(baked, directory, inputs):
    path = directory / "generator.onnx"
    baked.export(path, format="onnx", verbose=False)
    runtime = require("onnxruntime", "The onnx format", "export")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return path, session.run(None, dict(zip([x.name for x in session.get_inputs()], inputs)))[0]


def _litert(baked, directory, inputs):
    path = directory / "generator.tflite"
    specs = [
        keras.InputSpec(shape=(None, *x.shape[1:]), dtype=x.dtype.name, name=tensor.name)
        for x, tensor in zip(inputs, baked.inputs)
    ]
    signature = [specs] if len(specs) > 1 else specs
    baked.export(path, format="litert", verbose=False, input_signature=signature)
    return path, run_litert(path, inputs)


def run_litert(path: Path, inputs: list[np.ndarray]) -> np.ndarray:
    """Returns the first output of a LiteRT model; each input must have a different dtype."""
    runtime = require("ai_edge_litert.interpreter", "The litert format", "export")
    interpreter = runtime.Interpreter(str(path))
    slots = {slot["dtype"]: slot["index"] for slot in interpreter.get_input_details()}
    for value in inputs:
        interpreter.resize_tensor_input(slots[value.dtype.type], value.shape)
    interpreter.allocate_tensors()
    for value in inputs:
        interpreter.set_tensor(slots[value.dtype.type], value)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
