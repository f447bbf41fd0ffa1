"""SAGAN under MirroredStrategy on two logical CPU devices."""

import types

import keras
import numpy as np
import pytest
import scalar_gan
import tensorflow as tf
import tiny_networks as tiny
from keras import layers
from pipelines import untuned
from replicas import two_replicas

from keras_sagan import (
    SAGAN,
    ConditionalBatchNorm,
    SelfAttention2D,
    SNConv2D,
    SNDense,
    callbacks,
)
from keras_sagan.layers import DifferentiableAugmentation
from keras_sagan.metrics import FrechetInceptionDistance
from keras_sagan.models.batches import check_shares
from keras_sagan.penalties import R1
from keras_sagan.training import input_gradient
from keras_sagan.training.step import draw_noise, update

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (40, *tiny.SHAPE)).astype("uint8")
LABELS = RNG.integers(0, 3, 40).astype("int32")


def one_replica():
    return tf.distribute.get_strategy()


def make_model(synchronized=True, channels=2, **arguments):
    keras.utils.set_random_seed(3)
    latents, labels = keras.Input((4,)), keras.Input((), dtype="int32")
    x = layers.Reshape((4, 4, 8))(SNDense(4 * 4 * 8)(latents))
    x = ConditionalBatchNorm(3, momentum=0.9, synchronized=synchronized)(x, labels)
    x = layers.UpSampling2D()(layers.ReLU()(x))
    x = SelfAttention2D(key_reduction=4)(x)
    images = layers.Activation("tanh", dtype="float32")(SNConv2D(channels, 3, padding="same")(x))
    generator = keras.Model([latents, labels], images)
    images, labels = keras.Input((8, 8, channels)), keras.Input((), dtype="int32")
    x = SNConv2D(8, 3, strides=2, padding="same", activation="relu")(images)
    x = layers.Concatenate()([layers.Flatten()(x), layers.Embedding(3, 4)(labels)])
    discriminator = keras.Model([images, labels], SNDense(1, dtype="float32")(x))
    arguments = {"ema_momentum": 0.9, "seed": 5, **arguments}
    return SAGAN(generator, discriminator, latent_dim=4, num_classes=3, **arguments)


def data(batch_size=8, drop_remainder=True, channels=2):
    dataset = tf.data.Dataset.from_tensor_slices((IMAGES[..., :channels], LABELS))
    return untuned(dataset.batch(batch_size, drop_remainder=drop_remainder))


def train(strategy, optimizer="sgd", policy="float32", synchronized=True, **arguments):
    compile_arguments = {k: arguments.pop(k) for k in list(arguments) if k in COMPILE}
    with strategy.scope():
        keras.config.set_dtype_policy(policy)
        model = make_model(synchronized, **arguments)
        make = {"sgd": lambda: keras.optimizers.SGD(0.05), "adam": lambda: "auto"}[optimizer]
        model.compile(make(), make(), **compile_arguments)
    history = model.fit(data(), verbose=0, steps_per_epoch=2).history
    return model, history


COMPILE = ("jit_compile", "run_eagerly", "augmentation", "penalty")


def copies(variable):
    return [np.asarray(x) for x in getattr(variable.value, "values", [variable.value])]


def assert_copies_agree(model):
    variables = [*model.variables, *model.optimizer.variables]
    metrics = {id(v) for metric in model.metrics for v in metric.variables}
    seen = 0
    for variable in variables:
        if id(variable) in metrics:  # summed when read
            continue
        first, *others = copies(variable)
        seen += len(others)
        for other in others:
            np.testing.assert_array_equal(first, other, err_msg=variable.path)
    assert seen > 30


def squared_gradient(judge, real, fake):
    gradient = input_gradient(lambda x: judge(x, real[1]), real[0])
    return keras.ops.mean(keras.ops.sum(gradient**2, axis=(1, 2, 3)))


@pytest.mark.slow
def test_two_replicas_equal_one():
    """With an augmentation and a penalty; `test_forms_of_batches.py` does without."""
    augmentation = DifferentiableAugmentation(flip=True, probability=0.7)
    slots = {"augmentation": augmentation, "penalty": squared_gradient}
    one, expected = train(one_replica(), run_eagerly=True, **slots)
    two, history = train(two_replicas(), **slots)
    assert int(two.steps.numpy()) == 2
    for first, second in zip(one.variables, two.variables):
        np.testing.assert_allclose(
            np.asarray(first), np.asarray(second), atol=1e-5, err_msg=first.path
        )
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, atol=1e-5, err_msg=name)
    assert_copies_agree(two)


