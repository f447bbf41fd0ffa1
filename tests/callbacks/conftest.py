import keras
import numpy as np
import pytest


class StubGAN(keras.Model):
    """A tiny trainable model with the methods that the callbacks use, and a record of calls."""

    def __init__(self, num_classes=3, gammas=("generator/self_attention",)):
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.latent_dim = 4
        self.num_classes = num_classes
        self.gammas = gammas
        self.sigmas = {"generator/a": 1.0, "generator/b": 3.0, "discriminator/c": 2.0}
        self.calls = []

    def call(self, inputs):
        return self.dense(inputs)

    def brightness(self):
        """Changes with training, so that pictures of different epochs differ."""
        return abs(float(np.sum(self.dense.get_weights()[0]))) % 1.0 if self.dense.built else 0.5

    def generate(
        self,
        num_images,
        labels=None,
        seed=None,
        truncation=None,
        batch_size=64,
        latents=None,
        use_ema=True,
    ):
        self.calls.append(
            {
                "num_images": num_images,
                "labels": labels,
                "seed": seed,
                "truncation": truncation,
                "batch_size": batch_size,
                "latents": latents,
            }
        )
        images = np.random.default_rng(seed).random((num_images, 8, 8, 1)) * self.brightness()
        return (images * 255).astype("uint8")

    def attention_maps(self, inputs, labels=None):
        self.calls.append({"latents": inputs, "labels": labels})
        network = "generator/" if np.ndim(inputs) == 2 else "discriminator/"
        names = [name.split("/")[1] for name in self.gammas if name.startswith(network)]
        scores = np.zeros((len(inputs), 4, 4, 2, 2), "float32")
        scores[..., 0, :] = 0.5  # Half of the keys: log(2) / log(4) = 0.5.
        return self.generate(len(inputs), labels, seed=0), dict.fromkeys(names, scores)

    def attention_gammas(self):
        return dict.fromkeys(self.gammas, np.float32(0.125))

    def spectral_norms(self, normalized_only=True):
        return dict(self.sigmas)


@pytest.fixture
def stub_gan():
    return StubGAN


@pytest.fixture
def run_fit():
    """Trains a stub for some epochs with callbacks."""

    def run(model, callbacks, epochs=2, **kwargs):
        keras.utils.set_random_seed(0)
        if not model.compiled:
            model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse", run_eagerly=True)
        return model.fit(
            np.ones((4, 2), "float32"),
            np.zeros((4, 1), "float32"),
            epochs=epochs,
            callbacks=callbacks,
            verbose=0,
            **kwargs,
        )

    return run
