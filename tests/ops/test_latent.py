import numpy as np
import pytest

from keras_sagan.ops.latent import sample_labels, sample_latents


def test_latents_are_standard_normal():
    latents = sample_latents(2000, 64, np.random.default_rng(0))
    assert latents.dtype == np.float32 and latents.shape == (2000, 64)
    assert abs(latents.mean()) < 0.01 and abs(latents.std() - 1) < 0.01


@pytest.mark.parametrize("truncation, std", [(1e-4, 1e-4 / 3**0.5), (0.5, 0.2839), (2.0, 0.8796)])
def test_truncated_latents(truncation, std):
    latents = sample_latents(2000, 64, np.random.default_rng(0), truncation)
    assert np.abs(latents).max() <= truncation
    assert latents.std() == pytest.approx(std, rel=0.01)  # of the truncated normal density


@pytest.mark.parametrize("truncation", [0.0, -1.0, float("nan")])
def test_truncation_must_be_positive(truncation):
    with pytest.raises(ValueError, match="`truncation` must be positive. Received: truncation="):
        sample_latents(2, 2, np.random.default_rng(0), truncation)


def test_labels_are_even():
    labels = sample_labels(10000, 10, np.random.default_rng(0))
    assert labels.dtype == np.int32
    assert np.bincount(labels, minlength=10).min() > 850