@pytest.mark.slow
def test_copies_agree_with_adam_loss_scales_and_unsynchronised_statistics():
    model, history = train(two_replicas(), "adam", "mixed_float16", synchronized=False)
    assert_copies_agree(model)
    assert all(np.isfinite(v).all() for v in history.values())
    for optimizer, scale in ((model.g_optimizer, 2.0**127), (model.d_optimizer, 2.0**8)):
        assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        optimizer.dynamic_scale.assign(scale)
    # Every gradient of the generator overflows: both replicas skip its update.
    networks = model.generator, model.discriminator
    before = [[copies(x) for x in network.variables] for network in networks]
    model.fit(data(), verbose=0, steps_per_epoch=1)
    after = [[copies(x) for x in network.variables] for network in networks]
    keras.tree.map_structure(np.testing.assert_array_equal, before[0], after[0])
    assert any(np.any(one[0] != other[0]) for one, other in zip(before[1], after[1]))


@pytest.mark.parametrize("overflows", [[1.0, np.inf], [np.nan, 1.0], [1.0, 2.0]])
def test_an_overflow_on_one_replica_skips_the_update_on_all(overflows):
    """Keras looks at the gradients of the first replica alone."""
    strategy = two_replicas()
    with strategy.scope():
        weight = keras.Variable([3.0, 4.0])
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0), 8.0)
        optimizer.build([weight])
    network = types.SimpleNamespace(trainable_variables=[weight], variables=[weight])

    def step():
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        gradients = [tf.constant([0.0, 8.0]) * tf.gather(tf.constant(overflows), number)]
        update(network, optimizer, gradients, [None])

    strategy.run(tf.function(step))
    is_finite = np.isfinite(overflows).all()
    expected = ([3.0, 4.0 - 3.0], 8.0) if is_finite else ([3.0, 4.0], 4.0)
    for copy in copies(weight):
        np.testing.assert_array_equal(copy, expected[0])
    assert float(optimizer.dynamic_scale.numpy()) == expected[1]


def test_latents_are_slices_of_the_global_draw():
    strategy = two_replicas()
    with strategy.scope():
        model = tiny.build_small_sagan()
    parts = strategy.run(lambda: draw_noise(model, 0, 4))
    latents, labels = (strategy.experimental_local_results(part) for part in parts)
    whole, whole_labels = draw_noise(tiny.build_small_sagan(), 0, 8)
    assert not np.array_equal(latents[0], latents[1])
    assert not np.array_equal(labels[0], labels[1])
    np.testing.assert_array_equal(np.concatenate(latents), whole)
    np.testing.assert_array_equal(np.concatenate(labels), whole_labels)


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, True])
def test_xla_compiles_what_a_replica_computes(jit_compile, monkeypatch):
    """What it computes is compared in `test_support_matrix.py`."""
    made, function = [], tf.function

    def spy(*args, **kwargs):
        wrapped = getattr(args[0], "func", None) if args else None
        if getattr(wrapped, "__module__", "").endswith("training.step"):
            made.append(kwargs.get("jit_compile"))
        return function(*args, **kwargs)

    with two_replicas().scope():
        model = scalar_gan.build()
        model.compile(jit_compile=jit_compile)
    monkeypatch.setattr(tf, "function", spy)
    model.fit(scalar_gan.IMAGES[:4], batch_size=4, verbose=0)
    # Of each network's gradients on each replica; the whole step is never compiled by XLA.
    assert made.count(True) == (4 if jit_compile else 0)


