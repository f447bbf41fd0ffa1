from collections.abc import Sequence
from pathlib import Path

import keras

from keras_sagan.callbacks.schedule import is_due
from keras_sagan.callbacks.tensorboard import ImageLog
from keras_sagan.checks import check_boolean, check_integer, check_list, check_path, require
from keras_sagan.distribution import is_chief
from keras_sagan.visualization.animation import save_gif
from keras_sagan.visualization.grid import read_image, save_image
from keras_sagan.visualization.model_pictures import rows_of_samples
from keras_sagan.visualization.names import drawable_names, names_of, spread_classes

MAX_ROWS = 10  # Of a model with more classes.


class SampleGrid(keras.callbacks.Callback):
    """Saves a grid of samples from the same latents during training.

    A conditional model gets one row for each class, or for 10 evenly spread ones if it has more,
    and an unconditional model a square. The first grid, `samples_epoch_000.png`, is drawn before
    training; later names have the number of epochs done. A training that resumes at
    `initial_epoch` starts with the grid of that number.

    Args:
        directory: String or path. The folder of the pictures, created if needed.
        images_per_class: Integer. Columns, and rows of an unconditional model. Defaults to `10`.
        class_names: List of strings, one for each class of the model, written beside the rows.
            Defaults to `None`: the class number.
        seed: Integer. The seed of the latents. Defaults to `0`.
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
        class_names: Sequence[str] | None = None,
        seed: int = 0,
        every_epochs: int = 1,
        gif: bool = False,
        log_dir: str | Path | None = None,
    ):
        super().__init__()
        require("PIL.Image")  # Now rather than after an epoch.
        self.directory = Path(check_path("directory", directory))
        self.images_per_class = check_integer("images_per_class", images_per_class, 1)
        self.class_names = drawable_names(check_list("class_names", class_names, optional=True))
        self.seed = check_integer("seed", seed, 0)
        self.every_epochs = check_integer("every_epochs", every_epochs, 1)
        self.gif = check_boolean("gif", gif)
        log_dir = check_path("log_dir", log_dir, optional=True)
        self._log = None if log_dir is None else ImageLog(log_dir)
        self._has_started = False

    def on_train_begin(self, logs: dict | None = None) -> None:
        self._has_started = False
        names_of([], self.class_names, self.model.num_classes)  # Raises for names that don't fit.

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

    def save(self, epoch: int) -> Path | None:
        """Draws the grid of the model as it is, named by the number of epochs done.

        Returns:
            The picture's path; `None` in all processes but the first, which draws for all.
        """
        if not is_chief(getattr(self.model, "distribute_strategy", None)):
            return None
        count, columns = self.model.num_classes, self.images_per_class
        labels = spread_classes(count, min(count or 1, MAX_ROWS))
        named = {"class_names": self.class_names, "seed": self.seed}
        grid = rows_of_samples(self.model, columns, labels, rows=columns, **named)
        path = self.directory / f"samples_epoch_{epoch:03d}.png"
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
