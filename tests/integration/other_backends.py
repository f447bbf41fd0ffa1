"""Training as Keras users do it, on any backend; `test_backends.py` runs it on JAX and PyTorch."""

import contextlib
import importlib.util
import os
import signal
import threading

import keras
import numpy as np
import pytest
import scalar_gan
import tiny_networks as tiny
from keras import ops

from keras_sagan import SAGAN
from keras_sagan.callbacks import (
    AttentionFigure,
    AttentionMonitor,
    CollapseMonitor,
    RunHistory,
    SampleGrid,
    SpectralMonitor,
    StopOnNonFinite,
    TrainingCheckpoint,
)
from keras_sagan.data import make_dataset
from keras_sagan.distribution import make_strategy
from keras_sagan.layers import DifferentiableAugmentation
from keras_sagan.layers.spectral_norm import Scope
from keras_sagan.models import export_generator
from keras_sagan.penalties import R1, LeCam
from keras_sagan.training import backend

BACKEND = keras.backend.backend()
IMAGES, LABELS = tiny.images(24), tiny.labels(24)
on_jax = pytest.mark.skipif(BACKEND != "jax", reason="JAX only")
on_torch = pytest.mark.skipif(BACKEND != "torch", reason="PyTorch only")
needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed"
)


def compiled(arguments=None, **kwargs):
    keras.utils.set_random_seed(1)
    model = tiny.build_small_sagan(**{"ema_momentum": 0.9, **kwargs})
    model.compile(**{**tiny.sgd(), **(arguments or {})})
    return model


def fitted(images, labels):
    model = compiled()
    model.fit(images, labels, 8, shuffle=False, verbose=0)
    return model


def assert_equal(model, other):
    for value, expected in zip(tiny.weights(model), tiny.weights(other)):
        np.testing.assert_array_equal(value, expected)


def batches():
    for start in range(0, 24, 8):
        yield IMAGES[start : start + 8], LABELS[start : start + 8]


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return tuple(part[8 * index : 8 * index + 8] for part in (IMAGES, LABELS))


def test_every_form_of_data_gives_the_same():
    model = compiled()
    start = model.get_weights()
    model.fit(IMAGES, LABELS, 8, shuffle=False, verbose=0)
    assert int(keras.ops.convert_to_numpy(model.steps)) == 3
    expected = tiny.weights(model)
    forms = [batches(), Batches()]
    if importlib.util.find_spec("torch") is not None:
        import torch
        from torch.utils.data import DataLoader, TensorDataset

        data = TensorDataset(torch.from_numpy(IMAGES), torch.from_numpy(LABELS))
        forms.append(DataLoader(data, batch_size=8))
    if importlib.util.find_spec("tensorflow") is not None:
        import tensorflow as tf

        forms.append(tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(8))
    for data in forms:
        model.set_weights(start)
        model.fit(data, shuffle=False, verbose=0)
        for value, wanted in zip(tiny.weights(model), expected):
            np.testing.assert_array_equal(value, wanted)


@on_jax
def test_several_steps_in_one_execution_give_the_same():
    model = compiled({"steps_per_execution": 2})
    model.fit(IMAGES, LABELS, batch_size=8, shuffle=False, verbose=0)
    assert_equal(model, fitted(IMAGES, LABELS))


def test_eager_steps_equal_compiled_ones():
    models = [scalar_gan.compiled(0.1, 0.2, run_eagerly=is_eager) for is_eager in (True, False)]
    for model in models:
        scalar_gan.fit(model)
        expected = scalar_gan.by_hand(4 * [(0.1, 0.2)])
        np.testing.assert_allclose(scalar_gan.numbers(model), expected, atol=1e-5)


def test_evaluation_is_repeatable_and_assigns_nothing():
    model = compiled()
    before = tiny.weights(model)
    first = model.evaluate(IMAGES, LABELS, batch_size=8, verbose=0, return_dict=True)
    again = model.evaluate(IMAGES, LABELS, batch_size=8, verbose=0, return_dict=True)
    assert first == again and np.isfinite(list(first.values())).all()
    for value, expected in zip(tiny.weights(model), before):
        np.testing.assert_array_equal(value, expected)
    assert model.test_on_batch(IMAGES[:8], LABELS[:8], return_dict=True)["d_loss"] > 0


