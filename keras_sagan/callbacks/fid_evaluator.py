import hashlib
import math

import keras
import numpy as np

from keras_sagan.callbacks.schedule import is_due
from keras_sagan.checks import check_boolean, check_float, check_integer, check_string
from keras_sagan.metrics.evaluation import Evaluation
from keras_sagan.metrics.features import FeatureExtraction, FeatureMetric
from keras_sagan.metrics.images import (
    GeneratedImages,
    batches_of,
    check_ends,
    first_images,
    iterate,
    length_of,
    once,
)
from keras_sagan.metrics.progress import Progress


class FIDEvaluator(keras.callbacks.Callback):
    """Measures the Fréchet distance of generated images as training goes on.

    The real images are seen once, the generated ones come from the same latents each time, by the
    averaged generator if there is one. The key carries their number, `fid_1k` or `fid_500`, because
    the distance of few images is biased upward and can't be compared with that of many; `protocol`
    says the rest. Images are made and measured batch by batch, so that beyond the model one batch
    and what the metric keeps are in memory: O(dim²) for the Fréchet distance.

    `History` sees the figure always; `CSVLogger`, `ModelCheckpoint` (with `mode="min"`) and
    `EarlyStopping` where they stand after this callback in the list. As with `validation_freq`,
    the key is absent from epochs without an evaluation, unless `missing` is given.
    `FIDEvaluator.history` has it all: pairs of epochs done and distance.

    Args:
        metric: A `keras_sagan.metrics.FrechetInceptionDistance`, or any object with
            `update_state(images, real=…)`, `result()` and `reset_state(reset_real=…)`.
        real_images: uint8 images in [0, 255]: an array of shape
            `(num_images, height, width, channels)`, or an iterable of batches, such as a
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
        dataset: String, the name of the real images in the protocol. Defaults to `None`.
        split: String, the name of their split. Defaults to `None`.
        strategy: `tf.distribute.Strategy`, such as the model's, whose replicas share the work of
            the generator and of the metric's extractor. Defaults to `None`: one device.
        verbose: Boolean, whether an evaluation of more than ten seconds shows a bar. Defaults to
            `True`.
        num_reference: Integer. How many of the real images to take, from the first on. Defaults to
            `None`: all of them. Endless images, such as those of `make_dataset`, need it.

    Raises:
        ValueError: If an argument is out of range, there is no real image, there is no end of
            them and no `num_reference`, or the replicas of a `strategy` can't run the metric's
            extractor.

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
        dataset=None,
        split=None,
        strategy=None,
        verbose=True,
        num_reference=None,
    ):
        super().__init__()
        # A covariance needs two samples.
        self.num_images = num_images = check_integer("num_images", num_images, 2)
        self.every_epochs = check_integer("every_epochs", every_epochs, 1)
        self.batch_size = check_integer("batch_size", batch_size, 1)
        self.seed = check_integer("seed", seed, 0)
        self.at_start = check_boolean("at_start", at_start)
        self.missing = missing
        if not isinstance(missing, float) or not math.isinf(missing):
            self.missing = check_float("missing", missing, optional=True)
        self.name = check_string("name", name, optional=True) or default_name(num_images)
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
        num_reference = check_integer("num_reference", num_reference, 2, optional=True)
        if num_reference is None:
            check_ends(real_images, "real_images")
        elif hasattr(real_images, "shape"):
            real_images = first_images(real_images, num_reference, batch_size, "num_reference")
        self.num_reference = num_reference
        self.metric = metric
        self.real_images = real_images
        self.labels = labels
        self.strategy = strategy
        self.history = []
        extraction = None
        if isinstance(metric, FeatureMetric):
            extraction = FeatureExtraction(
                metric.feature_extractor, metric.value_range, metric.batch_size, strategy
            )
        elif strategy is not None:
            raise ValueError(
                "`strategy` needs a metric of this package, which says what extractor the "
                f"replicas run. Received: metric={metric!r}"
            )
        self._evaluation = Evaluation([metric], extraction, self.verbose)
        self._images = None  # the generated ones; kept as it has what was traced
        self._real_sha256 = None
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
        batches = self._generated().batches()
        self._evaluation.measure(batches, self.num_images, f"Images for {self.name}")
        return float(self.metric.result())

    @property
    def protocol(self):
        """Dictionary of what a reader must know beside the distances, ready for JSON.

        The same as that of an `EvaluationReport`. It is whole once there was an evaluation.
        """
        info = {
            "dataset": self.dataset or "unnamed",
            "split": self.split,
            "num_images": getattr(self.metric, "num_images", {}).get("real"),
            "sha256": self._real_sha256,
        }
        made = self._generated().protocol
        return self._evaluation.protocol(self.num_images, made, info, self.name)

    def _generated(self):
        """The images that the model makes, always from the same latents and labels."""
        if self._images is None or self._images.model is not self.model:
            self._images = GeneratedImages(
                self.model,
                self.num_images,
                "uniform" if self.labels is None else self.labels,
                seed=self.seed,
                batch_size=self.batch_size,
                strategy=self.strategy,
            )
        return self._images

    def add_real_images(self):
        """Feeds the real images to the metric, once."""
        count, digest = 0, hashlib.sha256()
        real_images = without_labels(self.real_images)
        if self.num_reference is not None:
            real_images = first_images(
                real_images, self.num_reference, self.batch_size, "num_reference"
            )
        length = self.num_reference or length_of(self.real_images)
        progress = Progress("Real images", length, self.verbose)
        for images, _ in batches_of(real_images, self.batch_size):
            self._evaluation.update(images, None, True, count)
            digest.update(np.ascontiguousarray(images).tobytes())
            count += len(images)
            progress(count)
        if count == 0:
            raise ValueError(
                "`real_images` must hold at least one image. "
                f"Received: real_images={self.real_images!r}, which holds none"
                f"{once(self.real_images)}"
            )
        self._has_real, self._real_sha256 = True, digest.hexdigest()


def default_name(num_images):
    """Returns `fid_` and a count, thousands as `k`: `fid_500`, `fid_1k`, `fid_1500`."""
    thousands, rest = divmod(num_images, 1000)
    return f"fid_{thousands}k" if thousands and not rest else f"fid_{num_images}"


def without_labels(images):
    """Returns images as they are, and the images of batches (images, labels) of any kind."""
    if hasattr(images, "shape"):
        return images
    return map(lambda x: x[0] if isinstance(x, (tuple, list)) else x, iterate(images))
