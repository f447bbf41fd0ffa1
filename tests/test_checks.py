"""Every argument of every public function and constructor, with values that are wrong for it.

What an argument must be is told by its default; `KINDS` says so where there is none, or `None`. A
new argument is covered by itself, or has to be named there.
"""

import functools
import inspect
import json
import math
import pathlib

import keras
import numpy as np
import pytest
import tiny_networks as tiny

from keras_sagan import (
    callbacks,
    checks,
    data,
    distribution,
    layers,
    metrics,
    models,
    run,
    visualization,
)
from keras_sagan.metrics.evaluation import Evaluation

NOT_NUMBERS = ["0.5", None, math.nan, math.inf, -math.inf, [], {}, 1 + 2j, True, object()]
WRONG = {
    "integer": [*NOT_NUMBERS, 1.5, -1, np.ones(1, int), np.True_, np.float64(2.0)],
    "number": [*NOT_NUMBERS, np.ones(1), np.True_, np.nan],
    "boolean": ["yes", None, 2, 1, 0.0, math.nan, [], object()],
    "choice": ["no such", 99, math.nan, 1 + 2j, [], {}, np.zeros(2), object()],
    "dictionary": [3, "yes", math.nan, [], True, {1: 2}, object()],
    "list": [3, "text", math.nan, True, {}, object()],
    "path": [3, math.nan, [], {}, True, object()],
    "text": [3, math.nan, [], {}, True, object()],
    "pair": [*NOT_NUMBERS, (1, 2, 3), (1, -1), (1, 1.5), "33"],
    "triple": [*NOT_NUMBERS, (1, 2), (1, 2, -1), (1, 1, 1.5), "333"],
    "axis": [1.5, "3", None, True, math.nan, [], object()],
    "integer or word": [x for x in NOT_NUMBERS if x is not None] + ["no such", 1.5, -1],
    "number or word": [x for x in NOT_NUMBERS] + ["no such", 1.5, -1],
    "number or infinity": ["0.5", math.nan, [], {}, 1 + 2j, True, object()],
    "range": [3, "text", math.nan, [1], (1, -1), (0, math.inf), object()],
    "function": [3, "flip", math.nan, [], {}, True, object()],
    "rates": [3, "yes", math.nan, [], True, {"rate": 1.0}, {"beta_1": "0.5"}]
    + [{"g_learning_rate": x} for x in ("0.1", None, math.nan, math.inf, -1.0, True, [])],
}
# Keras's own arguments, which Keras checks.
KERAS = {
    *("activation", "kernel_initializer", "bias_initializer", "kernel_regularizer"),
    *("bias_regularizer", "activity_regularizer", "kernel_constraint", "bias_constraint"),
    *("embeddings_initializer", "embeddings_regularizer", "embeddings_constraint"),
}
# What isn't a plain value: arrays, models, functions.
OTHER = {
    *("generator", "discriminator", "model", "metric", "feature_extractor", "strategy", "loss"),
    *("images", "real_images", "image", "frames", "history", "scores", "scores_row", "inputs"),
    *("labels", "real_labels", "to_labels", "latents", "to_latents", "query_points", "weights"),
    *("g_optimizer", "d_optimizer", "reference", "held_out", "protocol", "metrics", "layer"),
}
KINDS = {
    "integer": "units filters input_dim output_dim num_classes condition_dim latent_dim seed rows "
    "columns scale count num_images batch_size every_steps every_epochs image_size num_reference "
    "top_k",
    "number": "ema_momentum ema_half_life truncation gamma",
    "choice": "data_format resample recipe resize on_error order mode jit_compile policy method "
    "norm pattern name:preset",
    "dictionary": "spectral_norm attention batch_norm values baselines objective",
    "list": "kernels class_names row_labels classes truncations devices formats evaluators notes "
    "include exclude",
    "path": "directory path folder log_dir data_dir handle checkpoint cache_dir",
    "text": "padding name dataset split monitor title tpu sha256 output feature_layer",
    "pair": "kernel_size strides dilation_rate",
    "integer or word": "query_chunk_size",
    "number or infinity": "missing",
    "range": "value_range",
    "rates": "ttur",
    "function": "augmentation penalty",
}
KINDS = {name: kind for kind, names in KINDS.items() for name in names.split()}
# Where a name means something else than elsewhere.
SPECIAL = {
    ("ConditionalBatchNorm", "axis"): "axis",
    ("ConditionalGroupNorm", "axis"): "axis",
    ("ConditionalGroupNorm", "groups"): "axis",  # It may be -1 too.
    ("ConditionalLayerNorm", "axis"): "axis",
    ("attention_overlay", "image_size"): "pair",
    ("build_generator", "image_size"): "choice",
    ("build_discriminator", "image_size"): "choice",
    ("build_grey_classifier", "image_size"): "choice",
    ("load_grey_classifier", "image_size"): "choice",
    ("build_generator", "attention_resolutions"): "list",
    ("build_discriminator", "attention_resolutions"): "list",
    ("load_image_folder", "channels"): "choice",
    ("load_fashion_mnist", "split"): "choice",
    ("load_emoji", "image_size"): "choice",
    ("load_emoji", "split"): "choice",
    **{(f"SelfAttention{rank}D", "scores"): "choice" for rank in (1, 2, 3)},
    ("preset_settings", "name"): "choice",
    ("from_preset", "name"): "choice",
    ("from_model", "num_classes"): "integer or word",
    ("make_strategy", "name"): "choice",
    ("KerasInceptionV3", "weights"): "path",
    ("EfficientNetLite0Features", "weights"): "path",
    ("DINOv2Features", "preset"): "text",
    ("FIDInception", "weights"): "path",
    ("EvaluationReport", "model"): None,
    ("DifferentiableAugmentation", "probability"): "number or word",
    ("load_tfds", "split"): None,  # TFDS has more than strings.
    ("build_generator", "name"): None,  # Keras's.
    ("build_discriminator", "name"): None,
    ("SpectralNorm", "name"): None,
    ("SNConv3D", "kernel_size"): "triple",
}
# `None` is another draw each time, although there is a default.
MAY_BE_NONE = {
    (name, seed)
    for names, seed in (
        ("draw_attention draw_interpolation draw_truncation export_generator", "seed"),
        ("InceptionScore KernelInceptionDistance", "shuffle_seed"),
    )
    for name in names.split()
}
# Nothing but models, arrays or what a metric needs; or Keras's own arguments.
UNCHECKED = {
    *("bake_spectral_norm", "record_attention_scores", "standing_statistics", "pad_to_32"),
    *("GreyClassifierFeatures", "load_tfgan_eval", "FusedAdam", "DatasetInfo", "ImageFolder"),
    *("ReferenceStatistics", "StreamedImages", "Inversion", "EmojiImages"),
}


