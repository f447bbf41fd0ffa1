from pathlib import Path

import keras
import numpy as np

from keras_sagan.callbacks.schedule import is_due
from keras_sagan.callbacks.tensorboard import ImageLog
from keras_sagan.checks import (
    check_boolean,
    check_float,
    check_integer,
    check_list,
    check_path,
    require,
)
from keras_sagan.distribution import is_chief
from keras_sagan.visualization.animation import save_gif
from keras_sagan.visualization.classes import names_of, spread_classes
from keras_sagan.visualization.fonts import drawable_names
from keras_sagan.visualization.grid import read_image, sample_grid, save_image

# Rows of a grid where the model has more classes than a page has room for.
MAX_ROWS = 10


class SampleGrid(keras.callbacks.Callback):
    """Saves a grid of samples from the same latents as training goes on.

    A conditional model gets one row for each class, an unconditional one a square. The first grid,
    `samples_epoch_000.png`, is drawn before training; later ones are named by how many epochs are
    done. A training that goes on at `initial_epoch` starts with the grid of that number.

    Args:
        directory: String or path. Where the pictures go; it is made if it isn't there.
        images_per_class: Integer. Columns of the grid, and for an unconditional model its rows
            too. Defaults to `10`.
        classes: List of integers, the classes that get a row. Defaults to every class, or to 10
            spread evenly where the model has more.
        class_names: List of strings, one for each class of the model, written beside the rows.
            Defaults to `None`: rows carry the class number.
        seed: Integer. Seed of the latents. Defaults to `0`.
        truncation: Float. Passed to `generate()`. Defaults to `None`.
        every_epochs: Integer. Draw each time so many epochs are done, and after the last one.
            Defaults to `1`.
        gif: Boolean. Whether to put all grids of the directory into `samples.gif` when training
            ends, those of an earlier part of the run too. Defaults to `False`.
        log_dir: String or path. A folder of TensorBoard's, which gets the grids as `samples`; it
            needs TensorFlow to be installed. Defaults to `None`.

    Raises:
        ValueError: If an argument is out of range or, when training begins, doesn't fit the model.
        ImportError: If pillow isn't installed, or TensorFlow isn't for a `log_dir`.

    Example:

    ```python
    model.fit(dataset, epochs=20, callbacks=[SampleGrid("runs/first", every_epochs=5)])
    ```
    """

    def __init__(
        self,
        directory,
        images_per_class=10,
        classes=None,
        class_names=None,
        seed=0,
        truncation=None,
        every_epochs=1,
        gif=False,
        log_dir=None,
    ):
        super().__init__()
        require("PIL.Image")  # now rather than after an epoch
        self.directory = Path(check_path("directory", directory))
        self.images_per_class = check_integer("images_per_class", images_per_class, 1)
        self.classes = check_list("classes", classes, optional=True)
        if self.classes == []:
            raise ValueError(f"`classes` must name at least one class. Received: classes={classes}")
        self.class_names = drawable_names(check_list("class_names", class_names, optional=True))
        self.seed = check_integer("seed", seed, 0)
        self.truncation = check_float("truncation", truncation, above=0, optional=True)
        self.every_epochs = check_integer("every_epochs", every_epochs, 1)
        self.gif = check_boolean("gif", gif)
        log_dir = check_path("log_dir", log_dir, optional=True)
        self._log = None if log_dir is None else ImageLog(log_dir)
        self._has_started = False

    def on_train_begin(self, logs=None):
        self._has_started = False
        self.row_classes()  # arguments that don't fit the model fail here

    def on_epoch_begin(self, epoch, logs=None):
        # Only here is it known which epoch a resumed training starts with.
        if not self._has_started:
            self._has_started = True
            self.save(epoch)

    def on_epoch_end(self, epoch, logs=None):
        if is_due(epoch, self.every_epochs, self.params):
            self.save(epoch + 1)

    def on_train_end(self, logs=None):
        if self.gif:
            self.save_gif()

    def row_classes(self):
        """Returns the class of each row and its name, or two `None` for an unconditional model."""
        num_classes = self.model.num_classes
        if num_classes is None:
            for name in ("classes", "class_names"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"`{name}` must be None for an unconditional model. "
                        f"Received: {name}={getattr(self, name)}"
                    )
            return None, None
        if self.classes is None:
            classes = spread_classes(num_classes, min(num_classes, MAX_ROWS))
        else:
            classes = np.asarray(self.classes)
            is_integer = np.issubdtype(classes.dtype, np.integer)
            if not is_integer or classes.min() < 0 or classes.max() >= num_classes:
                raise ValueError(
                    f"`classes` must be integers from 0 to {num_classes - 1}. "
                    f"Received: classes={self.classes}"
                )
        return classes.astype("int32"), names_of(classes, self.class_names, num_classes)

    def save(self, epoch):
        """Draws the grid as the model stands.

        Args:
            epoch: Integer. How many epochs are done, for the file's name.

        Returns:
            The picture's path; `None` in all processes but the first, which draws for all.
        """
        if not is_chief(getattr(self.model, "distribute_strategy", None)):
            return None
        classes, names = self.row_classes()
        rows = self.images_per_class if classes is None else len(classes)
        images = self.model.generate(
            rows * self.images_per_class,
            labels=None if classes is None else classes.repeat(self.images_per_class),
            seed=self.seed,
            truncation=self.truncation,
        )
        path = self.directory / f"samples_epoch_{epoch:03d}.png"
        grid = sample_grid(images, names, rows=rows, columns=self.images_per_class)
        save_image(path, grid)
        if self._log is not None:
            self._log.write("samples", grid, epoch)
        return path

    def save_gif(self):
        """Puts the grids that lie in the directory into `samples.gif`, in the order of epochs.

        Returns:
            The path, or `None` where this process has no grid. Grids of another size than the last
            one, from a run with other settings, are skipped.
        """
        paths = {
            int(path.stem.rpartition("_")[2]): path
            for path in self.directory.glob("samples_epoch_*.png")
            if path.stem.rpartition("_")[2].isdigit()
        }
        grids = [read_image(paths[epoch]) for epoch in sorted(paths)]
        grids = [grid for grid in grids if grid.shape == grids[-1].shape]
        path = self.directory / "samples.gif"
        if not grids or not is_chief(getattr(self.model, "distribute_strategy", None)):
            return None
        save_gif(path, grids, seconds=0.2)
        return path
