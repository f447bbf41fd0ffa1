from pathlib import Path

import keras
import numpy as np

from keras_sagan.callbacks.schedule import is_due, names_of, spread_classes
from keras_sagan.visualization.attention import plot_attention
from keras_sagan.visualization.grid import check_integer
from keras_sagan.visualization.optional import require


class AttentionFigure(keras.callbacks.Callback):
    """Saves the figure of where the generator's attention looks.

    The images come from the same latents each time, with classes spread over all there are. Each
    attention layer of the generator gets a figure: `attention_epoch_020.png`, or with several
    layers `attention_epoch_020_<layer>.png`.

    Args:
        directory: String or path. Where the figures go; it is made if it isn't there.
        num_images: Integer. Rows of the figure. Defaults to `4`.
        num_points: Integer. Query points chosen in each image. Defaults to `3`.
        class_names: List of strings, one for each class of the model, written beside the rows.
            Defaults to `None`: rows carry the class number.
        seed: Integer. Seed of the latents. Defaults to `0`.
        every_epochs: Integer. Draw each time so many epochs are done, and after the last one.
            Defaults to `None`: only when training ends.

    Raises:
        ValueError: If an argument is out of range or, when training begins, doesn't fit the model.
        ImportError: If matplotlib isn't installed.

    Example:

    ```python
    model.fit(dataset, epochs=20, callbacks=[AttentionFigure("runs/first")])
    ```

    Reference:

    - [Zhang et al., 2019](https://arxiv.org/abs/1805.08318), figures 1 and 5.
    """

    def __init__(
        self,
        directory,
        num_images=4,
        num_points=3,
        class_names=None,
        seed=0,
        every_epochs=None,
    ):
        super().__init__()
        require("matplotlib.figure")  # now rather than when training ends
        check_integer("num_images", num_images, 1)
        check_integer("num_points", num_points, 1)
        if every_epochs is not None:
            check_integer("every_epochs", every_epochs, 1)
        self.directory = Path(directory)
        self.num_images = num_images
        self.num_points = num_points
        self.class_names = class_names
        self.seed = seed
        self.every_epochs = every_epochs
        self._epochs_done = 0
        self._epochs_drawn = None

    def on_train_begin(self, logs=None):
        self._epochs_drawn = None
        self.labels_and_names()  # arguments that don't fit the model fail here
        names = list(self.model.attention_gammas())
        if not any(name.startswith("generator/") for name in names):
            raise ValueError(
                "`AttentionFigure` must be given a model whose generator has an attention layer. "
                f"Received: a model with attention layers {names}"
            )

    def on_epoch_begin(self, epoch, logs=None):
        self._epochs_done = epoch

    def on_epoch_end(self, epoch, logs=None):
        self._epochs_done = epoch + 1
        if self.every_epochs is not None and is_due(epoch, self.every_epochs, self.params):
            self.save(self._epochs_done)

    def on_train_end(self, logs=None):
        if self._epochs_drawn != self._epochs_done:
            self.save(self._epochs_done)

    def labels_and_names(self):
        """Returns the class of each image and its name, or two `None` without classes."""
        num_classes = self.model.num_classes
        if num_classes is None:
            if self.class_names is not None:
                raise ValueError(
                    "`class_names` must be None for an unconditional model. "
                    f"Received: class_names={self.class_names}"
                )
            return None, None
        labels = spread_classes(num_classes, self.num_images)
        return labels, names_of(labels, self.class_names, num_classes)

    def save(self, epoch):
        """Draws the figures as the model stands.

        Args:
            epoch: Integer. How many epochs are done, for the files' names.

        Returns:
            List of the figures' paths, one for each attention layer of the generator.
        """
        labels, names = self.labels_and_names()
        shape = (self.num_images, self.model.latent_dim)
        latents = np.random.default_rng(self.seed).standard_normal(shape).astype("float32")
        images, maps = self.model.attention_maps(latents, labels)
        paths = []
        for layer, scores in maps.items():
            ending = "_" + layer.replace("/", "_") if len(maps) > 1 else ""
            path = self.directory / f"attention_epoch_{epoch:03d}{ending}.png"
            plot_attention(
                images,
                scores,
                num_points=self.num_points,
                path=path,
                title=f"{layer}, {scores.shape[1]} × {scores.shape[2]}, epoch {epoch}",
                row_labels=names,
            )
            paths.append(path)
        self._epochs_drawn = epoch
        return paths
