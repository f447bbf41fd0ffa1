from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_sagan.callbacks.schedule import SAGANCallback, is_due
from keras_sagan.checks import (
    check_class_ids,
    check_integer,
    check_list,
    check_path,
    check_values,
    require,
)
from keras_sagan.distribution import is_chief
from keras_sagan.visualization.model_attention import draw_attention
from keras_sagan.visualization.names import drawable_names, names_of
from keras_sagan.visualization.query_points import MAX_IMAGES, MAX_POINTS, check_count, check_points


class AttentionFigure(SAGANCallback):
    """Draws the maps of every attention layer with `plot_attention`, and saves the figures.

    Images are always generated from the same latents and classes, whose ids are evenly spaced.
    After 20 epochs, the file is named `attention_epoch_020.png`, or
    `attention_epoch_020_<layer>.png` if the network has several attention layers.
    `attention_epoch_020_discriminator.png` shows the discriminator's attention on `real_images`.

    Args:
        directory: The folder for the figures, which is created if needed.
        num_images, num_points, query_points, class_names, seed: As in `draw_attention`.
        every_epochs: The number of epochs between figures. `None` draws figures only after
            training.
        real_images: Array `(batch, height, width, channels)`, uint8 in [0, 255] or float in
            [-1, 1], for the discriminator. `None` draws only the generator's figure.
        real_labels: Integer array with the class of each real image, for a conditional model.

    Raises:
        ValueError: If an argument is out of range, or if it doesn't fit the model when training
            begins.
        ImportError: If matplotlib isn't installed.

    Example:
    ```python
    model.fit(dataset, epochs=20, callbacks=[AttentionFigure("runs/first")])
    ```
    """

    needs = ("generate", "num_classes", "attention_gammas", "attention_maps")

    def __init__(
        self,
        directory: str | Path,
        num_images: int = 4,
        num_points: int = 3,
        class_names: Sequence[str] | None = None,
        seed: int = 0,
        every_epochs: int | None = None,
        real_images: np.ndarray | None = None,
        real_labels: np.ndarray | None = None,
        query_points: np.ndarray | None = None,
    ):
        super().__init__()
        require("matplotlib.figure")
        self.directory = Path(check_path("directory", directory))
        self.num_images = check_count("num_images", num_images, MAX_IMAGES)
        self.num_points = check_count("num_points", num_points, MAX_POINTS)
        self.class_names = drawable_names(check_list("class_names", class_names, optional=True))
        self.seed = check_integer("seed", seed, 0)
        self.every_epochs = check_integer("every_epochs", every_epochs, 1, optional=True)
        self.real_images = real_images
        self.real_labels = check_list("real_labels", real_labels, optional=True)
        self.query_points = query_points
        self._epochs_done: int | None = None
        self._epochs_drawn: int | None = None

    def on_train_begin(self, logs: dict | None = None) -> None:
        self._epochs_done = self._epochs_drawn = None
        names_of([], self.class_names, self.model.num_classes)  # Reject wrong `class_names` early.
        names = list(self.model.attention_gammas())
        for network in ("generator", "discriminator")[: 1 if self.real_images is None else 2]:
            if not any(name.startswith(f"{network}/") for name in names):
                raise ValueError(
                    f"`AttentionFigure` must be given a model whose {network} has an attention "
                    f"layer. Received: a model with attention layers {names}"
                )
        shape = getattr(self.model, "image_shape", None)
        if shape is not None and shape[-1] not in (1, 3):
            raise ValueError(
                "`AttentionFigure` must be given a model of images with 1 or 3 channels. Received: "
                f"a model of images (height, width, channels)={tuple(shape)}"
            )
        if self.real_images is not None:
            images = check_values(self.real_images, shape or (None,) * 3, "real_images")
            count = check_count("len(real_images)", len(images), MAX_IMAGES)
            check_class_ids(self.real_labels, self.model.num_classes, count, "real_labels")
        if self.query_points is not None:
            images = np.repeat(self.model.generate(1), self.num_images, axis=0)
            check_points(self.query_points, images, self.num_points)
            if self.real_images is not None:
                check_points(self.query_points, self.real_images, self.num_points)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._epochs_done = epoch

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._epochs_done = epoch + 1
        if self.every_epochs is not None and is_due(epoch, self.every_epochs, self.params):
            self.save(self._epochs_done)

    def on_train_end(self, logs: dict | None = None) -> None:
        if self._epochs_done is not None and self._epochs_drawn != self._epochs_done:
            self.save(self._epochs_done)

    def save(self, epoch: int) -> list[Path]:
        """Draws the figures; their file names contain `epoch`, the number of finished epochs.

        Returns the paths of the figures, one for each attention layer. Only the first process
        draws; the other processes return an empty list.
        """
        if not is_chief(getattr(self.model, "distribute_strategy", None)):
            return []
        name = f"attention_epoch_{epoch:03d}"
        common = {
            name: getattr(self, name) for name in ("num_points", "query_points", "class_names")
        }
        made = {"num_images": self.num_images, "seed": self.seed, "name": name}
        paths = [*draw_attention(self.model, self.directory, **made, **common).values()]
        if self.real_images is not None:
            real = {"labels": self.real_labels, "name": f"{name}_discriminator", **common}
            paths += draw_attention(self.model, self.directory, self.real_images, **real).values()
        self._epochs_drawn = epoch
        return paths
