import keras


class AttentionGamma(keras.callbacks.Callback):
    """Adds γ of each attention layer to the figures of an epoch.

    γ says how much of its attention a layer adds to what went in; it is 0 at first. The keys are
    `gamma/generator/<layer>` and `gamma/discriminator/<layer>`. `History` sees them always, and
    `CSVLogger` or `TensorBoard` where they stand after this callback in the list. A model
    without attention gets no key.

    Example:

    ```python
    callbacks = [AttentionGamma(), keras.callbacks.CSVLogger("runs/first/log.csv")]
    model.fit(dataset, epochs=20, callbacks=callbacks)
    ```
    """

    def on_epoch_end(self, epoch, logs=None):
        if logs is None:
            return
        for name, gamma in self.model.attention_gammas().items():
            logs[f"gamma/{name}"] = float(gamma)
