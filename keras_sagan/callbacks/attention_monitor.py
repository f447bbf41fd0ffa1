import keras
import numpy as np

from keras_sagan.callbacks.schedule import SAGANCallback, is_due
from keras_sagan.checks import check_integer
from keras_sagan.ops.attention import attention_entropy
from keras_sagan.visualization.names import spread_classes


class AttentionMonitor(SAGANCallback):
    """Adds γ and the attention entropy of each attention layer to the metrics of each epoch.

    γ is the weight of the attention in the layer's output; it starts at 0. The entropy is the mean
    over images and query locations, divided by the entropy of uniform attention. A value of 1 means
    uniform attention, and 0 means attention to a single location. Every measurement uses images
    generated from the same latents.

    The log keys are `gamma/generator/<layer>`, `attention_entropy/generator/<layer>` and the same
    keys with `discriminator`. `History` always contains these keys; `CSVLogger` and `TensorBoard`
    must come after this callback in the list to log them. A model without attention adds no keys.

    Args:
        num_images: The number of images to generate for measuring the entropy.
        seed: The seed for the latents.
        every_epochs: The number of epochs between entropy measurements; the last of the `epochs`
            of `fit` is always measured. γ is added to the metrics of every epoch.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    ```python
    callbacks = [AttentionMonitor(), keras.callbacks.CSVLogger("runs/first/log.csv")]
    model.fit(dataset, epochs=20, callbacks=callbacks)
    ```

    Reference: [Zhang et al., 2019](https://arxiv.org/abs/1805.08318), equation 3, for γ.
    """

    needs = ("generate", "num_classes", "latent_dim", "attention_gammas", "attention_maps")

    def __init__(self, num_images: int = 16, seed: int = 0, every_epochs: int = 1):
        super().__init__()
        self.num_images = check_integer("num_images", num_images, 1)
        self.seed = check_integer("seed", seed, 0)
        self.every_epochs = check_integer("every_epochs", every_epochs, 1)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if logs is None:
            return
        for name, gamma in self.model.attention_gammas().items():
            logs[f"gamma/{name}"] = float(gamma)
        if is_due(epoch, self.every_epochs, self.params):
            for name, entropy in self.entropies().items():
                logs[f"attention_entropy/{name}"] = entropy

    def entropies(self) -> dict[str, float]:
        """Returns the current model's attention entropies as a dictionary, keyed by layer name."""
        networks = {name.split("/")[0] for name in self.model.attention_gammas()}
        labels = spread_classes(self.model.num_classes, self.num_images)
        shape = (self.num_images, self.model.latent_dim)
        inputs = np.random.default_rng(self.seed).standard_normal(shape).astype("float32")
        found = {}
        # Measure the generator first, because `inputs` becomes images for the discriminator.
        for network in sorted(networks, reverse=True):
            if network == "discriminator":
                inputs = self.model.generate(self.num_images, labels=labels, latents=inputs)
            _, maps = self.model.attention_maps(inputs, labels)
            for layer, scores in maps.items():
                entropy = keras.ops.convert_to_numpy(attention_entropy(scores))
                found[f"{network}/{layer}"] = float(entropy.mean())
        return found
