"""Samples that the discriminator takes for real: rejection and the best of many."""

import numpy as np
import pytest
import tiny_networks as tiny
from keras import ops

from keras_sagan.models.selection import acceptance, accepted


@pytest.fixture(scope="module")
def model():
    return tiny.build_small_sagan(ema_momentum=0.9)


@pytest.fixture(scope="module")
def unconditional():
    return tiny.build_small_sagan(num_classes=None)


def test_with_gamma_0_an_image_is_accepted_by_its_ratio_to_the_largest():
    logits = np.array([-5.0, -1.0, 0.5, 1.9])
    expected = np.exp(logits - 2.0)  # sigmoid(d - log(1 - e^d)) = e^d
    np.testing.assert_allclose(acceptance(logits, 2.0, logits, gamma=0.0), expected, rtol=1e-6)
    assert acceptance([2.0], 2.0, logits, gamma=0.0) == pytest.approx(1.0, abs=1e-7)
    assert acceptance([-1e9], 2.0, logits, gamma=0.0) == pytest.approx(0.0, abs=1e-300)


def test_the_percentile_is_accepted_half_of_the_time():
    burn_in = np.random.default_rng(0).normal(size=1001)
    middle = np.sort(burn_in)[800]
    shares = acceptance([middle, middle + 1.0, middle - 1.0], burn_in.max(), burn_in)
    assert shares[0] == pytest.approx(0.5) and shares[1] > 0.5 > shares[2]


def test_rejection_gives_the_density_of_the_data():
    """Candidates are uniform, and the data have the density `2 x`: the logit is `log(2 x)`."""
    rng = np.random.default_rng(0)

    def candidates(count):
        found = 1.0 - rng.random((count, 1))
        return found, np.log(2.0 * found[:, 0])

    found, logits, drawn = accepted(candidates, 4000, np.random.default_rng(1), gamma=0.0)
    assert np.mean(found) == pytest.approx(2 / 3, abs=0.02)
    assert np.var(found) == pytest.approx(1 / 18, abs=0.01)
    assert 4000 / drawn == pytest.approx(0.5, abs=0.02)
    np.testing.assert_allclose(logits, np.log(2.0 * np.ravel(found)))


@pytest.mark.parametrize("method", ["rejection", "top"])
@pytest.mark.parametrize("kind", ["model", "unconditional"])
def test_what_comes_out(request, kind, method):
    model = request.getfixturevalue(kind)
    labels = np.array([4, 0, 2, 0, 0, 4], "int32") if kind == "model" else None
    arguments = {"labels": labels, "seed": 3, "method": method}
    arguments |= {"ratio": 8} if method == "top" else {}
    images, found = model.generate(6, return_details=True, **arguments)
    assert images.shape == (6, *tiny.SHAPE) and images.dtype == np.uint8
    np.testing.assert_array_equal(found["labels"], labels)
    again, other = model.generate(6, return_details=True, batch_size=7, **arguments)
    np.testing.assert_array_equal(found["latents"], other["latents"])
    assert np.abs(images.astype(int) - again).max() <= 1
    one_more = model.generate(6, **{**arguments, "seed": 4})
    assert not np.array_equal(images, one_more)
    inputs = found["latents"] if labels is None else [found["latents"], labels]
    network = model.generator if model.ema_generator is None else model.ema_generator
    fakes = network(inputs)
    logits = model.discriminator(
        fakes if labels is None else [fakes, ops.convert_to_tensor(labels)]
    )
    logits = ops.convert_to_numpy(logits)[:, 0]
    assert logits.dtype == found["logits"].dtype == np.float32
    np.testing.assert_allclose(found["logits"], logits, atol=1e-4)
    _, plain = model.generate(200, 0 if kind == "model" else None, 1, return_details=True)
    assert plain["logits"] is None and plain["acceptance_rate"] == 1.0
    assert 0.0 < found["acceptance_rate"] < 1.0
    if method == "top":
        assert found["acceptance_rate"] == 1 / 8


def test_the_best_are_the_best_of_their_class(model):
    labels = np.array([3, 1, 3, 3], "int32")
    _, found = model.generate(4, labels, 5, method="top", ratio=4, return_details=True)
    _, every = model.generate(12, 3, 5, method="top", ratio=1, return_details=True)
    best = np.sort(every["logits"])[::-1][:3]  # The candidates of a class don't depend on others.
    np.testing.assert_allclose(found["logits"][labels == 3], best, atol=1e-6)


def test_a_larger_percentile_rejects_more():
    means = []
    for percentile in (0.0, 80.0, 98.0):
        rng = np.random.default_rng(0)

        def candidates(count, rng=rng):
            return np.zeros((count, 1)), rng.normal(0.0, 3.0, count)

        _, logits, drawn = accepted(candidates, 500, rng, percentile=percentile)
        means.append((np.mean(logits), drawn))
    assert means == sorted(means) and means[0][1] < means[1][1] < means[2][1]


def test_truncation_holds_for_candidates(model):
    _, found = model.generate(5, 1, 0, truncation=0.5, method="rejection", return_details=True)
    assert np.abs(found["latents"]).max() <= 0.5


@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"method": "best"}, '`method` must be None, "rejection" or "top". Received: method='),
        ({"latents": np.zeros((2, 3)), "method": "top"}, "`method` must be None if `latents`"),
        ({"method": "rejection", "gamma": 1e4}, "`gamma` or `percentile` must be lower. Received"),
        ({"percentile": 100}, r"`percentile` must lie in \[0, 100\). Received: percentile=100"),
        ({"ratio": 0}, "`ratio` must be a positive integer"),
        ({"ratio": 8}, "`ratio` needs method='top'. Received: ratio=8 with method=None"),
        ({"method": "top", "gamma": 1.0}, "`gamma` needs method='rejection'. Received: gamma=1.0"),
    ],
)
def test_bad_arguments(model, arguments, match):
    with pytest.raises(ValueError, match=match):
        model.generate(2, **{"labels": 0, **arguments})


def test_logits_that_decide_nothing():
    model = tiny.build_small_sagan(num_classes=None)
    bias = model.discriminator.layers[-1].bias
    bias.assign(np.full(bias.shape, np.nan))
    with pytest.raises(ValueError, match="`method` needs a discriminator with finite logits"):
        model.generate(2, method="top")
