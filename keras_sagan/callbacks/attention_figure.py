from pathlib import Path

import keras
import numpy as np

from keras_sagan.callbacks.schedule import is_due
from keras_sagan.checks import check_integer, check_list, check_path, require
from keras_sagan.distribution import is_chief
from keras_sagan.visualization.classes import spread_classes
from keras_sagan.visualization.fonts import drawable_names
from keras_sagan.visualization.model_attention import draw_attention, row_names
from keras_sagan.visualization.query_points import (
    check_images_count,
    check_points,
    check_points_count,
)


class AttentionFigure(keras.callbacks.Callback):
    """Saves the figures of where the attention looks.

    The generator's images come from the same latents each time, with classes spread over all
    there are. Its file is `attention_epoch_020.png`, or with several attention layers
    `attention_epoch_020_<layer>.png`. With `real_images` the discriminator's look at them is
    drawn too, as `attention_epoch_020_discriminator.png`.

    Args:
        directory: String or path. Where the figures go; it is made if it isn't there.
        num_images: Integer. Rows of the generator's figure. At most 50. Defaults to `4`.
        num_points: Integer. Query points chosen in each image. At most 32. Defaults to `3`.
        class_names: List of strings, one for each class of the model, written beside the rows.
            Defaults to `None`: rows carry the class number.
        seed: Integer. Seed of the latents. Defaults to `0`.
        every_epochs: Integer. Draw each time so many epochs are done, and after the last one.
            Defaults to `None`: only when training ends.
        real_images: Array `(batch, height, width, channels)`, uint8 or float in [-1, 1], to show
            the discriminator. Defaults to `None`: the generator's figure alone.
        real_labels: Integer array, the class of each of them, for a model with classes.
        query_points: Integer array of shape `(points, 2)`: (row, column) in pixels of each image,
            in place of `num_points` chosen ones. Defaults to `None`.

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
        real_images=None,
        real_labels=None,
        query_points=None,
    ):
        super().__init__()
        require("matplotlib.figure")  # now rather than when training ends
        self.directory = Path(check_path("directory", directory))
        self.num_images = check_images_count(num_images)
        self.num_points = check_points_count(num_points)
        self.class_names = drawable_names(check_list("class_names", class_names, optional=True))
        self.seed = check_integer("seed", seed, 0)
        self.every_epochs = check_integer("every_epochs", every_epochs, 1, optional=True)
        self.real_images = real_images
        self.real_labels = real_labels
        self.query_points = query_points
        self._epochs_done = 0
        self._epochs_drawn = None

    def on_train_begin(self, logs=None):
        self._epochs_drawn = None
        num_classes = self.model.num_classes
        labels = None if num_classes is None else spread_classes(num_classes, self.num_images)
        row_names(self.model, labels, self.class_names)  # what doesn't fit fails here
        names = list(self.model.attention_gammas())
        wanted = ["generator"] if self.real_images is None else ["generator", "discriminator"]
        for network in wanted:
            if not any(name.startswith(f"{network}/") for name in names):
                raise ValueError(
                    f"`AttentionFigure` must be given a model whose {network} has an attention "
                    f"layer. Received: a model with attention layers {names}"
                )
        self._check_images()
        if self.real_images is not None and num_classes is not None and self.real_labels is None:
            raise ValueError(
                f"`real_labels` must be given, as the model has num_classes={num_classes}. "
                "Received: real_labels=None"
            )
        if self.query_points is not None:
            check_points(self.query_points, self.model.generate(1), self.num_points)

    def _check_images(self):
        """Raises for images that can't be drawn, before there is anything to lose."""
        shape = getattr(self.model, "image_shape", None)
        if shape is not None and shape[-1] not in (1, 3):
            raise ValueError(
                "`AttentionFigure` must be given a model of images with 1 or 3 channels. Received: "
                f"a model of images (height, width, channels)={tuple(shape)}"
            )
        found = np.shape(self.real_images)
        if self.real_images is not None and (len(found) != 4 or shape not in (None, found[1:])):
            expected = "height, width, channels" if shape is None else str(tuple(shape))[1:-1]
            raise ValueError(
                f"`real_images` must have shape (batch, {expected}). Received: real_images of "
                f"shape {found}"
            )
        if self.real_images is not None:
            check_images_count(found[0], "real_images")
        labels = np.shape(self.real_labels)
        if self.real_images is not None and self.real_labels is not None and labels != found[:1]:
            raise ValueError(
                f"`real_labels` must have shape ({found[0]},), one for each of `real_images`. "
                f"Received: real_labels of shape {labels}"
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

    def save(self, epoch):
        """Draws the figures as the model stands.

        Args:
            epoch: Integer. How many epochs are done, for the files' names.

        Returns:
            List of the figures' paths, one for each attention layer; empty in all processes but
            the first, which draws for all.
        """
        if not is_chief(getattr(self.model, "distribute_strategy", None)):
            return []
        settings = {
            "num_points": self.num_points,
            "query_points": self.query_points,
            "class_names": self.class_names,
        }
        name = f"attention_epoch_{epoch:03d}"
        paths = draw_attention(
            self.model,
            self.directory,
            num_images=self.num_images,
            seed=self.seed,
            name=name,
            **settings,
        )
        paths = list(paths.values())
        if self.real_images is not None:
            drawn = draw_attention(
                self.model,
                self.directory,
                self.real_images,
                self.real_labels,
                name=f"{name}_discriminator",
                **settings,
            )
            paths += drawn.values()
        self._epochs_drawn = epoch
        return paths
