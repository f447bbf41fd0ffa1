"""The same evaluation has the same numbers on every backend; `test_backends.py` runs this there."""

import keras
import numpy as np
import pytest
import tiny_networks as tiny

from keras_sagan.callbacks import FIDEvaluator
from keras_sagan.data import load_fashion_mnist, pad_to_32
from keras_sagan.metrics import (
    FolderImages,
    FrechetInceptionDistance,
    GreyClassifierFeatures,
    evaluate_generator,
    evaluate_images,
)


@pytest.fixture(scope="module")
def real():
    images, labels = load_fashion_mnist()
    return pad_to_32(images[:60]), labels[:60]


def generator():
    """Weights that are the same everywhere."""
    latents, labels = keras.Input((3,)), keras.Input((), dtype="int32")
    x = keras.layers.Dense(1024)(latents) + keras.layers.Embedding(10, 1024)(labels)
    model = keras.Model([latents, labels], keras.layers.Reshape((32, 32, 1))(keras.ops.tanh(x)))
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.5, w.shape).astype("float32") for w in model.get_weights()])
    return model


def test_a_generator(real):
    names, extractor = ("fid", "kid", "inception_score"), GreyClassifierFeatures()
    report = evaluate_generator(generator(), real, names, extractor, num_images=50, verbose=False)
    expected = {"fid": 569.80725, "kid": 110.06371, "inception_score_single": 1.0844250}
    found = {name: report.values[name] for name in expected}
    assert found == pytest.approx(expected, rel=1e-4)
    assert report.baselines["real"]["fid"] == pytest.approx(89.371108, rel=1e-4)
    assert report.baselines["noise"]["fid"] == pytest.approx(520.30121, rel=1e-4)
    assert report.protocol["labels"] == "uniform, in turn"


def test_two_folders(real, tmp_path):
    image_module = pytest.importorskip("PIL.Image")
    for number, image in enumerate(real[0][..., 0]):
        folder = tmp_path / str(number % 2)
        folder.mkdir(exist_ok=True)
        image_module.fromarray(image).save(folder / f"{number:02}.png")
    folders = [FolderImages(tmp_path / name, batch_size=16) for name in "01"]
    report = evaluate_images(*folders, "fid", GreyClassifierFeatures(), verbose=False)
    assert report.values["fid"] == pytest.approx(89.371108, rel=1e-4)


def test_the_callback_measures_as_the_function_does():
    keras.utils.set_random_seed(0)
    model = tiny.build_small_sagan(ema_momentum=0.9)
    model.compile(**tiny.sgd())
    images = np.uint8((tiny.images(24) + 1.0) * 127.5)
    labels = tiny.labels(24)

    def features(images):
        return keras.ops.reshape(images, (-1, int(np.prod(tiny.SHAPE))))[:, :5]

    evaluator = FIDEvaluator(FrechetInceptionDistance(features), images, 20, batch_size=8)
    history = model.fit(images, labels, batch_size=8, verbose=0, callbacks=[evaluator]).history
    report = evaluate_generator(model, images, "fid", features, num_images=20, verbose=False)
    assert history["fid_20"] == [pytest.approx(report.values["fid"], rel=1e-4)]
    protocol = {**evaluator.protocol, "metrics": report.protocol["metrics"]}
    assert protocol == report.protocol
