import hashlib
import math
from typing import Any

import keras
import numpy as np

from keras_sagan.callbacks.schedule import is_due
from keras_sagan.checks import Progress, check_boolean, check_float, check_integer, check_string
from keras_sagan.metrics.evaluation import check_same_channels
from keras_sagan.metrics.extraction import buffer_of
from keras_sagan.metrics.images import GeneratedImages, batches_of, length_of, once
from keras_sagan.metrics.report import make_protocol


class FIDEvaluator(keras.callbacks.Callback):
    """Measures the Fréchet distance of generated images during training.

    The real images are passed to the metric only once. The averaged generator, if there is one,
    generates images from the same latents each time. The log key, such as `fid_1k` or `fid_500`,
    includes the number of images. With few images, the distance is biased upward, so compare only
    distances for the same number of images. `protocol` records all other settings. Images are
    generated and measured in batches, so only one batch and the metric's state are kept in memory.
    For the Fréchet distance, the size of the state is O(dim²).

    `History` always contains the distance; `CSVLogger`, `ModelCheckpoint` (with `mode="min"`) and
    `EarlyStopping` must come after this callback in the list to use it. Unless `missing` is given,
    the key isn't logged in epochs without an evaluation, as with `validation_freq`.
    `FIDEvaluator.history` is a list of pairs (epochs done, distance).

    Args:
        metric: A `keras_sagan.metrics.FrechetInceptionDistance`, or any object with
            `update_state(images, real=…)`, `result()` and `reset_state(reset_real=…)`. If a metric,
            such as `KernelInceptionDistance`, returns several values, the first is used.
        real_images: uint8 images in [0, 255], as an array of shape
            `(num_images, height, width, channels)`, or as an iterable (such as a `tf.data.Dataset`)
            that yields batches of images or (images, labels). Use `None` if `metric` has already
            received real images.
        num_images: The number of images to generate.
        every_epochs: The number of epochs between evaluations; the last of the `epochs` of `fit` is
            always evaluated.
        batch_size: The batch size for generating and measuring images.
        labels: Integer array of shape `(num_images,)`, the classes to generate. By default, each
            class has the same number of images, as in a balanced dataset.
        seed: The seed for the latents.
        at_start: Whether to also evaluate before training. The result is stored only in `history`.
        name: The log key. Defaults to the metric's name, such as `"fid"`, and the number of images.
        missing: The value to log in epochs without an evaluation, such as `float("inf")`;
            `CSVLogger` needs a value in the first epoch, which determines its columns. NaN isn't
            allowed, because `ModelCheckpoint` would treat it as the best value. `None` logs
            nothing.
        dataset, split: The names of the real images' dataset and split, to record in `protocol`.
        verbose: Whether to show a progress bar for operations that take more than ten seconds.
        num_reference: The number of real images to use, from the start of `real_images`. Defaults
            to all images. An endless dataset, such as one from `make_dataset`, needs this argument.

    Raises:
        ValueError: If an argument is out of range, there are no real images, or `real_images` is
            endless and `num_reference` is `None`.

    Example:
    ```python
    evaluator = FIDEvaluator(metric, test_images, num_images=10_000, every_epochs=5, at_start=True)
    model.fit(dataset, epochs=20, callbacks=[evaluator])
    evaluator.history  # [(0, …), (5, …), (10, …), (15, …), (20, …)]
    ```
    """

    def __init__(
        self,
        metric: Any,
        real_images: Any,
        num_images: int = 1000,
        every_epochs: int = 1,
        batch_size: int = 64,
        labels: np.ndarray | None = None,
        seed: int = 0,
        at_start: bool = False,
        name: str | None = None,
        missing: float | None = None,
        dataset: str | None = None,
        split: str | None = None,
        verbose: bool = True,
        num_reference: int | None = None,
    ):
        super().__init__()
        self.num_images = num_images = check_integer("num_images", num_images, 2)
        self.every_epochs = check_integer("every_epochs", every_epochs, 1)
        self.batch_size = check_integer("batch_size", batch_size, 1)
        self.seed = check_integer("seed", seed, 0)
        self.at_start = check_boolean("at_start", at_start)
        self.missing = missing
        if not isinstance(missing, float) or not math.isinf(missing):
            self.missing = check_float("missing", missing, optional=True)
        thousands, rest = divmod(num_images, 1000)
        count = f"{thousands}k" if thousands and not rest else num_images
        kind = getattr(metric, "default_name", None) or "fid"
        self.name = check_string("name", name, optional=True) or f"{kind}_{count}"
        self.dataset = check_string("dataset", dataset, optional=True)
        self.split = check_string("split", split, optional=True)
        self.verbose = check_boolean("verbose", verbose)
        for method in ("update_state", "result", "reset_state"):
            if not callable(getattr(metric, method, None)):
                raise ValueError(
                    f"`metric` must have a method {method}(). Received: metric={metric!r}"
                )
        if labels is not None and np.shape(labels) != (num_images,):
            raise ValueError(
                f"`labels` must have shape ({num_images},), one for each generated image. "
                f"Received: labels of shape={np.shape(labels)}"
            )
        self.num_reference = check_integer("num_reference", num_reference, 2, optional=True)
        self.metric, self.real_images, self.labels = metric, real_images, labels
        if hasattr(metric, "verbose"):
            metric.verbose = self.verbose
        self.history = []
        self._images: GeneratedImages | None = None
        self._lacks_real = real_images is not None
        if self._lacks_real:  # Check the number of images early.
            batches_of(real_images, self.batch_size, self.num_reference)
        self._real_shape: tuple | None = None
        self._real_sha256: str | None = None
        self._has_started = False

    def on_train_begin(self, logs: dict | None = None) -> None:
        self._has_started = False

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        # `on_train_begin` doesn't know the epoch at which a run resumes.
        if not self._has_started:
            self.history = [pair for pair in self.history if pair[0] <= epoch]
            # A run that resumes mid-epoch has already measured the start of the epoch.
            if self.at_start and not getattr(self.model, "_skipped_steps", 0):
                self.record(epoch)
        self._has_started = True

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        logs = {} if logs is None else logs
        if is_due(epoch, self.every_epochs, self.params):
            logs[self.name] = self.record(epoch + 1)
        elif self.missing is not None:
            logs[self.name] = self.missing

    def record(self, epoch: int) -> float:
        """Evaluates the model after `epoch` epochs, and stores the distance in `history`."""
        value = self.evaluate()
        self.history = [pair for pair in self.history if pair[0] != epoch] + [(epoch, value)]
        return value

    def evaluate(self) -> float:
        """Returns the distance of the current model."""
        if self._lacks_real:
            self.add_real_images()
        self.metric.reset_state(reset_real=False)
        title = f"Images for {self.name}"
        self._add(self._generated().batches(), False, title, self.num_images)
        value = self.metric.result()
        return float(next(iter(value.values())) if isinstance(value, dict) else value)

    @property
    def protocol(self) -> dict:
        """A JSON-serializable description of all settings, complete only after an evaluation."""
        info = {
            "dataset": self.dataset or "unnamed",
            "split": self.split,
            "num_images": getattr(self.metric, "num_images", {}).get("real"),
            "sha256": self._real_sha256,
        }
        return make_protocol(
            [self.metric], self.num_images, info, self._generated().protocol, self.name
        )

    def _generated(self):
        """Returns the `GeneratedImages` of the model, always from the same latents and labels."""
        if self._images is None or self._images.model is not self.model:
            self._images = GeneratedImages(
                self.model,
                self.num_images,
                "uniform" if self.labels is None else self.labels,
                seed=self.seed,
                batch_size=self.batch_size,
            )
        return self._images

    def add_real_images(self) -> None:
        """Passes the real images to the metric; this method is called only once."""
        length = self.num_reference or length_of(self.real_images)
        batches = batches_of(self.real_images, self.batch_size, self.num_reference)
        try:
            count, self._real_sha256 = self._add(batches, True, "Real images", length)
        except BaseException:  # After Ctrl-C, a part of the images would be a wrong reference.
            self.metric.reset_state(reset_real=True)
            if once(self.real_images):
                self.real_images.close()  # Otherwise, the next call would read the rest.
            raise
        if count == 0:
            raise ValueError(
                "`real_images` must hold at least one image. "
                f"Received: real_images={self.real_images!r}, which holds none"
                f"{once(self.real_images)}"
            )
        self._lacks_real = False

    def _add(self, batches, real, title, total):
        """Passes batches to the metric; returns the number of images and their SHA-256."""
        count, digest, progress = 0, hashlib.sha256(), Progress(title, total, self.verbose)
        for images, _ in batches:
            if real:
                self._real_shape = images.shape
            check_same_channels(images.shape, self._real_shape, "model", "real_images")
            self.metric.update_state(images, real=real)
            digest.update(buffer_of(images))
            count += len(images)
            progress(count)
        return count, digest.hexdigest()
