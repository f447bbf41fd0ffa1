"""A checkpoint of another configuration: what is refused, what is warned of, and what is said."""

import hashlib
import json
import shutil
import warnings

import keras
import numpy as np
import pytest
from keras import layers

from keras_sagan import SAGAN
from keras_sagan.callbacks import TrainingCheckpoint
from keras_sagan.layers import ConditionalBatchNorm, SelfAttention2D, SNConv2D

STEP = 3


class Doubled(layers.Layer):
    """A user's layer without `get_config`, whose argument JSON can't hold."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function
        self.dropout = layers.Dropout(0.1)

    def call(self, x):
        return self.function(self.dropout(x))


class OwnDiscriminator(keras.Model):
    """A subclassed model without `get_config`."""

    def __init__(self, object_, pool_size=2):
        super().__init__()
        self.object_ = object_
        self.pool = layers.AveragePooling2D(pool_size)
        self.dense = layers.Dense(1)

    def call(self, images):
        return self.dense(keras.ops.mean(self.pool(images), axis=(1, 2)))


def build(
    pool_size=2,
    equality_constrained=True,
    epsilon=1e-5,
    bn_momentum=0.99,
    bn_epsilon=1e-3,
    slope=0.2,
    activation="relu",
    axis=(1, 2),
    factor=0.5,
    rate=0.1,
    is_swapped=False,
    is_plain=False,
    layer=layers.ReLU,
    own=None,
    dtype=None,
    learning_rate=1e-3,
    beta_1=0.0,
    loss="hinge",
    compiles=True,
    **kwargs,
):
    latents = keras.Input((3,))
    x = layers.Reshape((4, 4, 2))(layers.Dense(32, activation)(latents))
    x = ConditionalBatchNorm(1, epsilon=epsilon)(x)
    x = layers.BatchNormalization(momentum=bn_momentum, epsilon=bn_epsilon)(x)
    x = SelfAttention2D(key_reduction=2, pool_size=pool_size)(layer()(x))
    x = SNConv2D(
        1,
        3,
        padding="same",
        equality_constrained=equality_constrained,
        dtype=dtype,
    )(x)
    generator = keras.Model(latents, layers.Activation("tanh", dtype="float32")(x))
    images = keras.Input((4, 4, 1))
    x = layers.Conv2D(2, 3, padding="same")(images)
    first, second = layers.LeakyReLU(slope)(x), layers.Dropout(rate)(x)
    if is_swapped:
        first, second = second, first
    x = layers.Subtract()([first, second])
    if not is_plain:
        x = Doubled(lambda x: 2 * x)(layers.Lambda(lambda x: x + 1)(x))
    x = keras.ops.mean(x * factor, axis=axis)
    discriminator = keras.Model(images, layers.Dense(1)(layers.Flatten()(x)))
    if own is not None:
        discriminator = OwnDiscriminator(object(), own)
        discriminator(np.zeros((1, 4, 4, 1), "float32"))
    model = SAGAN(generator, discriminator, 3, **{"ema_momentum": 0.9, "seed": 7, **kwargs})
    if compiles:
        optimizers = [keras.optimizers.Adam(learning_rate, beta_1=beta_1) for _ in range(2)]
        model.compile(*optimizers, loss=loss, run_eagerly=True)
    return model


def save(model, directory):
    checkpoint = TrainingCheckpoint(directory)
    checkpoint.set_model(model)
    checkpoint.set_params({"steps": STEP, "epochs": 1})
    checkpoint.on_train_begin()
    checkpoint.on_epoch_begin(0)
    model.steps.assign(STEP)
    checkpoint.save()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # Also of Keras, about lambdas.
        save(build(), directory)
    return directory


def restore(folder, **changes):
    model = build(**changes)
    before = [keras.ops.convert_to_numpy(x).copy() for x in model.variables]
    step = None
    try:
        step = TrainingCheckpoint(folder).restore_latest(model)
    finally:
        if step is None:  # A refused checkpoint changes nothing.
            for one, other in zip(model.variables, before):
                np.testing.assert_array_equal(one, other)
    return step


def test_the_same_configuration_restores_in_silence(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert restore(folder) == STEP  # Keras has numbered its layers on.


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"equality_constrained": False},
            r"`equality_constrained` of `sn_conv2d\w*` of the generator is true in the checkpoint "
            "and false in the model",
        ),
        ({"epsilon": 1e-3}, "`epsilon` of `conditional_batch_norm.* is 1e-05 .* and 0.001"),
        ({"bn_momentum": 0.9}, "`momentum` of `batch_normalization.* is 0.99 .* and 0.9 in"),
        ({"slope": 0.1}, "`negative_slope` of `leaky_re_lu.* of the discriminator is 0.2"),
        ({"activation": "tanh"}, '`activation` of `dense.*"relu" in the checkpoint and "tanh"'),
        ({"axis": (2, 1)}, "`axis` of `mean"),
        ({"layer": layers.Softmax}, r"`softmax\w*` of the generator is a ReLU in the checkpoint"),
        ({"pool_size": 4, "bn_epsilon": 1e-5}, "`epsilon` of .*; `pool_size` of"),
    ],
)
def test_layers_that_compute_something_else_are_refused(folder, changes, message):
    message = f"must be of the same configuration as the model. .*{message}.*Received: .*step-3"
    with pytest.raises(ValueError, match=message):
        restore(folder, **changes)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"d_steps": 2}, "`d_steps` is 1 in the checkpoint and 2 in the model"),
        ({"ema_momentum": 0.99}, "`ema_momentum` is 0.9 in the checkpoint and 0.99 in the model"),
        ({"ema_start": 5}, "`ema_start` is 0 in the checkpoint and 5 in the model"),
        ({"loss": "wasserstein"}, r'`loss` is \["hinge_.* and \["wasserstein_generator_loss'),
        ({"loss": (lambda x: x, lambda x, y: y)}, r'`loss` is .*"<lambda>"'),
        ({"ttur": {"g_learning_rate": 2e-4}}, "`g_learning_rate` is 0.0001 .* and 0.0002"),
        ({"beta_1": 0.5}, "`optimizer.beta_1` is 0.0 .*; `d_optimizer.beta_1` is 0.0"),
        ({"rate": 0.2}, r"`rate` of `dropout\w*` of the discriminator is 0.1 .* and 0.2"),
        ({"dtype": "mixed_bfloat16"}, '`policy` of `sn_conv2d.* "float32" .*"mixed_bfloat16"'),
    ],
)
def test_what_may_be_changed_on_purpose_is_named_in_a_warning(folder, changes, message):
    with pytest.warns(UserWarning, match=f"step-3 .* with different settings: .*{message}"):
        assert restore(folder, **changes) == STEP


def test_rates_that_moved_are_no_other_setting(tmp_path):
    model = build()
    model.g_optimizer.learning_rate = 5e-4
    save(model, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert restore(tmp_path) == STEP
        assert restore(tmp_path, learning_rate=1e-2) == STEP


def test_a_model_that_is_not_compiled_is_compared_as_far_as_it_goes(tmp_path):
    model = build()
    checkpoint = TrainingCheckpoint(tmp_path, monitor="loss")
    checkpoint.set_model(model)
    checkpoint.set_params({"steps": STEP, "epochs": 1})
    checkpoint.on_train_begin()
    model.steps.assign(STEP)
    checkpoint.on_epoch_end(0, {"loss": 1.0})
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert TrainingCheckpoint(tmp_path).restore_best(build(compiles=False)) == STEP
    with pytest.raises(ValueError, match="`pool_size` of"):
        TrainingCheckpoint(tmp_path).restore_best(build(4, compiles=False))


def test_a_subclassed_model_without_a_configuration(tmp_path):
    save(build(own=2), tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert restore(tmp_path, own=2) == STEP
    with pytest.raises(ValueError, match="`pool_size` of `average_pooling2d.*discriminator"):
        restore(tmp_path, own=4)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"factor": 0.25}, "`multiply.*` of the discriminator has different inputs"),
        ({"is_swapped": True}, "`dropout.*` of the discriminator is a LeakyReLU in the checkpoint"),
    ],
)
def test_connections_are_compared_where_every_layer_has_a_configuration(tmp_path, changes, message):
    save(build(is_plain=True), tmp_path)
    assert restore(tmp_path, is_plain=True) == STEP
    with pytest.raises(ValueError, match=message):
        restore(tmp_path, is_plain=True, **changes)


def test_a_model_from_a_file_has_the_same_configuration(tmp_path):
    model = build(is_plain=True)
    model.save(tmp_path / "model.keras")
    save(model, tmp_path / "run")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert TrainingCheckpoint(tmp_path / "run").restore_latest(loaded) == STEP


def change_manifest(folder, change):
    (path,) = folder.glob("step-*/manifest.json")
    manifest = json.loads(path.read_text())["manifest"]
    change(manifest)
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({"sha256": digest, "manifest": manifest}))


def test_checkpoints_of_other_formats(folder, tmp_path):
    folder = shutil.copytree(folder, tmp_path / "run")
    change_manifest(folder, lambda manifest: manifest.update(format=99))
    with pytest.raises(ValueError, match="step-3/manifest.json must be .*update.*format=99"):
        restore(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.clear(),
        lambda manifest: manifest.pop("files"),
        lambda manifest: manifest.update(files=[]),
        lambda manifest: manifest.update(step=4),
        lambda manifest: manifest.update(format="new"),
    ],
)
def test_a_manifest_of_something_else_is_damaged(folder, tmp_path, change):
    folder = shutil.copytree(folder, tmp_path / "run")
    change_manifest(folder, change)
    with pytest.warns(UserWarning, match="damaged.*step-3/"), pytest.raises(OSError):
        restore(folder)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"sha256": 3}', b"\xff", b"[" * 100_000])
def test_a_file_that_is_no_manifest_is_damaged(folder, tmp_path, content):
    folder = shutil.copytree(folder, tmp_path / "run")
    (folder / "step-3/manifest.json").write_bytes(content)
    with pytest.warns(UserWarning, match="damaged.*step-3/"), pytest.raises(OSError):
        restore(folder)
