import warnings
from pathlib import Path

import numpy as np

from keras_sagan.callbacks.checkpoint import TrainingCheckpoint
from keras_sagan.callbacks.schedule import SAGANCallback, is_due
from keras_sagan.checks import check_boolean, check_float, check_integer
from keras_sagan.visualization.names import spread_classes

MAX_CLASSES = 10  # The maximum number of classes for measuring diversity.


class CollapseMonitor(SAGANCallback):
    """Warns when training collapses; can also stop training and keep the last good checkpoint.

    At the end of an epoch, the callback looks for three signs of collapse:

    - **Diversity**: the root mean square difference between samples of a class is below
      `diversity_share` times its highest value so far. Every measurement uses the same latents.

    - **Logits**: the discriminator tells real and generated images apart too easily, or not at all.
      In the first case, the fractions of real and of generated images inside the hinge margin are
      below `margin_share`. In the second case, the two mean logits differ by less than `logit_gap`.
      For losses without a threshold, such as relativistic ones, only the second case is checked,
      with a hundredth of `logit_gap`, because the logits of a good discriminator can be close.

    - **σ**: the largest singular value of a kernel, normalized or not, has grown by more than a
      factor of `sigma_factor` since the last measurement.

    After `patience` consecutive measurements with signs of collapse, a warning lists the signs in
    the last measurement. The first measurement serves only as a baseline for later measurements.
    The callback adds `sample_diversity` to the epoch's metrics.

    Args:
        stop: Whether to stop training after the warning. The callback warns at most once per call
            to `fit`.
        directory: A folder for the last good checkpoint, written after each measurement without
            signs of collapse. To restore this checkpoint, build a new model and call
            `TrainingCheckpoint(directory).restore_latest(model)`.
        diversity_share, margin_share: Floats in (0, 1), described above.
        logit_gap: Non-negative float, described above.
        sigma_factor: Float above 1, described above.
        patience: The number of consecutive measurements with signs of collapse before a warning.
        images_per_class: Integer, at least 2. The number of samples per class for measuring
            diversity. If there are more than 10 classes, 10 evenly spaced class ids are used.
        seed: The seed for the latents.
        every_epochs: The number of epochs between measurements; the last of the `epochs` of `fit`
            is always measured.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    ```python
    monitor = CollapseMonitor(stop=True, directory="runs/first/good")
    model.fit(dataset, epochs=200, callbacks=[monitor])
    print(monitor.reason)  # None if all went well
    ```

    Reference: [Brock et al., 2019](https://arxiv.org/abs/1809.11096), section 4, on how GANs
    collapse.
    """

    needs = ("generate", "num_classes", "spectral_norms")

    def __init__(
        self,
        stop: bool = False,
        directory: str | Path | None = None,
        diversity_share: float = 0.3,
        margin_share: float = 0.02,
        logit_gap: float = 0.01,
        sigma_factor: float = 2.0,
        patience: int = 2,
        images_per_class: int = 8,
        seed: int = 0,
        every_epochs: int = 1,
    ):
        super().__init__()
        self.stop = check_boolean("stop", stop)
        self.diversity_share = check_float("diversity_share", diversity_share, above=0, below=1)
        self.margin_share = check_float("margin_share", margin_share, above=0, below=1)
        self.logit_gap = check_float("logit_gap", logit_gap, minimum=0)
        self.sigma_factor = check_float("sigma_factor", sigma_factor, above=1)
        self.patience = check_integer("patience", patience, 1)
        self.images_per_class = check_integer("images_per_class", images_per_class, 2)
        self.seed = check_integer("seed", seed, 0)
        self.every_epochs = check_integer("every_epochs", every_epochs, 1)
        self.reason: str | None = None
        self._good = None
        if directory is not None:
            self._good = TrainingCheckpoint(directory, keep=1, restore=False)

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.reason = None
        self._highest: float | None = None
        self._sigmas, self._count = {}, 0
        if self._good is not None:
            self._good.set_model(self.model)
            self._good.set_params(self.params)
            self._good.on_train_begin()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if not is_due(epoch, self.every_epochs, self.params):
            return
        logs = {} if logs is None else logs
        diversity = self.diversity()
        signs = self.signs(diversity, logs)
        logs["sample_diversity"] = diversity
        self._count = self._count + 1 if signs else 0
        if not signs and self._good is not None:
            self._good.on_epoch_end(epoch)
        if self._count >= self.patience and self.reason is None:
            self.reason = f"After epoch {epoch + 1} training seems to collapse: {'; '.join(signs)}."
            if self._good is not None:
                self.reason += f" The last good checkpoint is in {self._good.directory}."
            if self.stop:
                self.reason += " Training stops."
                self.model.stop_training = True
            warnings.warn(self.reason, RuntimeWarning, stacklevel=2)

    def diversity(self) -> float:
        """Returns the root mean square difference between samples of a class, from 0 to 1."""
        num_classes, per_class = self.model.num_classes, self.images_per_class
        count = min(num_classes or 1, MAX_CLASSES)
        labels = spread_classes(num_classes, count)
        labels = None if labels is None else labels.repeat(per_class)
        images = self.model.generate(count * per_class, labels=labels, seed=self.seed)
        images = images.reshape(count, per_class, -1) / 255.0
        # The mean square difference of two random samples is twice the variance.
        variance = images.var(axis=1, ddof=1).mean(axis=1)
        return float(np.sqrt(2.0 * variance).mean())

    def signs(self, diversity: float, logs: dict) -> list[str]:
        """Returns descriptions of the signs of collapse at the end of an epoch."""
        signs, is_first = [], self._highest is None
        self._highest = max(diversity, self._highest or 0.0)
        if not diversity >= self.diversity_share * self._highest:  # `not a >= b` also catches NaN.
            signs.append(
                f"samples of a class differ by {diversity:.3g}, down from {self._highest:.3g}"
            )
        names = ("real_in_margin", "fake_in_margin", "real_logits", "fake_logits")
        *shares, real, fake = [np.nan if (x := logs.get(name)) is None else x for name in names]
        losses = getattr(self.model, "loss_functions", None)
        has_threshold = losses is None or losses.threshold is not None
        gap = self.logit_gap if has_threshold else self.logit_gap / 100
        is_outside = has_threshold and all(share < self.margin_share for share in shares)
        if is_outside and not is_first:
            signs.append(
                f"{100 * shares[0]:.1f} % of real and {100 * shares[1]:.1f} % of generated images "
                "are inside the hinge margin"
            )
        if abs(real - fake) < gap and not is_first:
            signs.append(
                "the mean logits of real and of generated images are alike, "
                f"{real:.3g} and {fake:.3g}"
            )
        before, self._sigmas = self._sigmas, self.model.spectral_norms(normalized_only=False)
        grown = {x: y / before[x] for x, y in self._sigmas.items() if before.get(x, 0) > 0}
        name = max(grown, key=grown.__getitem__, default=None)
        if name is not None and not grown[name] <= self.sigma_factor:
            signs.append(f"σ of {name} grew {grown[name]:.2g} times, to {self._sigmas[name]:.3g}")
        return signs