@functools.cache
def model():
    return tiny.build_sagan()


def pixels(images):
    return images[:, 0, 0]


U8 = np.zeros((4, 8, 8, 1), "uint8")
MAPS = {"images": U8, "scores": np.full((4, 4, 4, 2, 2), 0.25, "float32")}
METRIC = {"feature_extractor": pixels}
RUN = {"reference": U8, "metrics": "fid", "feature_extractor": pixels}
# What each function needs, and what makes it quick.
ARGUMENTS = {
    "SNConv2D": {"filters": 2, "kernel_size": 3},
    "SNConv1D": {"filters": 2, "kernel_size": 3},
    "SNConv3D": {"filters": 2, "kernel_size": 3},
    "SNConv2DTranspose": {"filters": 2, "kernel_size": 3},
    "SNDense": {"units": 2},
    "SpectralNorm": lambda: {"layer": keras.layers.Dense(2)},
    "SNEmbedding": {"input_dim": 2, "output_dim": 3},
    "ConditionalBatchNorm": {"num_classes": 2},
    "ConditionalGroupNorm": {"num_classes": 2, "groups": 2},
    "ConditionalLayerNorm": {"num_classes": 2},
    "spectral_norms": lambda: {"model": tiny.build_generator()},
    "SAGAN": lambda: {
        "generator": model().generator,
        "discriminator": model().discriminator,
        "latent_dim": 3,
        "num_classes": 5,
    },
    "build_generator": {"image_size": 8, "base_filters": 2, "attention_resolutions": ()},
    "build_discriminator": {"image_size": 8, "base_filters": 2, "attention_resolutions": ()},
    "apply_spectral_norm": lambda: {"model": tiny.build_generator()},
    "export_generator": lambda: {"model": model(), "directory": "x", "formats": ()},
    "preset_settings": {"name": "sagan_imagenet_128"},
    "from_preset": {"name": "sagan_imagenet_128"},
    "from_model": lambda: {"model": model()},
    "generate": {"num_images": 1},
    "invert": {"images": np.zeros((1, *tiny.SHAPE), "uint8"), "restarts": 1, "steps": 1},
    "interpolate": {"rows": 1, "steps": 2},
    "attention_maps": {"inputs": np.zeros((1, 3), "float32"), "labels": 0},
    "AttentionFigure": {"directory": "x"},
    "SampleGrid": {"directory": "x"},
    "RunHistory": {"path": "x"},
    "TrainingCheckpoint": {"directory": "x", "monitor": "fid"},
    "FIDEvaluator": {"metric": metrics.FrechetInceptionDistance(pixels), "real_images": U8},
    "FeatureExtraction": METRIC,
    "DensityCoverage": METRIC,
    "FrechetInceptionDistance": METRIC,
    "FrechetInceptionDistanceInfinity": METRIC,
    "InceptionScore": METRIC,
    "IntraClassFrechetInceptionDistance": METRIC,
    "KernelInceptionDistance": METRIC,
    "Memorization": METRIC,
    "MongeInceptionDistance": METRIC,
    "PrecisionRecall": METRIC,
    "FolderImages": {"folder": "x"},
    "EvaluationReport": {"values": {}, "baselines": {}, "protocol": {}, "model": "a"},
    "evaluate_generator": lambda: {"model": model(), **RUN},
    "evaluate_images": {"images": U8, **RUN},
    "Evaluation": {**RUN, "batch_size": 2, "seed": 0},
    "load_image_folder": {"directory": "x"},
    "load_tfds": {"name": "cifar10"},
    "make_dataset": {"images": U8, "batch_size": 2},
    "read_idx": {"path": "x"},
    "spread_indices": {"count": 2, "num_images": 4},
    "square_resize": {"image": U8[0], "image_size": 4},
    "steps_per_epoch": {"num_images": 4, "batch_size": 2},
    "attention_overlay": {"scores_row": np.ones((2, 2)), "image_size": 4},
    "choose_query_points": {"image": U8[0]},
    "draw_attention": lambda: {"model": model(), "directory": "x"},
    "draw_interpolation": lambda: {"model": model(), "path": "x.png"},
    "draw_neighbours": {"images": U8, "real_images": U8, "path": "x.png"},
    "draw_truncation": lambda: {"model": model(), "path": "x.png"},
    "image_grid": {"images": U8},
    "nearest_neighbours": {"images": U8, "real_images": U8, "num_neighbours": 2},
    "plot_attention": MAPS,
    "plot_curves": {"history": {"d_loss": [1.0]}},
    "sample_grid": {"images": U8},
    "save_gif": {"path": "x.gif", "frames": U8},
    "save_image": {"path": "x.png", "image": U8[0]},
}
METHODS = {"generate", "interpolate", "attention_maps", "compile", "from_preset", "from_model"}
METHODS |= {"invert"}
PACKAGES = (layers, models, callbacks, metrics, data, visualization)
PUBLIC = {
    name: getattr(package, name)
    for package in PACKAGES
    for name in package.__all__
    if callable(getattr(package, name)) and name not in UNCHECKED
}
PUBLIC |= {"make_strategy": distribution.make_strategy, "Evaluation": Evaluation}
NAMES = [*PUBLIC, *sorted(METHODS)]


