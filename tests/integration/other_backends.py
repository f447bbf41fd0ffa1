"""What other backends than TensorFlow refuse; `test_backends.py` runs it on each."""

import keras
import pytest

from keras_sagan import SAGAN


def test_the_model_names_the_backend_that_it_needs():
    message = f"KERAS_BACKEND=tensorflow before Keras .*Received: the {keras.backend.backend()} ba"
    with pytest.raises(RuntimeError, match=f"Training needs the TensorFlow backend.*{message}"):
        SAGAN(None, None, latent_dim=3)