def test_images_maps_and_walks():
    model = compiled(has_attention=True)
    for _ in range(3):
        model.train_on_batch(IMAGES[:8], LABELS[:8])
    images = model.generate(5, seed=1)
    assert images.dtype == np.uint8 and images.shape == (5, *tiny.SHAPE)
    several = model.generate(5, seed=1, batch_size=2).astype(int)
    assert np.abs(several - images).max() <= 1
    assert not np.array_equal(images, model.generate(5, seed=1, use_ema=False))
    _, scores = model.attention_maps(np.zeros((2, tiny.LATENT_DIM), "float32"), labels=0)
    (scores,) = scores.values()
    np.testing.assert_allclose(scores.sum(axis=(-2, -1)), 1.0, atol=1e-5)
    walk = model.interpolate(rows=2, steps=3, labels=0, to_labels=1, seed=0)
    assert walk.shape == (2, 3, *tiny.SHAPE)
    assert set(model.attention_gammas()) == {"generator/attention"}


class SeesItsStep(keras.callbacks.Callback):
    """Variables have their values after each batch, and what a callback assigns stays."""

    def __init__(self):
        super().__init__()
        self.steps, self.kernels = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(int(keras.ops.convert_to_numpy(self.model.steps)))
        kernel = self.model.generator.trainable_variables[0]
        self.kernels.append(np.array(keras.ops.convert_to_numpy(kernel)))
        if batch == 1:
            self.model.g_optimizer.learning_rate = 0.0


def test_callbacks(tmp_path, monkeypatch):
    monkeypatch.setattr(tiny, "SHAPE", (8, 8, 3))
    images = tiny.images(24)
    model = compiled(has_attention=True)
    seen = SeesItsStep()
    callbacks = [
        seen,
        SampleGrid(tmp_path / "samples", images_per_class=1),
        AttentionFigure(tmp_path / "attention", num_images=1),
        AttentionMonitor(num_images=2),
        CollapseMonitor(),
        SpectralMonitor(),
        StopOnNonFinite(),
        RunHistory(tmp_path / "history.json"),
        keras.callbacks.ModelCheckpoint(tmp_path / "model.keras"),
        keras.callbacks.EarlyStopping("val_g_loss", patience=5, mode="min"),
    ]
    validation = images[:8], LABELS[:8]
    history = model.fit(
        images, LABELS, 8, epochs=2, verbose=0, validation_data=validation, callbacks=callbacks
    )
    assert seen.steps == [1, 2, 3, 4, 5, 6]
    assert not np.array_equal(seen.kernels[0], seen.kernels[1])
    assert np.array_equal(seen.kernels[1], seen.kernels[2])  # The rate is 0 from there on.
    assert len(history.history["val_d_loss"]) == 2
    assert len([*tmp_path.rglob("*.png")]) >= 4
    assert_equal(keras.saving.load_model(tmp_path / "model.keras"), model)


def test_ctrl_c_leaves_the_last_whole_step():
    handler = signal.getsignal(signal.SIGINT)  # A shell's background job ignores it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupted():
        for index, batch in enumerate(batches()):
            if index == 2:  # Keras looks at two batches before it begins.
                os.kill(os.getpid(), signal.SIGINT)
            yield batch

    model = compiled()
    try:
        with pytest.raises(KeyboardInterrupt):
            model.fit(interrupted(), verbose=0)
    finally:
        signal.signal(signal.SIGINT, handler)
    steps = int(keras.ops.convert_to_numpy(model.steps))
    assert steps in (2, 3)  # On PyTorch it may come between two steps.
    assert_equal(model, fitted(IMAGES[: 8 * steps], LABELS[: 8 * steps]))


class StopAt(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.steps.numpy()) == 4:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "policy, kind",
    [
        ("float32", "arrays"),
        ("float32", "made to end"),
        ("mixed_float16", "made"),
        ("mixed_bfloat16", "restored"),
    ],
)
def test_a_run_resumes_to_the_bit(policy, kind, tmp_path):
    """Interrupted in the middle of its second epoch; a restart has other weights."""
    keras.config.set_dtype_policy(policy)
    images = ((IMAGES + 1.0) * 127.0).astype("uint8")

    def fit(model, *used, step=0):
        arguments = {"epochs": 2, "verbose": 0, "callbacks": used}
        if kind == "arrays":
            return model.fit(images, LABELS, batch_size=8, shuffle=False, **arguments)
        ends = kind == "made to end"
        data = make_dataset(images, LABELS, 8, seed=2, start_step=step, repeat=not ends)
        return model.fit(data, steps_per_epoch=None if ends else 3, **arguments)

    straight = compiled()
    expected = fit(straight).history
    with pytest.raises(KeyboardInterrupt):
        fit(compiled(), TrainingCheckpoint(tmp_path, every_steps=1, use_background=True), StopAt())
    checkpoint, resumed = TrainingCheckpoint(tmp_path), compiled()
    for variable in resumed.generator.trainable_variables:
        variable.assign(variable + 1.0)
    step = checkpoint.restore_latest(resumed) if kind == "restored" else 0
    history = fit(resumed, checkpoint, step=step).history
    assert_equal(resumed, straight)
    assert {name: values[-1:] for name, values in expected.items()} == history


