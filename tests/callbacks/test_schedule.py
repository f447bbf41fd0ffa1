import keras
import pytest

from keras_sagan import callbacks

MAKE = {
    "AttentionFigure": lambda folder: callbacks.AttentionFigure(folder),
    "AttentionMonitor": lambda folder: callbacks.AttentionMonitor(),
    "CollapseMonitor": lambda folder: callbacks.CollapseMonitor(),
    "SampleGrid": lambda folder: callbacks.SampleGrid(folder),
    "SpectralMonitor": lambda folder: callbacks.SpectralMonitor(),
}


@pytest.mark.parametrize("name", MAKE)
def test_a_model_that_is_not_a_gan_is_refused(name, tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    zeros = keras.ops.zeros((2, 2))
    text = f"`{name}` must be given a SAGAN, or a model with its .*Received: Sequential without"
    with pytest.raises(ValueError, match=text):
        model.fit(zeros, zeros[:, :1], verbose=0, callbacks=[MAKE[name](tmp_path)])
    assert not list(tmp_path.iterdir())
