import warnings
from pathlib import Path

import keras
import numpy as np

from keras_sagan.callbacks.checkpoint import TrainingCheckpoint
from keras_sagan.callbacks.schedule import is_due
from keras_sagan.checks import check_boolean, check_float, check_integer
from keras_sagan.visualization.classes import spread_classes

MAX_CLASSES = 10  # Of a model with more, whose samples are compared.


class CollapseMonitor(keras.callbacks.Callback):
    """Warns when training collapses, or stops it and keeps the last good checkpoint.

    It measures three things after an epoch:

    - **diversity**: the root mean square difference between two samples of a class, from the same
      latents each time. A sign of collapse is a value below `diversity_share` of its maximum;
    - **logits**: a sign is that the shares of real *and* of generated images inside the hinge
      margin are below `margin_share`, so the discriminator separates them without effort; or that
      the mean logits of both differ by less than `logit_gap`, so it doesn't separate them at all;
    - **σ**: a sign is that the largest singular value of a kernel, normalized or not, has grown by
      more than `sigma_factor` since the last measurement.

    After `patience` measurements in a row with a sign, it warns with all signs of the last one.
    The first measurement gives no sign. An epoch's metrics get `sample_diversity`.

    Args:
        stop: Boolean. Whether to end training too. Defaults to `False`: only to warn, once.
        directory: String or path. A folder for the last good checkpoint, written after each
            measurement without a sign. To go back, build a new model and call
            `TrainingCheckpoint(directory).restore_latest(model)`. Defaults to `None`.
        diversity_share: Float in (0, 1). Defaults to `0.3`.
        margin_share: Float in (0, 1). Defaults to `0.02`.
        logit_gap: Float, not negative. Defaults to `0.01`.
        sigma_factor: Float above 1. Defaults to `2.0`.
        patience: Integer. Measurements with a sign before it acts. Defaults to `2`.
        images_per_class: Integer, at least 2. Samples of each class, for the diversity; at most 10
            evenly spread classes are measured. Defaults to `8`.
        seed: Integer. The seed of the latents. Defaults to `0`.
        every_epochs: Integer. Epochs between measurements; the last has one too. Defaults to `1`.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    ```python
    monitor = CollapseMonitor(stop=True, directory="runs/first/good")
    model.fit(dataset, epochs=200, callbacks=[monitor])
    print(monitor.reason)  # None if all went well
    ```

    Reference:

    - [Brock et al., 2019](https://arxiv.org/abs/1809.11096), section 4, on how GANs collapse.
    """

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
        self.reason: str | None = None  # The warning.
        self._good = None
        if directory is not None:  # It only saves when `save` is called.
            self._good = TrainingCheckpoint(directory, 2**62, None, keep=1, restore=False)

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.reason = None
        self._highest: float | None = None
        self._sigmas, self._count = {}, 0
        if self._good is not None:
            self._good.set_model(self.model)
            self._good.set_params(self.params)
            self._good.on_train_begin()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        if self._good is not None:
            self._good.on_epoch_begin(epoch)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if self._good is not None:
            self._good.on_epoch_end(epoch)
        if not is_due(epoch, self.every_epochs, self.params):
            return
        logs = {} if logs is None else logs
        diversity = self.diversity()
        signs = self.signs(diversity, logs)
        logs["sample_diversity"] = diversity
        self._count = self._count + 1 if signs else 0
        if not signs and self._good is not None:
            self._good.save()
        if self._count >= self.patience and self.reason is None:
            self.reason = f"After epoch {epoch + 1} training seems to collapse: {'; '.join(signs)}."
            if self._good is not None:
                self.reason += f" The last good checkpoint is in {self._good.directory}."
            if self.stop:
                self.reason += " Training stops."
                self.model.stop_training = True
            warnings.warn(self.reason, RuntimeWarning, stacklevel=2)

    def diversity(self) -> float:
        """Returns how much samples of a class differ in the model as it is, from 0 to 1."""
        num_classes, per_class = self.model.num_classes, self.images_per_class
        count = 1 if num_classes is None else min(num_classes, MAX_CLASSES)
        labels = None
        if num_classes is not None:
            labels = spread_classes(num_classes, count).repeat(per_class)
        images = self.model.generate(count * per_class, labels=labels, seed=self.seed)
        images = images.reshape(count, per_class, -1) / 255.0
        # The mean square difference of two draws from a distribution is twice its variance.
        variance = images.var(axis=1, ddof=1).mean(axis=1)
        return float(np.sqrt(2.0 * variance).mean())

    def signs(self, diversity: float, logs: dict) -> list[str]:
        """Returns the signs of collapse, in words, compared with earlier measurements.

        Args:
            diversity: Float, the result of `diversity()`.
            logs: Dictionary, the metrics of the epoch.
        """
        signs = []
        is_first = self._highest is None
        self._highest = max(diversity, self._highest or 0.0)
        if not diversity >= self.diversity_share * self._highest:  # Also if it is NaN.
            signs.append(
                f"samples of a class differ by {diversity:.3g}, where it was {self._highest:.3g}"
            )
        shares: list = [logs.get(f"{side}_in_margin") for side in ("real", "fake")]
        if None not in shares and max(shares) < self.margin_share and not is_first:
            signs.append(
                f"{100 * shares[0]:.1f} % of real and {100 * shares[1]:.1f} % of generated images "
                "are inside the hinge margin"
            )
        logits: list = [logs.get(f"{side}_logits") for side in ("real", "fake")]
        if None not in logits and abs(logits[0] - logits[1]) < self.logit_gap and not is_first:
            signs.append(
                "the mean logits of real and of generated images are alike, "
                f"{logits[0]:.3g} and {logits[1]:.3g}"
            )
        sigmas = self.model.spectral_norms(normalized_only=False)
        grown = {
            x: sigma / self._sigmas[x] for x, sigma in sigmas.items() if self._sigmas.get(x, 0) > 0
        }
        name = max(grown, key=grown.__getitem__, default=None)
        if name is not None and not grown[name] <= self.sigma_factor:
            signs.append(f"σ of {name} grew {grown[name]:.2g} times, to {sigmas[name]:.3g}")
        self._sigmas = sigmas
        return signs