@on_torch
def test_other_data_that_the_caller_positioned_are_refused_in_the_middle_of_an_epoch(tmp_path):
    checkpoint, model = TrainingCheckpoint(tmp_path, every_steps=1), compiled()
    with pytest.raises(KeyboardInterrupt):
        model.fit(Batches(), epochs=2, verbose=0, callbacks=[checkpoint, StopAt()])
    checkpoint, model = TrainingCheckpoint(tmp_path), compiled()
    assert checkpoint.restore_latest(model) == 4
    with pytest.raises(ValueError, match="On PyTorch, data .* Received: Batches at step 4"):
        model.fit(Batches(), epochs=2, verbose=0, callbacks=[checkpoint])


def test_callbacks_that_set_the_rate():
    model = compiled()
    halve = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    model.fit(IMAGES, LABELS, 8, epochs=2, verbose=0, callbacks=[halve])
    assert float(model.g_optimizer.learning_rate.numpy()) == pytest.approx(0.005)
    assert float(model.d_optimizer.learning_rate.numpy()) == pytest.approx(0.01)


def test_a_frozen_network():
    model = compiled()
    model.generator.trainable = False
    model.compile(**tiny.sgd())
    before = tiny.weights(model.generator)
    model.fit(IMAGES, LABELS, 8, verbose=0)
    for value, expected in zip(tiny.weights(model.generator), before):
        np.testing.assert_array_equal(value, expected)


def test_another_thread_generates_during_fit():
    model, found = compiled(), []
    model.generate(2, seed=0)

    def generate():
        while not is_done.is_set():
            try:
                found.append(model.generate(2, seed=0))
            except Exception as error:
                found.append(error)

    is_done = threading.Event()
    thread = threading.Thread(target=generate)
    thread.start()
    model.fit(IMAGES, LABELS, 8, epochs=5, shuffle=False, verbose=0)
    is_done.set()
    thread.join()
    assert found and all(isinstance(x, np.ndarray) for x in found), found
    undisturbed = compiled()
    undisturbed.fit(IMAGES, LABELS, 8, epochs=5, shuffle=False, verbose=0)
    assert_equal(model, undisturbed)


def test_noise_is_a_function_of_seed_and_step():
    def draw(seed, step, index):
        noise = backend.draw_noise((seed, step, index), 4096, 3, num_classes=5)
        return [keras.ops.convert_to_numpy(x) for x in noise]

    latents, labels = draw(1, 2, 0)
    assert latents.dtype == np.float32 and labels.dtype == np.int32
    assert abs(latents.mean()) < 0.05 and abs(latents.std() - 1.0) < 0.05
    assert (np.bincount(labels, minlength=5) > 700).all()
    for value, again in zip((latents, labels), draw(1, 2, 0)):
        np.testing.assert_array_equal(value, again)
    for other in ((2, 2, 0), (1, 3, 0), (1, 2, 1), (1, 2, -1)):
        assert abs(np.corrcoef(latents.ravel(), draw(*other)[0].ravel())[0, 1]) < 0.05
    uniform = keras.ops.convert_to_numpy(backend.draw_uniform((1, 2, 0, 2, 0), 4096, 2))
    assert 0.0 <= uniform.min() < 0.01 and 0.99 < uniform.max() < 1.0


def test_a_skipped_update_moves_nothing():
    keras.config.set_dtype_policy("mixed_float16")
    model = compiled(
        {
            name: keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=scale)
            for (name, optimizer), scale in zip(tiny.sgd().items(), (1e38, 1.0))
        }
    )
    generator = [np.array(keras.ops.convert_to_numpy(v)) for v in model.generator.variables]
    before = tiny.weights(model.discriminator)
    model.train_on_batch(IMAGES[:8], LABELS[:8])
    for value, expected in zip(model.generator.variables, generator):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(value), expected)
    assert not np.array_equal(tiny.weights(model.discriminator)[0], before[0])
    assert float(keras.ops.convert_to_numpy(model.g_optimizer.dynamic_scale)) == np.float32(5e37)
    assert int(keras.ops.convert_to_numpy(model.g_optimizer.iterations)) == 0


