from collections.abc import Sequence
from pathlib import Path

from keras_sagan.callbacks.schedule import SAGANCallback, is_due
from keras_sagan.callbacks.tensorboard import ImageLog
from keras_sagan.checks import (
    check_boolean,
    check_class_ids,
    check_float,
    check_integer,
    check_list,
    check_path,
    require,
)
from keras_sagan.distribution import is_chief
from keras_sagan.visualization.animation import save_gif
from keras_sagan.visualization.grid import read_image, save_image
from keras_sagan.visualization.model_pictures import rows_of_samples
from keras_sagan.visualization.names import drawable_names, names_of, spread_classes

MAX_ROWS = 10  # The maximum number of rows if `classes` is `None`.


class SampleGrid(SAGANCallback):
    """Saves grids of samples during training, always from the same latents.

    The grid of a conditional model has one row for each class; the grid of an unconditional model
    is square. The first grid, `samples_epoch_000.png`, is drawn before training; the names of later
    grids contain the number of finished epochs. A run that resumes at `initial_epoch` first draws
    the grid for that epoch, unless it resumes in the middle of the epoch.

    Args:
        directory: The folder for the pictures, which is created if needed.
        images_per_class: The number of columns, and of rows if the model is unconditional.
        classes: The classes to show, one in each row. Defaults to all classes, or to 10 evenly
            spaced class ids if there are more than 10 classes.
        class_names: As in `draw_attention`.
        seed, truncation: As in `generate()`.
        every_epochs: The number of epochs between grids; a grid is always drawn after the last of
            the `epochs` of `fit`.
        gif: Whether to combine all grids in the directory, including those from before a restart,
            into `samples.gif` when training ends.
        log_dir: A TensorBoard folder. The grids are also written to this folder, with the tag
            `samples`, which requires TensorFlow.

    Raises:
        ValueError: If an argument is out of range, or if it doesn't fit the model when training
            begins.
        ImportError: If pillow isn't installed, or if `log_dir` is given and TensorFlow isn't
            installed.

    Example:
    ```python
    model.fit(dataset, epochs=20, callbacks=[SampleGrid("runs/first", every_epochs=5)])
    ```
    """

    needs = ("generate", "num_classes")

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
        require("PIL.Image")
        self.directory = Path(check_path("directory", directory))
        self.images_per_class = check_integer("images_per_class", images_per_class, 1)
        self.classes = check_list("classes", classes, optional=True)
        self.class_names = drawable_names(check_list("class_names", class_names, optional=True))
        self.seed = check_integer("seed", seed, 0)
        self.truncation = check_float("truncation", truncation, above=0, optional=True)
        self.every_epochs = check_integer("every_epochs", every_epochs, 1)
        self.gif = check_boolean("gif", gif)
        log_dir = check_path("log_dir", log_dir, optional=True, allow_url=True)
        self._log = None if log_dir is None else ImageLog(log_dir)
        self._has_started = False

    def on_train_begin(self, logs: dict | None = None) -> None:
        self._has_started = False
        names_of([], self.class_names, self.model.num_classes)  # Reject wrong `class_names` early.
        self._row_classes()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        # `on_train_begin` doesn't know the epoch at which a run resumes.
        if not self._has_started:
            self._has_started = True
            if not getattr(self.model, "_skipped_steps", 0):  # The run doesn't resume mid-epoch.
                self.save(epoch)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if is_due(epoch, self.every_epochs, self.params):
            self.save(epoch + 1)

    def on_train_end(self, logs: dict | None = None) -> None:
        if self.gif:
            self.save_gif()

    def _row_classes(self):
        """Returns the class of each row, or `None`; raises an error if `classes` is invalid."""
        count = self.model.num_classes
        if self.classes is None:
            return spread_classes(count, min(count or 1, MAX_ROWS))
        return check_class_ids(self.classes, count, len(self.classes), "classes")

    def save(self, epoch: int) -> Path | None:
        """Draws a grid; its file name contains `epoch`, the number of finished epochs.

        Returns the picture's path. Only the first process draws; the other processes return `None`.
        """
        if not is_chief(getattr(self.model, "distribute_strategy", None)):
            return None
        columns, labels = self.images_per_class, self._row_classes()
        common = {"class_names": self.class_names, "seed": self.seed, "truncation": self.truncation}
        grid = rows_of_samples(self.model, columns, labels, rows=columns, **common)
        path = self.directory / f"samples_epoch_{epoch:03d}.png"
        save_image(path, grid)
        if self._log is not None:
            self._log.write("samples", grid, epoch)
        return path

    def save_gif(self) -> Path | None:
        """Combines the grids in the directory into `samples.gif`, in epoch order.

        Grids whose size differs from the last grid's are skipped, because their settings differ.
        Returns the path, or `None` if there are no grids or this isn't the first process.
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