def of(name):
    """The function and the arguments that it is called with."""
    function = getattr(model(), name) if name in METHODS else PUBLIC[name]
    given = ARGUMENTS.get(name, {})
    return function, dict(given() if callable(given) else given)


def kinds(name, function):
    """`{argument: (kind, whether it may be None)}` of a function."""
    found = {}
    for argument, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        default = parameter.default
        kind = {bool: "boolean", int: "integer", float: "number"}.get(type(default))
        if kind is None and argument not in KERAS | OTHER or (name, argument) in SPECIAL:
            known = {**KINDS, **{a: kind for (n, a), kind in SPECIAL.items() if n == name}}
            assert argument in known, f"`KINDS` must say what `{argument}` of {name} is"
            kind = known[argument]
        if argument in KERAS:
            kind = "keras"
        found[argument] = kind, default is None or (name, argument) in MAY_BE_NONE
    return found


@pytest.mark.parametrize("name", NAMES)
def test_wrong_arguments_are_named(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    function, given = of(name)
    wrong = []
    for argument, (kind, is_optional) in kinds(name, function).items():
        values = WRONG.get(kind, [3.5, object()] if kind == "keras" else [])
        for value in values:
            if value is None and is_optional:
                continue
            try:
                function(**{**given, argument: value})
            except (ValueError, TypeError) as error:
                is_named = f"`{argument}`" in str(error) and "Received" in str(error)
                if not is_named and kind != "keras":
                    wrong.append(f"{argument}={value!r}: {error}")
            except Exception as error:
                wrong.append(f"{argument}={value!r}: {type(error).__name__}: {error}")
            else:
                wrong.append(f"{argument}={value!r} passed")
    assert not wrong, "\n".join(wrong)
    assert not list(tmp_path.iterdir())


# What a size in a configuration can't be, when it is read or when the layer is built.
NO_SIZES = [0, -1, -(10**12), 2**31, 10**12, 10**30, 1.5, math.nan, math.inf, "3", None, [], True]
LAYER_SIZES = {
    "SNConv2D": "filters kernel_size strides dilation_rate groups power_iterations",
    "SNConv1D": "filters kernel_size power_iterations",
    "SNConv3D": "filters kernel_size power_iterations",
    "SNConv2DTranspose": "filters kernel_size power_iterations",
    "SNDense": "units power_iterations",
    "SNEmbedding": "input_dim output_dim power_iterations",
    "ConditionalBatchNorm": "num_classes axis",
    "ConditionalGroupNorm": "groups",
    "SelfAttention2D": "key_reduction value_reduction pool_size power_iterations query_chunk_size "
    "num_heads",
}
MAP = np.ones((2, 4, 4, 4), "float32")
INPUTS = {
    "SNConv1D": (MAP[:, 0],),
    "SNConv3D": (np.ones((1, 4, 4, 4, 4), "float32"),),
    "SNEmbedding": (np.zeros(2, "int32"),),
    "ConditionalBatchNorm": (MAP, np.zeros(2, "int32")),
    "ConditionalGroupNorm": (MAP, np.zeros(2, "int32")),
}


@pytest.mark.parametrize(
    "name, argument",
    [(name, argument) for name, names in LAYER_SIZES.items() for argument in names.split()],
)
def test_sizes_that_no_layer_can_have(name, argument):
    cls, given = of(name)
    given |= {"key_reduction": 2} if name == "SelfAttention2D" else {}
    config = cls(**given).get_config()
    values = [4, -4, -5, 9, *NO_SIZES] if argument == "axis" else NO_SIZES
    for value in values:
        if (argument, value) in (("query_chunk_size", None), ("axis", -1), ("groups", -1)):
            continue
        with pytest.raises((ValueError, TypeError), match=f"(?s)`{argument}`.*Received"):
            cls.from_config({**config, argument: value})(*INPUTS.get(name, (MAP,)))


@pytest.mark.parametrize(
    "config, shape, match",
    [
        ({"kernel_size": 5}, (4, 4, 4), "output size would be zero or negative"),
        ({"dilation_rate": 2}, (4, 4, 4), "output size would be zero or negative"),
        (
            {"kernel_size": 3, "resample": "down"},
            (3, 4, 4),
            "`kernel_size` must leave two rows and two columns",
        ),
        ({"groups": 2}, (4, 4, 3), "evenly divisible by the number of groups"),
        ({"filters": 10**6}, (4, 4, 1000), "`filters` and `kernel_size` must make a weight of at"),
        ({"groups": 2, "filters": 3}, (4, 4, 4), "`groups` must divide `filters`"),
        ({"resample": "up", "strides": 2}, (4, 4, 4), "`resample` needs `strides`"),
    ],
)
def test_sizes_of_a_convolution_that_do_not_fit(config, shape, match):
    with pytest.raises((ValueError, TypeError), match=f"(?s){match}.*Received"):
        config = {**layers.SNConv2D(2, 3).get_config(), **config}
        layers.SNConv2D.from_config(config)(keras.Input(shape))


def test_an_axis_that_later_images_lack():
    layer = layers.ConditionalBatchNorm(1, axis=3)
    layer(MAP)
    with pytest.raises(ValueError, match="`axis` must be an axis of `images`.*Received: axis=3"):
        layer(MAP[:, 0, 0])


SMALL = {"image_size": 8, "base_filters": 2, "attention_resolutions": ()}


@pytest.mark.parametrize("use_spectral_norm", [True, False])
@pytest.mark.parametrize("value", [10**9, 2**31, 10**12, 10**30])
def test_sizes_that_no_network_can_have(value, use_spectral_norm):
    for build in (models.build_generator, models.build_discriminator):
        settings = {**SMALL, "use_spectral_norm": use_spectral_norm}
        for name in ("base_filters", "latent_dim", "num_classes", "channels"):
            if name in inspect.signature(build).parameters:
                with pytest.raises(ValueError, match=f"`{name}`.*Received: .*{name}={value}"):
                    build(**{**settings, name: value})


def test_sizes_that_no_model_can_have():
    _, given = of("SAGAN")
    for name in ("latent_dim", "num_classes", "d_steps", "ema_start", "seed", "ema_momentum"):
        for value in [x for x in NO_SIZES if x is not None]:
            if (name, value) in (("ema_start", 0), ("seed", 0), ("ema_momentum", 0)):
                continue
            with pytest.raises(ValueError, match=f"`{name}` must.*Received: {name}="):
                models.SAGAN(**{**given, name: value})


@pytest.mark.slow
@pytest.mark.parametrize("value", [-9, 10**12])
def test_damaged_sizes_in_the_file_of_a_model(value):
    """Of every layer of this package in the configuration of a model, one size after the other."""
    whole = json.dumps(model().get_config())
    wrong = []
    for network in ("generator", "discriminator"):
        for index in range(len(json.loads(whole)[network]["config"]["layers"])):
            layer = json.loads(whole)[network]["config"]["layers"][index]
            for argument in LAYER_SIZES.get(layer["class_name"], "").split():
                config = json.loads(whole)
                config[network]["config"]["layers"][index]["config"][argument] = value
                try:
                    models.SAGAN.from_config(config)
                except (ValueError, TypeError) as error:
                    if f"`{argument}`" not in str(error):
                        wrong.append(f"{network}, {layer['class_name']}, {argument}: {error}")
                else:
                    wrong.append(f"{network}, {layer['class_name']}, {argument} passed")
    assert not wrong, "\n".join(wrong)


# Calls that need files, or take long.
NOT_CALLED = {
    *("from_preset", "FolderImages", "load_image_folder", "load_tfds", "evaluate_generator"),
    *("Evaluation", "draw_attention", "draw_interpolation", "draw_truncation"),
    *("draw_neighbours", "export_generator", "read_idx", "load_emoji"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [x for x in NAMES if x not in NOT_CALLED])
def test_numpy_integers_and_booleans_are_those_of_python(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    function, given = of(name)
    as_numpy = {}
    for argument, (kind, _) in kinds(name, function).items():
        value = given.get(argument, inspect.signature(function).parameters[argument].default)
        if kind in ("integer", "axis", "choice", "integer or word", "pair") and type(value) is int:
            as_numpy[argument] = np.int64(value)
        if kind == "boolean":
            as_numpy[argument] = np.bool_(value)
        if kind == "number" and value is not None:
            as_numpy[argument] = np.float64(value)
    if not as_numpy:
        return
    found = function(**{**given, **as_numpy})
    if hasattr(found, "get_config") and name not in ("SAGAN", *metrics.__all__):
        config = found.get_config()
        assert json.dumps(config)
        assert "numpy" not in str({type(x) for x in keras.tree.flatten(config)})


def test_the_configuration_of_a_model_made_with_numpy_numbers(tmp_path):
    numbers = {"d_steps": np.int32(2), "ema_start": np.int64(3), "seed": np.uint8(4)}
    numbers |= {"ema_momentum": np.float32(0.5), "ttur": {"beta_1": np.float64(0.5)}}
    one = models.SAGAN(
        tiny.build_generator(), tiny.build_discriminator(), np.int64(3), np.array(5), **numbers
    )
    one.compile(run_eagerly=np.False_, steps_per_execution=np.int64(1))
    one.save(tmp_path / "model.keras")
    other = keras.saving.load_model(tmp_path / "model.keras")
    assert (other.d_steps, other.ema_start, other.seed, other.num_classes) == (2, 3, 4, 5)
    assert (other.ema_momentum, other.ttur["beta_1"]) == (0.5, 0.5)


def test_a_schedule_among_the_rates_comes_back_from_a_file(tmp_path):
    schedule = keras.optimizers.schedules.CosineDecay(0.25, 10)
    one = tiny.build_sagan(ttur={"g_learning_rate": schedule})
    one.save(tmp_path / "model.keras")
    other = keras.saving.load_model(tmp_path / "model.keras")
    assert float(other.ttur["g_learning_rate"](0)) == 0.25
    assert other.ttur["d_learning_rate"] == 4e-4


def test_messages():
    """What is expected, in words, for each kind of bounds."""
    infinite = math.inf
    for check, expected in (
        (lambda: checks.check_integer("a", 0), "must be a positive integer"),
        (lambda: checks.check_integer("a", 0, optional=True), "must be a positive integer or None"),
        (lambda: checks.check_integer("a", 1, 2), "must be an integer of at least 2"),
        (lambda: checks.check_integer("a", "b", -infinite), "must be an integer"),
        (lambda: checks.check_integer("a", 9, 0, 8), "must be an integer in [0, 9)"),
        (lambda: checks.check_integer("a", -1, 0, 2**31 - 1), "must be an integer in [0, 2**31)"),
        (lambda: checks.check_integer("a", 0, expected="odd"), "must be odd"),
        (lambda: checks.check_float("a", 0, above=0), "must be positive"),
        (lambda: checks.check_float("a", -1, minimum=0), "must not be negative"),
        (lambda: checks.check_float("a", 1, above=1), "must be above 1"),
        (lambda: checks.check_float("a", 0, minimum=0.5), "must be at least 0.5"),
        (lambda: checks.check_float("a", 1, minimum=0, below=1), "must lie in [0, 1)"),
        (lambda: checks.check_float("a", 0, above=0, maximum=1), "must lie in (0, 1]"),
        (lambda: checks.check_boolean("a", 1), "must be True or False"),
        (lambda: checks.check_choice("a", 1, (None, "b", True)), 'must be None, "b" or True'),
        (
            lambda: checks.check_choices("a", "b", ("b",)),
            "must be among ('b',), in a list or tuple",
        ),
        (lambda: checks.check_dict("a", 1), "must be a dictionary or None"),
        (lambda: checks.check_dict("a", {"c": 1}, ["b"]), "must have keys among ['b']"),
        (lambda: checks.check_tuple("a", 0, 2), "must be a positive integer or a pair of them"),
        (lambda: checks.check_list("a", "b", optional=True), "must be a list or None"),
        (lambda: checks.check_path("a", 1), "must be a non-empty string or path"),
        (lambda: checks.check_string("a", 1, optional=True), "must be a string or None"),
    ):
        with pytest.raises(ValueError) as error:
            check()
        assert str(error.value).startswith(f"`a` {expected}. Received: a="), error.value
    with pytest.raises(ValueError, match="Received: a='0.5', which isn't a finite number"):
        checks.check_float("a", "0.5")


def test_paths_begin_in_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    for given, expected in (
        ("~/runs", "/home/ada/runs"),
        (pathlib.Path("~/runs"), "/home/ada/runs"),
        ("runs/~", "runs/~"),
        ("gs://bucket/runs", "gs://bucket/runs"),
    ):
        assert checks.check_path("directory", given, allow_url=True) == expected


@pytest.mark.parametrize(
    "make",
    [
        callbacks.SampleGrid,
        callbacks.AttentionFigure,
        callbacks.RunHistory,
        lambda path: visualization.plot_curves({"loss": [1.0]}, path=path),
        lambda path: run.fit(tiny.build_small_sagan(), None, path, 1, 1),
    ],
)
def test_a_url_is_no_local_folder(make):
    for url in ("gs://bucket/run", pathlib.Path("gs://bucket/run")):
        with pytest.raises(ValueError, match="must be a local path, not a URL. Received: .*gs:/"):
            make(url)
    with pytest.raises(ValueError, match="`directory` must be a string if it is a URL, because"):
        callbacks.TrainingCheckpoint(url)


@pytest.mark.slow
def test_what_is_written_lies_in_the_home_folder(tmp_path, monkeypatch):
    home, here = tmp_path / "home", tmp_path / "here"
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    images = np.arange(8, dtype="uint8").reshape(8, 1, 1, 1).repeat(8, 1).repeat(8, 2)
    extraction = metrics.FeatureExtraction(lambda x: x[:, ::4, ::4])
    statistics = metrics.ReferenceStatistics.compute(images, extraction, "numbers")
    report = metrics.EvaluationReport({"fid": 1.0}, {}, {}, "model")
    model = tiny.build_sagan()
    model.compile(run_eagerly=True)
    statistics.save("~/a.npz")
    report.save("~/a.json")
    visualization.save_image("~/a.png", images[0])
    visualization.save_gif("~/a.gif", images)
    visualization.plot_curves({"fid": [1.0]}, "~/curves.png")
    model.fit(
        tiny.images(2),
        tiny.labels(2),
        verbose=0,
        callbacks=[callbacks.TrainingCheckpoint("~/checkpoints")],
    )
    assert metrics.ReferenceStatistics.load("~/a.npz").num_images == 8
    assert metrics.EvaluationReport.load("~/a.json").values == {"fid": 1.0}
    names = {"a.npz", "a.json", "a.png", "a.gif", "curves.png", "checkpoints"}
    assert {path.name for path in home.iterdir()} == names
    assert any((home / "checkpoints").iterdir())
    assert not any(here.iterdir())


def test_values_are_plain():
    for given, value in (
        (checks.check_integer("a", np.array(3)), 3),
        (checks.check_float("a", np.float16(0.5)), 0.5),
        (checks.check_float("a", keras.ops.convert_to_tensor(0.5)), 0.5),
        (checks.check_boolean("a", np.True_), True),
        (checks.check_choice("a", np.int64(3), (1, 3)), 3),
        (checks.check_choice("a", np.str_("b"), ("b",)), "b"),
    ):
        assert given == value and type(given) is type(value)
    assert checks.check_tuple("a", [np.int64(1), 2], 2) == (1, 2)
    assert checks.check_tuple("a", np.array([1, 2]), 2) == (1, 2)
    assert checks.check_tuple("a", np.array(3), 2) == (3, 3)
    assert checks.check_choices("a", {np.int64(3)}, (1, 3)) == (3,)
    assert checks.check_dict("a", None) == {}
    assert checks.check_list("a", np.arange(2)) == [0, 1]


def test_a_missing_package_comes_with_its_pip_line():
    with pytest.raises(ImportError, match=r"The onnx format needs no_such.*\n.*\.\[export\]"):
        checks.require("no_such.module", "The onnx format", "export")