def lazy_fit(layer, images):
    model = keras.Sequential([layer, layers.Flatten(), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
    model.fit(images, np.ones(len(images)), verbose=0)


def in_stateless_scope(layer, images):
    with keras.StatelessScope():
        layer(images)


@pytest.mark.slow
@pytest.mark.parametrize(
    "build", [lambda layer, images: layer(images), in_stateless_scope, lazy_fit]
)
def test_spectral_norms_start_converged_and_equal_on_all_replicas(build):
    strategy = two_replicas()
    layer = SNConv2D(6, 3)
    with strategy.scope():
        build(layer, np.ones((4, 8, 8, 2), "float32"))
    kernel = np.asarray(layer.kernel).reshape(-1, 6)
    assert float(layer.sigma) == pytest.approx(np.linalg.norm(kernel, 2), rel=1e-3)
    for variable in (layer.kernel, layer.vector_u):
        copies = strategy.experimental_local_results(variable.value)
        assert len(copies) == 2
        np.testing.assert_array_equal(*(copy.numpy() for copy in copies))


def test_lazy_penalties_with_synchronised_statistics_are_refused():
    with two_replicas().scope():
        model = tiny.build_small_sagan()
        norm = layers.BatchNormalization(synchronized=True)
        images, labels = keras.Input(tiny.SHAPE), keras.Input((), dtype="int32")
        logits = model.discriminator([norm(images), labels])
        discriminator = keras.Model([images, labels], logits)
        model = SAGAN(model.generator, discriminator, tiny.LATENT_DIM, tiny.CLASSES)
        model.compile(penalty=R1(1.0, every=2))
    with pytest.raises(ValueError, match="`every` above 1 needs synchronized=False.*every=2"):
        model.fit(data(), verbose=0)


def test_xla_with_synchronised_statistics_is_refused():
    with pytest.raises(ValueError, match="needs synchronized=False.*Received: jit_compile=True"):
        train(two_replicas(), jit_compile=True)


@pytest.mark.parametrize("mean", [0.0, 1000.0])
def test_synchronised_statistics_do_not_cancel(mean):
    strategy = two_replicas()
    images = RNG.normal(mean, 1.0, (8, 8, 8, 2)).astype("float32")
    with strategy.scope():
        layer = ConditionalBatchNorm(1, synchronized=True)
        layer.build(images.shape)
    halves = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(np.split(images, 2)[context.replica_id_in_sync_group])
    )
    run = tf.function(lambda x: strategy.run(lambda x: layer(x, training=True), (x,)))
    outputs = run(halves)
    outputs = np.concatenate(strategy.experimental_local_results(outputs))
    exact = images.astype("float64")
    expected = (exact - exact.mean((0, 1, 2))) / np.sqrt(exact.var((0, 1, 2)) + 1e-5)
    assert np.abs(outputs - expected).max() <= 5e-3
    np.testing.assert_allclose(np.asarray(layer.moving_variance), exact.var((0, 1, 2)), rtol=1e-3)


def test_synchronised_statistics_of_masked_images_are_those_of_the_global_batch():
    strategy, rng = two_replicas(), np.random.default_rng(0)
    images, mask = rng.normal(3.0, 2.0, (8, 4, 4, 2)).astype("float32"), rng.random((8, 4, 4)) < 0.4
    mask[4:, 1:] = False  # The second replica has fewer.
    with strategy.scope():
        layer = ConditionalBatchNorm(1, synchronized=True)
        layer.build(images.shape)
    halves = [
        strategy.experimental_distribute_values_from_function(
            lambda context, x=x: tf.constant(np.split(x, 2)[context.replica_id_in_sync_group])
        )
        for x in (images, mask)
    ]
    run = tf.function(strategy.run, autograph=False)
    outputs = run(lambda x, mask: layer(x, training=True, mask=mask), halves)
    outputs = np.concatenate(strategy.experimental_local_results(outputs))
    chosen = images[mask].astype("float64")
    expected = (images - chosen.mean(0)) / np.sqrt(chosen.var(0) + 1e-5)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.asarray(layer.moving_mean), chosen.mean(0), rtol=1e-4)
    np.testing.assert_allclose(np.asarray(layer.moving_variance), chosen.var(0), rtol=1e-4)


@pytest.mark.parametrize("batch_size, sizes", [(13, r"\[7, 6\]"), (39, r"\[1, 0\]")])
def test_batches_that_the_replicas_do_not_divide_are_refused(batch_size, sizes):
    with two_replicas().scope():
        model = tiny.build_small_sagan()
        model.compile()
    with pytest.raises(ValueError, match=f"`x` must yield batches.*drop_remainder.*{sizes}"):
        model.fit(data(batch_size, drop_remainder=False).skip(int(batch_size == 39)), verbose=0)
    with pytest.raises(ValueError, match=f"the `x` of `evaluate` must yield batches.*{sizes}"):
        uneven = data(batch_size, drop_remainder=False).skip(int(batch_size == 39))
        model.evaluate(uneven, verbose=0)


