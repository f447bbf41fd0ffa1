import math

import keras
import numpy as np
import pytest
from keras import ops

from keras_sagan import losses

REAL = np.array([[2.0], [0.5], [-1.0]], "float32")
FAKE = np.array([[-3.0], [0.0], [1.0]], "float32")


def softplus(x):
    return np.log1p(np.exp(np.asarray(x, "float64")))


# By hand: hinge D = (0 + 0.5 + 2) / 3 + (0 + 1 + 2) / 3; G = -(-3 + 0 + 1) / 3.
EXPECTED = {
    "hinge": (2.0 / 3.0, 2.5 / 3.0 + 1.0),
    "wasserstein": (2.0 / 3.0, -2.0 / 3.0 - 0.5),
    # G = ((-4)^2 + 1 + 0) / 6; D = (1 + 0.25 + 4) / 6 + (9 + 0 + 1) / 6.
    "least_squares": (17.0 / 6.0, (5.25 + 10.0) / 6.0),
    "relativistic": (softplus(REAL - FAKE).mean(), softplus(FAKE - REAL).mean()),
    # The means are 0.5 and -2 / 3.
    "relativistic_average": (
        softplus(REAL + 2.0 / 3.0).mean() + softplus(0.5 - FAKE).mean(),
        softplus(-2.0 / 3.0 - REAL).mean() + softplus(FAKE - 0.5).mean(),
    ),
    "non_saturating": (softplus(-FAKE).mean(), softplus(-REAL).mean() + softplus(FAKE).mean()),
}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_values(name):
    pair = losses.get(name)
    received = pair.of_generator(REAL, FAKE), pair.discriminator(REAL, FAKE)
    assert [float(x) for x in received] == pytest.approx(EXPECTED[name], rel=1e-6)
    assert [tuple(x.shape) for x in received] == [(), ()]


def test_every_loss_is_tested():
    assert set(losses.LOSSES) == set(EXPECTED)


def test_hinge_margins():
    pair = losses.get("hinge")
    assert float(pair.discriminator(np.full((2, 1), 1.0), np.full((2, 1), -1.0))) == 0.0
    assert float(pair.discriminator(np.zeros((2, 1)), np.zeros((2, 1)))) == 2.0


def test_non_saturating_at_zero_and_far_out():
    pair = losses.get("non_saturating")
    zeros = np.zeros((1, 1), "float32")
    assert float(pair.generator(zeros)) == pytest.approx(math.log(2.0))
    assert float(pair.discriminator(zeros, zeros)) == pytest.approx(2.0 * math.log(2.0))
    assert float(pair.generator(zeros - 1e4)) == pytest.approx(1e4)  # no overflow


def test_thresholds():
    thresholds = {name: losses.get(name).threshold for name in losses.LOSSES}
    assert thresholds == {
        "hinge": 0.0,
        "non_saturating": 0.0,
        "wasserstein": None,
        "least_squares": 0.5,
        "relativistic": None,
        "relativistic_average": None,
    }


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_dtype_is_that_of_the_logits(name):
    pair = losses.get(name)
    for dtype in ("float16", "float32"):
        fake, real = ops.cast(FAKE, dtype), ops.cast(REAL, dtype)
        for value in (pair.of_generator(real, fake), pair.discriminator(real, fake)):
            assert keras.backend.standardize_dtype(value.dtype) == dtype


def g_loss(fake_logits):
    return ops.mean(fake_logits)


def d_loss(real_logits, fake_logits):
    return ops.mean(real_logits) * 0.0


@pytest.mark.parametrize("kind", [tuple, list])
def test_pair_of_functions(kind):
    pair = losses.get(kind([g_loss, d_loss]))
    assert (pair.generator, pair.discriminator, pair.threshold) == (g_loss, d_loss, 0.0)


def test_a_relativistic_pair_has_no_threshold():
    """Adding a constant to its logits changes nothing, so no constant divides real from fake."""
    pair = losses.get((losses.relativistic_generator_loss, losses.relativistic_discriminator_loss))
    assert pair == losses.get("relativistic")


def test_pair_with_a_threshold_and_an_adversarial_loss():
    assert losses.get((g_loss, d_loss, 0.25)).threshold == 0.25
    given = losses.AdversarialLoss(g_loss, d_loss, 0.5)
    assert losses.get(given) == given


@pytest.mark.parametrize(
    "loss", ["hinges", "", None, 3, g_loss, (g_loss,), (g_loss, "hinge"), (g_loss, d_loss, 0.0, 1)]
)
def test_unknown_loss(loss):
    with pytest.raises(ValueError, match="`loss` must be one of .*'hinge'.*Received: loss="):
        losses.get(loss)


@pytest.mark.parametrize("name", ["relativistic", "relativistic_average"])
def test_relativistic_losses_depend_on_differences_only(name):
    """Adding a constant to all logits changes nothing; swapping the kinds swaps the losses."""
    pair = losses.get(name)
    assert pair.uses_real_logits
    for loss in (pair.generator, pair.discriminator):
        assert float(loss(REAL + 4.0, FAKE + 4.0)) == pytest.approx(float(loss(REAL, FAKE)))
    swapped = float(pair.discriminator(FAKE, REAL))
    assert float(pair.generator(REAL, FAKE)) == pytest.approx(swapped)
    assert float(pair.discriminator(REAL, FAKE - 1e4)) == pytest.approx(0.0)
    assert np.isfinite(float(pair.generator(REAL, FAKE - 1e4)))
