import warnings

import keras
import numpy as np

from keras_sagan.callbacks.checkpoint import TrainingCheckpoint
from keras_sagan.callbacks.schedule import is_due
from keras_sagan.checks import check_boolean, check_float, check_integer
from keras_sagan.visualization.classes import spread_classes

# Classes whose samples are compared, where a model has more.
MAX_CLASSES = 10


class CollapseMonitor(keras.callbacks.Callback):
    """Warns when training collapses, or stops it and keeps the last good checkpoint.

    It looks at three things after an epoch:

    - **diversity**: the root mean square difference between two samples of a class, of latents
      that are the same each time. A sign if it falls below `diversity_share` of its highest value;
    - **logits**: a sign if the share of real *and* that of generated images inside the hinge
      margin are below `margin_share`, as the discriminator tells them apart without effort; or if
      the mean logits of both differ by less than `logit_gap`, as it doesn't at all;
    - **σ**: a sign if the largest singular value of a kernel has grown by more than
      `sigma_factor` since the last look. Kernels that aren't normalised count too.

    Once there was a sign at `patience` looks in a row, it warns with all signs of the last one.
    The first look sets the marks and gives no sign. An epoch's figures get `sample_diversity`.

    Args:
        stop: Boolean. Whether to end training then. Defaults to `False`: to warn, once.
        directory: String or path. A folder for the last good checkpoint: it is written after each
            look without a sign, as `TrainingCheckpoint` writes it. Go back to it with
            `TrainingCheckpoint(directory).restore_latest(model)`, on a model that is newly
            built. Defaults to `None`.
        diversity_share: Float in (0, 1). Defaults to `0.3`.
        margin_share: Float in (0, 1). Defaults to `0.02`.
        logit_gap: Float, not negative. Defaults to `0.01`.
        sigma_factor: Float above 1. Defaults to `2.0`.
        patience: Integer. Looks with a sign before it acts. Defaults to `2`.
        images_per_class: Integer, at least 2. Samples of each class, for the diversity; 10 classes
            spread over all are looked at. Defaults to `8`.
        seed: Integer. Seed of the latents. Defaults to `0`.
        every_epochs: Integer. Look each time so many epochs are done, and after the last one.
            Defaults to `1`.

    Raises:
        ValueError: If an argument is out of range.
        RuntimeError: For a `directory` on another backend than TensorFlow.

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
        stop=False,
        directory=None,
        diversity_share=0.3,
        margin_share=0.02,
        logit_gap=0.01,
        sigma_factor=2.0,
        patience=2,
        images_per_class=8,
        seed=0,
        every_epochs=1,
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
        self.reason = None  # What the warning said.
        self._good = None
        if directory is not None:
            # It only writes when it is told to.
            self._good = TrainingCheckpoint(directory, every_steps=2**62, every_epochs=None, keep=1)
            self._good.restore = False

    def on_train_begin(self, logs=None):
        self.reason = None
        self._highest, self._sigmas, self._count = None, {}, 0
        if self._good is not None:
            self._good.set_model(self.model)
            self._good.set_params(self.params)
            self._good.on_train_begin()

    def on_epoch_begin(self, epoch, logs=None):
        if self._good is not None:
            self._good.on_epoch_begin(epoch)

    def on_epoch_end(self, epoch, logs=None):
        if self._good is not None:
            self._good.on_epoch_end(epoch)
        if not is_due(epoch, self.every_epochs, self.params):
            return
        diversity = self.diversity()
        signs = self.signs(diversity, logs or {})
        if logs is not None:
            logs["sample_diversity"] = diversity
        self._count = self._count + 1 if signs else 0
        if not signs and self._good is not None:
            self._good.save()
        if self._count >= self.patience and self.reason is None:
            self._act(epoch, signs)

    def diversity(self):
        """Returns how much samples of a class differ as the model stands, from 0 to 1."""
        num_classes = self.model.num_classes
        classes = [0] if num_classes is None else range(min(num_classes, MAX_CLASSES))
        count = len(classes) * self.images_per_class
        labels = None
        if num_classes is not None:
            labels = spread_classes(num_classes, len(classes)).repeat(self.images_per_class)
        images = self.model.generate(count, labels=labels, seed=self.seed)
        images = images.reshape(len(classes), self.images_per_class, -1) / 255.0
        # Two draws from a distribution differ by twice its variance, in the mean of the square.
        variance = images.var(axis=1, ddof=1).mean(axis=1)
        return float(np.sqrt(2.0 * variance).mean())

    def signs(self, diversity, logs):
        """Compares the model as it stands with what was seen before.

        Args:
            diversity: Float, what `diversity()` returned.
            logs: Dictionary, the figures of the epoch.

        Returns:
            List of strings, one for each sign of collapse.
        """
        signs = []
        is_first = self._highest is None
        self._highest = max(diversity, 0.0 if is_first else self._highest)
        if not diversity >= self.diversity_share * self._highest:
            signs.append(
                f"samples of a class differ by {diversity:.3g}, where it was {self._highest:.3g}"
            )
        shares = [logs.get(f"{side}_in_margin") for side in ("real", "fake")]
        if None not in shares and max(shares) < self.margin_share and not is_first:
            signs.append(
                f"{100 * shares[0]:.1f} % of real and {100 * shares[1]:.1f} % of generated images "
                "are inside the hinge margin"
            )
        logits = [logs.get(f"{side}_logits") for side in ("real", "fake")]
        if None not in logits and abs(logits[0] - logits[1]) < self.logit_gap and not is_first:
            signs.append(
                f"the logits of real and of generated images are alike, {logits[0]:.3g} and "
                f"{logits[1]:.3g} in the mean"
            )
        sigmas = self.model.spectral_norms(normalized_only=False)
        grown = {
            name: sigma / self._sigmas[name]
            for name, sigma in sigmas.items()
            if self._sigmas.get(name, 0.0) > 0
        }
        name = max(grown, key=grown.get, default=None)
        if name is not None and not grown[name] <= self.sigma_factor:
            signs.append(f"σ of {name} grew {grown[name]:.2g} times, to {sigmas[name]:.3g}")
        self._sigmas = sigmas
        return signs

    def _act(self, epoch, signs):
        self.reason = f"After epoch {epoch + 1} training seems to collapse: {'; '.join(signs)}."
        if self._good is not None:
            self.reason += f" The last good checkpoint is in {self._good.directory}."
        if self.stop:
            self.reason += " Training stops."
            self.model.stop_training = True
        warnings.warn(self.reason, RuntimeWarning, stacklevel=2)