def fits(model, count, batch_size=None, **kwargs):
    return model.fit(IMAGES[:count], LABELS[:count], batch_size=batch_size, verbose=0, **kwargs)


@pytest.mark.slow
def test_arrays_that_the_replicas_do_not_divide_are_refused_before_training():
    with two_replicas().scope():
        model = tiny.build_small_sagan()
        model.compile(run_eagerly=True)
    odd = IMAGES[:5], LABELS[:5]
    started = []
    note = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: started.append(1))
    for name, advice, count, batch_size, kwargs in (
        ("x", r"take `x\[:38\]`, labels too, with batch_size=32", 39, None, {}),
        ("x", r"take `x\[:8\]`, labels too, with batch_size=8", 9, 8, {}),
        ("x", r"take `x\[:8\]`, labels too, with batch_size=2", 8, 3, {}),
        ("x", r"take `x\[:2\]`, labels too, with batch_size=2", 3, 4, {}),
        ("validation_data", r"take `validation_data\[:4\]`", 8, 4, {"validation_data": odd}),
    ):
        with pytest.raises(ValueError, match=f"`{name}` must yield batches that the 2 .*{advice}"):
            fits(model, count, batch_size, callbacks=[note], **kwargs)
    with pytest.raises(ValueError, match=r"`x` must yield .*take `x\[:4\]`.*Received: x of 5"):
        model.evaluate(*odd, batch_size=4, verbose=0)
    assert not started and copies(model.steps)[0] == 0
    for count, batch_size in ((38, 32), (8, 8), (8, 2), (2, 2)):  # What the messages advise.
        check_shares("x", count, batch_size, 2)
    taken = fits(model, 4, 2, steps_per_epoch=1, validation_data=(IMAGES[:4], LABELS[:4]))
    assert taken.epoch == [0]
    fits(model, 5, 4, steps_per_epoch=1)  # The odd batch is never reached.
    assert copies(model.steps)[0] == 2


@pytest.mark.slow
def test_evaluate_generate_and_all_callbacks(tmp_path):
    grey = data(channels=1)
    with two_replicas().scope():
        model = make_model(channels=1)
        model.compile()
    alone = make_model(channels=1, seed=6)
    alone.compile(run_eagerly=True)
    metric = FrechetInceptionDistance(lambda x: x[:, ::4, ::4, 0])
    evaluator = callbacks.FIDEvaluator(metric, IMAGES[..., :1], num_images=20, batch_size=10)
    figures = [
        evaluator,
        callbacks.AttentionMonitor(num_images=2),
        callbacks.SpectralMonitor(),
        callbacks.CollapseMonitor(images_per_class=2),
        callbacks.StopOnNonFinite(),
        callbacks.RunHistory(tmp_path / "history.json"),
    ]
    pictures = [callbacks.SampleGrid(tmp_path), callbacks.AttentionFigure(tmp_path, num_images=2)]
    checkpoint = callbacks.TrainingCheckpoint(tmp_path / "run", monitor="fid_20")
    all_of_them = [*figures, *pictures, checkpoint]
    assert {type(x).__name__ for x in all_of_them} == set(callbacks.__all__)
    history = model.fit(
        grey, validation_data=grey, verbose=0, callbacks=all_of_them, steps_per_epoch=5
    ).history
    # One device that goes on from the checkpoint of two sees the same.
    assert callbacks.TrainingCheckpoint(tmp_path / "run").restore_latest(alone) == 5
    np.testing.assert_array_equal(model.generate(5, seed=1), alone.generate(5, seed=1))
    evaluator = callbacks.FIDEvaluator(metric, None, num_images=20, batch_size=10)
    evaluator.set_model(alone)
    assert history["fid_20"][-1] == pytest.approx(evaluator.evaluate(), rel=1e-5)
    names = {path.name for path in tmp_path.glob("*_001*.png")}
    assert names == {"samples_epoch_001.png", "attention_epoch_001.png"}
    assert (tmp_path / "run" / "best" / "step-5").is_dir()
    figures = {"fid_20", "sample_diversity", "sigma/generator"}
    assert figures < set(history) and np.isfinite([x[-1] for x in history.values()]).all()
    for name, gamma in alone.attention_gammas().items():
        network = name.split("/")[0]
        (received,) = [x[-1] for key, x in history.items() if key.startswith(f"gamma/{network}/")]
        assert received == gamma != 0.0
    one, other = (x.evaluate(grey, return_dict=True, verbose=0) for x in (model, alone))
    assert one == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize("name", ["g_optimizer", "d_optimizer"])
