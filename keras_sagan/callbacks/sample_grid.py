from collections.abc import Sequence
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

MAX_ROWS = 10  # Of a model with more classes.


class SampleGrid(keras.callbacks.Callback):
    """Saves a grid of samples from the same latents during training.

    A conditional model gets one row for each class, an unconditional one a square. The first grid,
    `samples_epoch_000.png`, is drawn before training; later names have the number of epochs done.
    A training that resumes at `initial_epoch` starts with the grid of that number.

    Args:
        directory: String or path. The folder of the pictures, created if needed.
        images_per_class: Integer. Columns, and rows of an unconditional model. Defaults to `10`.
        classes: List of integers, the classes that get a row. Defaults to every class, or to 10
            evenly spread ones of a model with more.
        class_names: List of strings, one for each class of the model, written beside the rows.
            Defaults to `None`: the class number.
        seed: Integer. The seed of the latents. Defaults to `0`.
        truncation: Float. Passed to `generate()`. Defaults to `None`.
        every_epochs: Integer. Epochs between grids; the last has one too. Defaults to `1`.
        gif: Boolean. Whether to put all grids of the directory, including those of an earlier part
            of the run, into `samples.gif` when training ends. Defaults to `False`.
        log_dir: String or path. A TensorBoard folder, which gets the grids as `samples`; it needs
            TensorFlow. Defaults to `None`.

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
        directory: str | Path,
        images_per_class: int = 10,
        classes: Sequence[int] | None = None,
        class_names: Sequence[str] | None = None,
        seed: int = 0,
        truncation: float | None = None,
        every_epochs: int = 1,
        gif: bool = False,
        log_dir: str | Path | None = None,
    ):
        super().__init__()
        require("PIL.Image")  # Now rather than after an epoch.
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

    def on_train_begin(self, logs: dict | None = None) -> None:
        self._has_started = False
        self.row_classes()  # Raises for arguments that don't fit the model.

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        # A resumed training says only here with which epoch it starts.
        if not self._has_started:
            self._has_started = True
            self.save(epoch)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if is_due(epoch, self.every_epochs, self.params):
            self.save(epoch + 1)

    def on_train_end(self, logs: dict | None = None) -> None:
        if self.gif:
            self.save_gif()

    def row_classes(self) -> tuple:
        """Returns the class of each row and its name, or two `None` for an unconditional model."""
        num_classes, classes = self.model.num_classes, self.classes
        if num_classes is None:
            for name in ("classes", "class_names"):
                if (value := getattr(self, name)) is not None:
                    expected = "None for an unconditional model"
                    raise ValueError(f"`{name}` must be {expected}. Received: {name}={value}")
            return None, None
        if classes is None:
            classes = spread_classes(num_classes, min(num_classes, MAX_ROWS))
        classes = np.asarray(classes)
        is_integer = np.issubdtype(classes.dtype, np.integer)
        if not is_integer or classes.min() < 0 or classes.max() >= num_classes:
            raise ValueError(
                f"`classes` must be integers from 0 to {num_classes - 1}. "
                f"Received: classes={self.classes}"
            )
        return classes.astype("int32"), names_of(classes, self.class_names, num_classes)

    def save(self, epoch: int) -> Path | None:
        """Draws the grid of the model as it is, named by the number of epochs done.

        Returns:
            The picture's path; `None` in all processes but the first, which draws for all.
        """
        if not is_chief(getattr(self.model, "distribute_strategy", None)):
            return None
        classes, names = self.row_classes()
        columns = self.images_per_class
        rows = columns if classes is None else len(classes)
        images = self.model.generate(
            rows * columns,
            labels=None if classes is None else classes.repeat(columns),
            seed=self.seed,
            truncation=self.truncation,
        )
        path = self.directory / f"samples_epoch_{epoch:03d}.png"
        grid = sample_grid(images, names, rows=rows, columns=columns)
        save_image(path, grid)
        if self._log is not None:
            self._log.write("samples", grid, epoch)
        return path

    def save_gif(self) -> Path | None:
        """Puts the grids of the directory into `samples.gif`, in the order of epochs.

        Returns:
            The path, or `None` where this process has no grid. Grids that differ from the last one
            in size, from a run with other settings, are skipped.
        """
        files = self.directory.glob("samples_epoch_*.png")
        epochs = {x: x.stem.removeprefix("samples_epoch_") for x in files}
        paths = [path for path, epoch in epochs.items() if epoch.isdigit()]
        grids = [read_image(path) for path in sorted(paths, key=lambda x: int(epochs[x]))]
        grids = [grid for grid in grids if grid.shape == grids[-1].shape]
        path = self.directory / "samples.gif"
        if not grids or not is_chief(getattr(self.model, "distribute_strategy", None)):
            return None
        save_gif(path, grids, seconds=0.2)
        return path
