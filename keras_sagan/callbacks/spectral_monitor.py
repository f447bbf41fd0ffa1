import warnings

from keras_sagan.callbacks.schedule import SAGANCallback, is_due
from keras_sagan.checks import check_boolean, check_integer
from keras_sagan.layers.spectral_norm import StaleNormWarning


class SpectralMonitor(SAGANCallback):
    """Measures the largest singular value σ of every spectrally normalized kernel.

    The size of σ doesn't matter, because the layers divide their kernels by σ. In a healthy run, σ
    changes slowly; a sudden jump is a sign of collapse. `SpectralMonitor.history` contains σ for
    every kernel, and `plot_curves` can draw it. The metrics of an epoch include only the largest σ
    of each network, `sigma/generator` and `sigma/discriminator`. At the first measurement of a run,
    the callback warns about layers whose estimate of σ is wrong by more than 10 %.

    Args:
        normalized_only: If `False`, kernels that aren't normalized are also measured, with an
            eigenvalue decomposition of each kernel.
        every_epochs: The number of epochs between measurements; the last of the `epochs` of `fit`
            is always measured.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    ```python
    monitor = SpectralMonitor()
    model.fit(dataset, epochs=20, callbacks=[monitor])
    plot_curves(monitor.history, path="runs/sigmas.png")
    ```

    Reference: [Brock et al., 2019](https://arxiv.org/abs/1809.11096), section 4 and appendix F.
    """

    needs = ("spectral_norms",)

    def __init__(self, normalized_only: bool = True, every_epochs: int = 1):
        super().__init__()
        self.normalized_only = check_boolean("normalized_only", normalized_only)
        self.every_epochs = check_integer("every_epochs", every_epochs, 1)
        self._has_warned = False
        self.history = {}  # Maps `sigma/<network>/<kernel>` to a list of (finished epochs, σ).

    def on_train_begin(self, logs: dict | None = None) -> None:
        self._has_warned = False

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if not is_due(epoch, self.every_epochs, self.params):
            return
        logs, largest = {} if logs is None else logs, {}
        with warnings.catch_warnings():
            if self._has_warned:
                warnings.simplefilter("ignore", StaleNormWarning)
            norms = self.model.spectral_norms(self.normalized_only)
        self._has_warned = True
        for name, sigma in norms.items():
            pairs = [pair for pair in self.history.get(f"sigma/{name}", []) if pair[0] <= epoch]
            self.history[f"sigma/{name}"] = [*pairs, (epoch + 1, sigma)]
            network = f"sigma/{name.split('/')[0]}"
            largest[network] = max(largest.get(network, sigma), sigma)
        logs.update(largest)
