"""What makes runs short in tests that are about something else than the training."""

import functools
import json

import keras
import tiny_networks as tiny

from keras_sagan import SAGAN, data
from keras_sagan.callbacks import AttentionFigure, SampleGrid
from keras_sagan.models import PRESETS


def train_briefly(patch):
    """Trains eagerly except on JAX, which compiles each operation, with one update of D a step.

    Args:
        patch: A `pytest.MonkeyPatch`.
    """
    is_eager = keras.backend.backend() != "jax"  # Elsewhere, tracing takes longer than a few steps.
    patch.setattr(SAGAN, "compile", functools.partialmethod(SAGAN.compile, run_eagerly=is_eager))
    for preset in PRESETS.values():
        patch.setitem(preset["settings"], "d_steps", 1)


def load_few(patch, count=400):
    """Has the package ship fewer images."""
    few = [array[:count] for array in data.load_fashion_mnist()]
    patch.setattr(data, "load_fashion_mnist", lambda *given: tuple(few))


def build_little(patch):
    """Builds networks of few layers where a preset's would be of 32 pixels and ten classes.

    On the pages, those are the presets of which no more than `base_filters` and `seed` are asked.
    """
    build = SAGAN.from_preset

    def from_preset(*preset, **changes):
        asked = changes.get("image_size"), changes.get("num_classes")
        is_of_a_page = changes.keys() in ({"base_filters"}, {"base_filters", "seed"})
        if asked == (32, 10) or is_of_a_page and preset == ("sagan_fashion_mnist_32",):
            channels, seed = changes.get("channels", 1), changes.get("seed", 0)
            return tiny.build_sagan_of_pictures(channels, 64, seed=seed)
        return build(*preset, **changes)

    patch.setattr(SAGAN, "from_preset", from_preset)


def draw_nothing(patch):
    """Leaves out the pictures of a run."""
    for callback in (SampleGrid, AttentionFigure):
        patch.setattr(callback, "save", lambda *given, **more: None)
    patch.setattr("keras_sagan.run.plot_curves", lambda *given, **more: None)


def fit(model, dataset, output, epochs, steps_per_epoch, record, evaluator, log, **others):
    """Takes the place of `keras_sagan.run.fit`: one step, without callbacks and pictures.

    `tests/cli/test_cli.py` has the whole. The record has the protocol of a FID of no epoch.
    """
    model.fit(dataset, steps_per_epoch=1, verbose=0)
    output.mkdir(parents=True, exist_ok=True)
    model.save(output / "model.keras")
    if evaluator:
        evaluator.set_model(model)
        evaluator.add_real_images()
        record["fid"] = {"protocol": evaluator.protocol}
    (output / "run.json").write_text(json.dumps(record))
    return record