@on_torch
def test_gray_images_in_half_precision():
    """PyTorch on CPUs has no gradient for a convolution with a single float16 filter."""
    keras.config.set_dtype_policy("mixed_float16")
    small = {"image_size": 8, "attention_resolutions": (), "base_filters": 4, "latent_dim": 3}
    model = SAGAN.from_preset("sagan_photos_64", channels=1, **small)
    model.compile()
    before = [v.numpy() for v in model.generator.get_layer("last_conv").trainable_variables]
    for _ in range(3):  # The first updates may be skipped, until the loss scale fits.
        model.train_on_batch(np.zeros((4, 8, 8, 1), "float32"))
    after = [v.numpy() for v in model.generator.get_layer("last_conv").trainable_variables]
    assert all(np.any(x != y) for x, y in zip(before, after, strict=True))


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_schedules_follow_the_steps(policy):
    keras.config.set_dtype_policy(policy)
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([2], [0.02, 0.0])
    optimizers = {name: keras.optimizers.SGD(schedule) for name in tiny.sgd()}
    if policy == "mixed_float16":
        optimizers = {
            name: keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=4.0)
            for name, optimizer in optimizers.items()
        }
    model, kernels = compiled(optimizers, d_steps=2), []
    for _ in range(5):
        model.train_on_batch(IMAGES[:8], LABELS[:8])
        kernel = model.discriminator.trainable_variables[0]
        kernels.append(np.array(keras.ops.convert_to_numpy(kernel)))
    assert not np.array_equal(kernels[0], kernels[1])
    assert np.array_equal(kernels[3], kernels[4])


@on_jax
def test_a_step_in_a_jit_of_the_users_own():
    import jax

    model = compiled()
    variables = model.variables

    def step(values):
        with Scope(zip(variables, values)):
            model.train_step((IMAGES[:8], LABELS[:8]))
            return [v.value for v in model.generator.trainable_variables]

    kernels = jax.jit(step)([v.value for v in variables])
    other = compiled()
    other.train_on_batch(IMAGES[:8], LABELS[:8])
    for value, expected in zip(kernels, other.generator.trainable_variables):
        np.testing.assert_allclose(value, expected.numpy(), atol=1e-5)


class ThirdOptimizer(SAGAN):
    def __init__(self, is_tracked, *args):
        super().__init__(*args)
        self.q_optimizer = keras.optimizers.SGD(0.1, momentum=0.5)
        self.q_optimizer.build(self.generator.trainable_variables)
        if is_tracked:
            self.q_state = self.q_optimizer.variables

    def train_step(self, data):
        variables = self.generator.trainable_variables
        self.q_optimizer.apply([ops.ones(x.shape) for x in variables], variables)
        return super().train_step(data)


def test_variables_that_a_step_assigns():
    networks = compiled().generator, compiled().discriminator, tiny.LATENT_DIM, tiny.CLASSES
    model = ThirdOptimizer(True, *networks)
    model.compile(**tiny.sgd())
    model.fit(IMAGES, LABELS, 8, verbose=0)
    assert int(ops.convert_to_numpy(model.q_optimizer.iterations)) == 3
    assert {id(x) for x in model.q_optimizer.variables} <= {id(x) for x in model.variables}
    if BACKEND == "jax":
        model = ThirdOptimizer(False, *networks)
        model.compile(**tiny.sgd())
        with pytest.raises(ValueError, match="may assign only variables that the model tracks"):
            model.fit(IMAGES, LABELS, 8, verbose=0)


# What can't be done is said


def test_a_model_that_is_not_compiled():
    for method in ("fit", "evaluate"):
        with pytest.raises(ValueError, match=r"You must call `compile\(\)`"):
            getattr(tiny.build_small_sagan(), method)(IMAGES, LABELS, verbose=0)


def test_empty_data():
    for method in ("fit", "evaluate"):
        with pytest.raises(ValueError, match="must yield at least one batch"):
            getattr(compiled(), method)((x for x in ()), verbose=0)


