"""Only the fakes with the largest logits count for the generator; on every backend."""

import keras
import numpy as np
import pytest
import tiny_networks as tiny
from keras import ops

from keras_sagan.training.step import best_fakes

BACKEND = keras.backend.backend()
IMAGES, LABELS = tiny.images(8), tiny.labels(8)
RNG = np.random.default_rng(0)
REAL, FAKE = RNG.normal(size=(2, 100)).astype("float32")


@pytest.mark.parametrize("top_k, count", [(3, 3), (100, 100), (0.29, 29), (1.0, 100), (0.001, 1)])
def test_the_best_with_their_real_partners(top_k, count):
    real, fake = best_fakes(top_k, (ops.convert_to_tensor(REAL), ops.convert_to_tensor(FAKE)), 100)
    order = np.argsort(-FAKE)[:count]
    found = sorted(zip(ops.convert_to_numpy(fake), ops.convert_to_numpy(real)), reverse=True)
    np.testing.assert_array_equal(np.array(found).T, [FAKE[order], REAL[order]])


def test_an_image_with_a_map_of_logits_counts_by_their_mean():
    real, fake = best_fakes(2, (None, ops.convert_to_tensor(FAKE)), 10)
    rows = FAKE.reshape(10, 10)
    best = np.sort(rows[np.argsort(rows.mean(axis=1))[-2:]].ravel())
    assert real is None
    np.testing.assert_array_equal(np.sort(ops.convert_to_numpy(fake)), best)


def stepped(loss, **arguments):
    keras.utils.set_random_seed(1)
    model = tiny.build_small_sagan(**arguments)
    model.compile(**tiny.sgd(), loss=loss)
    model.train_on_batch(IMAGES, LABELS)
    return [ops.convert_to_numpy(x) for x in model.variables]


def d_hinge(real, fake):
    return ops.mean(ops.relu(1.0 - real)) + ops.mean(ops.relu(1.0 + fake))


def d_relativistic(real, fake):
    return ops.mean(ops.softplus(fake - real))


def g_plain(fake):
    return -ops.mean(ops.sort(fake)[-3:])


def g_paired(real, fake):
    best = ops.argsort(fake)[-3:]
    return ops.mean(ops.softplus(ops.take(real, best) - ops.take(fake, best)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "loss, top_k, plain",
    [("hinge", 3, (g_plain, d_hinge)), ("relativistic", 0.4, (g_paired, d_relativistic))],
)
def test_a_step_is_that_of_a_loss_of_the_best(loss, top_k, plain):
    for value, wanted in zip(stepped(loss, top_k=top_k), stepped(plain)):
        np.testing.assert_allclose(value, wanted, atol=1e-6)


@pytest.mark.parametrize("top_k", [0, -1, 1.5, 0.0, True, "3", np.nan])
def test_what_is_neither_a_number_nor_a_share(top_k):
    with pytest.raises(ValueError, match="`top_k` must .*Received: top_k="):
        tiny.build_small_sagan(top_k=top_k)


def test_too_few_images_are_refused_before_the_step():
    model = tiny.build_small_sagan(top_k=9)
    model.compile(**tiny.sgd())
    with pytest.raises(ValueError, match="`top_k` must not be larger.*top_k=9 for a batch of 8"):
        model.fit(IMAGES, LABELS, batch_size=8, verbose=0)
    assert model.test_on_batch(IMAGES, LABELS, return_dict=True)["d_loss"] > 0


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "tensorflow", reason="Others know each batch while they compile.")
@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_share_of_a_last_batch_that_is_smaller(jit_compile):
    model = tiny.build_small_sagan(top_k=0.5)
    model.compile(**tiny.sgd(), jit_compile=jit_compile)
    history = model.fit(IMAGES, LABELS, batch_size=3, epochs=2, verbose=0).history
    assert int(model.steps.numpy()) == 6 and np.isfinite(history["g_loss"]).all()


@pytest.mark.skipif(BACKEND != "tensorflow", reason="Others have no replicas.")
def test_replicas_must_divide_an_integer():
    from replicas import two_replicas

    strategy, logits = two_replicas(), ops.convert_to_tensor(FAKE[:8])
    found = strategy.run(lambda: best_fakes(4, (None, logits), 8)[1])
    assert [x.shape[0] for x in strategy.experimental_local_results(found)] == [2, 2]
    with pytest.raises(ValueError, match="that the 2 replicas divide. Received: top_k=3"):
        strategy.run(lambda: best_fakes(3, (None, logits), 8)[1])
