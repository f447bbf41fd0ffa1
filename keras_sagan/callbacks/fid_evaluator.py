import keras
import numpy as np
from keras import ops

from keras_sagan.callbacks.schedule import is_due
from keras_sagan.visualization.grid import check_integer


class FIDEvaluator(keras.callbacks.Callback):
    """Measures the Fréchet distance of generated images as training goes on.

    The real images are seen once, the generated ones come from the same latents each time. The key
    carries their number, `fid_1k` or `fid_500`, because the distance of few images is biased
    upward and can't be compared with that of many. All images of one evaluation are in memory at
    once: `num_images` × height × width × channels bytes.

    `History` sees the figure always; `CSVLogger`, `ModelCheckpoint` (with `mode="min"`) and
    `EarlyStopping` where they stand after this callback in the list. As with `validation_freq`,
    the key is absent from epochs without an evaluation, unless `missing` is given.
    `FIDEvaluator.history` has it all: pairs of epochs done and distance.

    Args:
        metric: A `keras_sagan.metrics.FrechetInceptionDistance`, or any object with
            `update_state(images, real=…)`, `result()` and `reset_state(reset_real=…)`.
        real_images: uint8 images in [0, 255]: an array of shape
            `(num_images, height, width, channels)`, or a finite iterable of batches, such as a
            `tf.data.Dataset`, of images or (images, labels). `None` where `metric` has seen its
            real images already.
        num_images: Integer. How many images to generate. Defaults to `1000`.
        every_epochs: Integer. Evaluate each time so many epochs are done, and after the last one.
            Defaults to `1`.
        batch_size: Integer. Images at a time, in generating and in the metric. Defaults to `64`.
        labels: Integer array of shape `(num_images,)`: the classes to generate. Defaults to all
            classes in equal number, which is right where the real images are balanced.
        seed: Integer. Seed of the latents. Defaults to `0`.
        at_start: Boolean. Whether to evaluate before training too. That value is in
            `FIDEvaluator.history` alone. Defaults to `False`.
        missing: Float. What epochs without an evaluation log, such as `float("inf")`, so that
            `CSVLogger`, which takes its columns from the first epoch, has one for the distance.
            Not NaN, which `ModelCheckpoint` keeps as the best. Defaults to `None`: nothing.
        name: String. The key. Defaults to `"fid_"` and the number of images.

    Raises:
        ValueError: If an argument is out of range, or there is no real image.

    Example:

    ```python
    evaluator = FIDEvaluator(metric, test_images, num_images=10_000, every_epochs=5, at_start=True)
    model.fit(dataset, epochs=20, callbacks=[evaluator])
    evaluator.history  # [(0, …), (5, …), (10, …), (15, …), (20, …)]
    ```

    Reference:

    - [Heusel et al., 2017](https://arxiv.org/abs/1706.08500).
    """

    def __init__(
        self,
        metric,
        real_images,
        num_images=1000,
        every_epochs=1,
        batch_size=64,
        labels=None,
        seed=0,
        at_start=False,
        name=None,
        missing=None,
    ):
        super().__init__()
        # A covariance needs two samples.
        check_integer("num_images", num_images, 2)
        check_integer("every_epochs", every_epochs, 1)
        check_integer("batch_size", batch_size, 1)
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
        self.metric = metric
        self.real_images = real_images
        self.num_images = num_images
        self.every_epochs = every_epochs
        self.batch_size = batch_size
        self.labels = labels
        self.seed = seed
        self.at_start = at_start
        self.missing = missing
        self.name = name or default_name(num_images)
        self.history = []
        self._has_started = False
        self._has_real = real_images is None

    def on_train_begin(self, logs=None):
        self._has_started = False

    def on_epoch_begin(self, epoch, logs=None):
        # Only here is it known which epoch a resumed training starts with.
        if self.at_start and not self._has_started:
            self.record(epoch)
        self._has_started = True

    def on_epoch_end(self, epoch, logs=None):
        if is_due(epoch, self.every_epochs, self.params):
            value = self.record(epoch + 1)
            if logs is not None:
                logs[self.name] = value
        elif logs is not None and self.missing is not None:
            logs[self.name] = self.missing

    def record(self, epoch):
        """Evaluates, and puts the value into `history` in place of one of the same epoch.

        Args:
            epoch: Integer. How many epochs are done.

        Returns:
            The distance as a float.
        """
        value = self.evaluate()
        self.history = [pair for pair in self.history if pair[0] != epoch]
        self.history.append((epoch, value))
        return value

    def evaluate(self):
        """Returns the distance of the model as it stands, as a float."""
        if not self._has_real:
            self.add_real_images()
        self.metric.reset_state(reset_real=False)
        images = self.model.generate(
            self.num_images,
            labels=self.generated_labels(),
            seed=self.seed,
            batch_size=self.batch_size,
        )
        for start in range(0, len(images), self.batch_size):
            self.metric.update_state(images[start : start + self.batch_size], real=False)
        return float(self.metric.result())

    def generated_labels(self):
        """Returns the classes to generate, or `None` for an unconditional model."""
        if self.labels is not None or self.model.num_classes is None:
            return self.labels
        return (np.arange(self.num_images) % self.model.num_classes).astype("int32")

    def add_real_images(self):
        """Feeds the real images to the metric, once."""
        count = 0
        for images in batches_of(self.real_images, self.batch_size):
            self.metric.update_state(images, real=True)
            count += len(images)
        if count == 0:
            raise ValueError(
                "`real_images` must hold at least one image. "
                f"Received: real_images={self.real_images!r}, which holds none"
            )
        self._has_real = True


def default_name(num_images):
    """Returns `fid_` and a count, thousands as `k`: `fid_500`, `fid_1k`, `fid_1500`."""
    thousands, rest = divmod(num_images, 1000)
    return f"fid_{thousands}k" if thousands and not rest else f"fid_{num_images}"


def batches_of(images, batch_size):
    """Yields images in batches, as numpy arrays.

    Args:
        images: An array of images, or an iterable of batches of images or (images, labels).
        batch_size: Integer. Size of the batches of an array.

    Yields:
        Arrays of shape `(batch, height, width, channels)`.
    """
    if hasattr(images, "shape"):
        for start in range(0, images.shape[0], batch_size):
            yield ops.convert_to_numpy(images[start : start + batch_size])
        return
    for batch in images:
        images = batch[0] if isinstance(batch, (tuple, list)) else batch
        yield ops.convert_to_numpy(images)