def test_gradient_accumulation_over_replicas_is_refused(name):
    with two_replicas().scope():
        model = tiny.build_small_sagan()
        accumulating = keras.optimizers.SGD(0.05, gradient_accumulation_steps=2)
        model.compile(**{"d_optimizer": "auto", name: accumulating})
    with pytest.raises(ValueError, match=f"`{name}` must not accumulate.*steps=2 over 2"):
        model.fit(data(), verbose=0)


@pytest.mark.slow
def test_compile_under_another_strategy_is_refused():
    strategy, alone = two_replicas(), tiny.build_small_sagan()
    with strategy.scope():
        model = tiny.build_small_sagan()
    message = "`compile` must be called under the strategy that .* in. Received: a model built"
    with pytest.raises(ValueError, match=f"{message} under MirroredStrategy"):
        model.compile()
    with strategy.scope(), pytest.raises(ValueError, match=message):
        alone.compile()
    for name in ("g_optimizer", "d_optimizer"):
        optimizer = {"d_optimizer": "auto", name: keras.optimizers.SGD(0.05)}
        with strategy.scope(), pytest.raises(ValueError, match=f"`{name}` must be built inside"):
            model.compile(**optimizer)


def test_networks_of_another_scope_are_refused():
    outside = tiny.build_small_sagan()
    with two_replicas().scope():
        inside = tiny.build_small_sagan()
    message = "`generator` must be built inside the `strategy.scope\\(\\)`"
    with two_replicas().scope(), pytest.raises(ValueError, match=message):
        SAGAN(outside.generator, outside.discriminator, tiny.LATENT_DIM, tiny.CLASSES)
    with pytest.raises(ValueError, match=message):
        SAGAN(inside.generator, inside.discriminator, tiny.LATENT_DIM, tiny.CLASSES)


def test_fit_under_another_strategy_is_refused():
    model = tiny.build_small_sagan()
    model.compile()
    batch = IMAGES[:4], LABELS[:4]
    for method in ("evaluate", "train_on_batch", "test_on_batch"):
        message = f"`{method}` must be called under the strategy.*Received"
        with two_replicas().scope(), pytest.raises(ValueError, match=message):
            getattr(model, method)(*batch)
    with two_replicas().scope(), pytest.raises(ValueError, match="`fit` must be called under"):
        model.fit(data(), verbose=0)


@pytest.mark.slow
def test_keras_batch_norm_that_is_synchronized():
    """In both networks, as with one replica: its statistics forget their start on each replica."""
    found = []
    for strategy in (two_replicas(), one_replica()):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            generator = keras.Sequential([keras.Input((4,)), layers.Dense(128)])
            generator.add(layers.BatchNormalization(synchronized=True))
            generator.add(layers.Reshape(tiny.SHAPE))
            generator.add(layers.Activation("tanh"))
            discriminator = keras.Sequential([keras.Input(tiny.SHAPE), layers.Flatten()])
            discriminator.add(layers.BatchNormalization(synchronized=True))
            discriminator.add(layers.Dense(1))
            model = SAGAN(generator, discriminator, latent_dim=4, ema_momentum=0.9, seed=5)
            model.compile(**tiny.sgd(0.01), run_eagerly=len(found) == 1)
        images = tf.data.Dataset.from_tensor_slices(IMAGES[:24])
        model.fit(untuned(images.batch(8, drop_remainder=True)), verbose=0)
        found.append([np.array(keras.ops.convert_to_numpy(x)) for x in model.variables])
    for one, other in zip(*found):
        np.testing.assert_allclose(one, other, atol=1e-4)