def test_a_loss_that_is_no_scalar():
    model = compiled({"loss": (lambda fake: -fake, lambda real, fake: ops.mean(fake - real))})
    with pytest.raises(ValueError, match=r"`loss` and .* must return scalars.*shape \(8,\)"):
        model.train_on_batch(IMAGES[:8], LABELS[:8])


def test_labels_out_of_range():
    with pytest.raises(ValueError, match="`labels` must lie in"):
        compiled().fit(IMAGES, LABELS + 3, 8, verbose=0)


@on_torch
def test_settings_that_pytorch_cannot_do(tmp_path):
    for name, value in (("steps_per_execution", 2), ("jit_compile", True)):
        with pytest.raises(ValueError, match=f"`{name}` must be .* on torch"):
            compiled({name: value})
    model = compiled()
    model._compile_arguments["steps_per_execution"] = 4
    model.save(tmp_path / "model.keras")
    with pytest.warns(UserWarning, match="saved with steps_per_execution=4, which torch can't do"):
        loaded = keras.saving.load_model(tmp_path / "model.keras")
    loaded.fit(IMAGES, LABELS, 8, verbose=0)


@needs_tensorflow
def test_a_strategy_of_another_backend():
    import tensorflow as tf

    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        with pytest.raises(ValueError, match="belongs to the TensorFlow backend"):
            tiny.build_small_sagan()


@on_torch
def test_pytorch_has_no_strategies():
    assert make_strategy() is None
    with pytest.raises(ValueError, match="PyTorch trains on one device. Received: name='mirrored'"):
        make_strategy("mirrored")


@on_torch
def test_a_distribution_on_another_backend(monkeypatch):
    monkeypatch.setattr(keras.distribution, "distribution", lambda: object())
    with pytest.raises(ValueError, match="`keras.distribution` belongs to the JAX backend"):
        tiny.build_small_sagan()


def test_exports_are_tensorflows(tmp_path):
    with pytest.raises(RuntimeError, match="KERAS_BACKEND=tensorflow"):
        export_generator(compiled(), tmp_path)


# Several devices of JAX's


@on_jax
def test_distributions():
    distribution = keras.distribution.DataParallel()
    assert distribution.device_mesh.shape == (2,)
    model = compiled()
    networks = model.generator, model.discriminator
    with distribution.scope():
        with pytest.raises(ValueError, match="`fit` must be called under the distribution"):
            model.fit(IMAGES, LABELS, 8, verbose=0)
        with pytest.raises(ValueError, match="`generator` must be built after"):
            SAGAN(*networks, tiny.LATENT_DIM, tiny.CLASSES)
        shared = compiled()
        with pytest.raises(ValueError, match=r"`x` must yield batches that the 2 .* divide"):
            shared.fit(IMAGES[:5], LABELS[:5], 8, verbose=0)
        shared.fit(IMAGES, LABELS, 8, shuffle=False, verbose=0)
        found = tiny.weights(shared)
        shared.evaluate(IMAGES, LABELS, 8, verbose=0)
        assert shared.generate(3, seed=0).shape == (3, *tiny.SHAPE)
        with pytest.raises(ValueError, match="must yield batches that the devices divide"):
            shared.fit(((IMAGES[:n], LABELS[:n]) for n in (8, 5)), verbose=0)
    with pytest.raises(ValueError, match="`evaluate` must be called under the distribution"):
        shared.evaluate(IMAGES, LABELS, verbose=0)
    model.fit(IMAGES, LABELS, 8, shuffle=False, verbose=0)
    for value, expected in zip(found, tiny.weights(model)):
        np.testing.assert_allclose(value, expected, atol=1e-5)


@on_jax
def test_two_devices_share_augmentation_and_penalties():
    """Each image has the draws that it has on one device, and averages are over all images."""
    slots = {
        "augmentation": DifferentiableAugmentation("color", False, "adaptive", target=-1, speed=50),
        "penalty": R1(0.1, every=2) + LeCam(0.1),
        "loss": "relativistic",
    }
    found = None
    distribution = keras.distribution.DataParallel()
    assert distribution.device_mesh.shape == (2,)
    for scope in (contextlib.nullcontext(), distribution.scope()):
        with scope:
            model = compiled(slots)
            model.fit(IMAGES, LABELS, 8, epochs=2, shuffle=False, verbose=0)
            expected, found = found, tiny.weights(model)
            state = {x.name: float(x.value) for x in model.variables if "slots" in x.path}
    for value, one in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, one, atol=1e-5)
    assert state["augmentation_probability"] > 0 and state["average_of_1"] > 0
