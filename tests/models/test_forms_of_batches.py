"""Every form of a batch, run in every way: the same weights and the same scores."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny_networks as tiny
from keras import layers, ops
from replicas import two_replicas

from keras_sagan import SAGAN

COUNT, BATCH, STEPS = 6, 2, 3
IMAGES, LABELS = tiny.images(COUNT), tiny.labels(COUNT)


def batch_of(form, index):
    part = slice(BATCH * index, BATCH * (index + 1))
    return form(IMAGES[part], LABELS[part])


class Batches(keras.utils.PyDataset):
    def __init__(self, form):
        super().__init__()
        self.form = form

    def __len__(self):
        return STEPS

    def __getitem__(self, index):
        return batch_of(self.form, index)


def generator(form):
    return (batch_of(form, index) for index in range(STEPS))


def data_set(form):
    options = tf.data.Options()
    options.autotune.enabled = False  # The end of a tuned iterator takes seconds.
    data = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(BATCH).map(form)
    return data.with_options(options)


# What `fit` and `evaluate` are given, of images alone and with labels.
FORMS = {
    None: {
        "array": lambda: (IMAGES,),
        "array and None": lambda: (IMAGES, None),
        "tensor": lambda: (tf.constant(IMAGES),),
        "images": lambda: (data_set(lambda x, y: x),),
        "(images,)": lambda: (data_set(lambda x, y: (x,)),),
        "(images, None)": lambda: (data_set(lambda x, y: (x, None)),),
        "(images, None, None)": lambda: (data_set(lambda x, y: (x, None, None)),),
        "generator of (images,)": lambda: (generator(lambda x, y: (x,)),),
        "generator of (images, None)": lambda: (generator(lambda x, y: (x, None)),),
        "PyDataset of images": lambda: (Batches(lambda x, y: x),),
        "PyDataset of [images, None]": lambda: (Batches(lambda x, y: [x, None]),),
    },
    tiny.CLASSES: {
        "arrays": lambda: (IMAGES, LABELS),
        "int64": lambda: (IMAGES, LABELS.astype("int64")),
        "tensors": lambda: (tf.constant(IMAGES), tf.constant(LABELS)),
        "(images, labels)": lambda: (data_set(lambda x, y: (x, y)),),
        "(images, labels, None)": lambda: (data_set(lambda x, y: (x, y, None)),),
        "generator of (images, labels)": lambda: (generator(lambda x, y: (x, y)),),
        "generator of (images, labels, None)": lambda: (generator(lambda x, y: (x, y, None)),),
        "PyDataset of (images, labels)": lambda: (Batches(lambda x, y: (x, y)),),
    },
}


# Each form is traced anew: all are eagerly, and either step by step or several steps at once.
SEVERAL = {"array and None", "images", "(images, None)", "generator of (images, None)"}
SEVERAL |= {"PyDataset of [images, None]", "arrays", "(images, labels, None)"}
SEVERAL |= {"generator of (images, labels)", "PyDataset of (images, labels)"}
ON_REPLICAS = {"generator of (images, None)", "(images, labels, None)"}
STEP_BY_STEP = {name for forms in FORMS.values() for name in forms} - SEVERAL
CHOSEN = {"one step": STEP_BY_STEP, "two steps": SEVERAL, "two replicas": ON_REPLICAS}


def networks(num_classes):
    """Of one layer each: they are traced for each form."""
    latents, images = keras.Input((tiny.LATENT_DIM,)), keras.Input(tiny.SHAPE)
    labels = [] if num_classes is None else [keras.Input((), dtype="int32")]
    x, y = latents, layers.Flatten()(images)
    for label in labels:
        x = ops.concatenate([x, ops.one_hot(label, num_classes)], axis=1)
        y = ops.concatenate([y, ops.one_hot(label, num_classes)], axis=1)
    x = layers.Reshape(tiny.SHAPE)(layers.Dense(128, activation="tanh")(x))
    logits = layers.Dense(1)(y)
    return (
        keras.Model([latents, *labels] if labels else latents, x),
        keras.Model([images, *labels] if labels else images, logits),
    )


WAYS = {
    "eager": {"run_eagerly": True},
    "one step": {},
    "two steps": {"steps_per_execution": 2},
    "two replicas": {"replicas": 2, "steps_per_execution": 2},
}


def model_of(way, num_classes):
    arguments = dict(WAYS[way])
    strategy = two_replicas() if arguments.pop("replicas", 1) == 2 else tf.distribute.get_strategy()
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = SAGAN(*networks(num_classes), tiny.LATENT_DIM, num_classes, seed=1)
        model.compile(**tiny.sgd(), **arguments)
    return model


def run(model, start, make):
    """The scores at given weights, and the weights after an epoch."""
    model.set_weights(start)
    options = {"verbose": 0, **({"batch_size": BATCH} if hasattr(make()[0], "shape") else {})}
    scores = model.evaluate(*make(), **options, return_dict=True)
    model.fit(*make(), **options, shuffle=False)
    return scores, tiny.weights(model)


@functools.cache
def expected(num_classes):
    """What a plain array gives, step by step."""
    model = model_of("eager", num_classes)
    start = tiny.weights(model)
    scores, weights = run(model, start, next(iter(FORMS[num_classes].values())))
    assert int(model.steps) == STEPS
    return start, scores, weights


@pytest.mark.slow
@pytest.mark.parametrize("num_classes", FORMS)
@pytest.mark.parametrize("way", WAYS)
def test_every_form_gives_the_same(way, num_classes):
    start, scores, weights = expected(num_classes)
    model = model_of(way, num_classes)
    forms = FORMS[num_classes]
    for name in CHOSEN.get(way, set(forms)) & set(forms):
        found, others = run(model, start, forms[name])
        assert found == pytest.approx(scores, abs=1e-5), name
        for value, other in zip(weights, others):
            np.testing.assert_allclose(other, value, atol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("way, num_classes", [("eager", None), ("two steps", tiny.CLASSES)])
def test_single_batches(way, num_classes):
    start, _, weights = expected(num_classes)
    model = model_of(way, num_classes)
    first = [None if x is None else x[:BATCH] for x in (IMAGES, LABELS if num_classes else None)]
    scores = model.evaluate(*first, verbose=0, return_dict=True)
    for name, make in FORMS[num_classes].items():
        if not hasattr(make()[0], "shape"):
            continue
        model.set_weights(start)
        for index in range(STEPS):
            part = slice(BATCH * index, BATCH * (index + 1))
            batch = [None if x is None else x[part] for x in make()]
            if not index:
                found = model.test_on_batch(*batch, return_dict=True)
                assert found == pytest.approx(scores, abs=1e-5), name
            model.train_on_batch(*batch)
        for value, other in zip(weights, tiny.weights(model)):
            np.testing.assert_allclose(other, value, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    "validation_data", [IMAGES, (IMAGES,), (IMAGES, None), data_set(lambda x, y: (x, None))]
)
def test_validation_data(validation_data):
    start, scores, _ = expected(None)
    model = model_of("eager", None)
    model.set_weights(start)
    model.compile(*(keras.optimizers.SGD(0.0) for _ in range(2)), run_eagerly=True)
    history = model.fit(
        IMAGES, validation_data=validation_data, validation_batch_size=BATCH, verbose=0
    ).history
    found = {name: history[f"val_{name}"][0] for name in scores}
    assert found == pytest.approx(scores, abs=1e-5)


WRONG = {
    "nothing": (lambda x, y: (None, y), "Received: no images"),
    "weights": (lambda x, y: (x, y, y), "`sample_weight`.*no meaning.*Received: 3 parts"),
    "weights without labels": (lambda x, y: (x, None, y), "Received: 3 parts"),
    "a pair in the place of images": (lambda x, y: ((x, x), y), "Received: images=a tuple"),
    "a dictionary": (lambda x, y: {"images": x}, "Received: images=a dict"),
}


@pytest.mark.parametrize("way", ["two steps", "two replicas"])
def test_what_is_no_batch_is_refused(way):
    model = model_of(way, tiny.CLASSES)
    for form, match in WRONG.values():
        for method in (model.fit, model.evaluate):
            with pytest.raises(ValueError, match=match):
                method(data_set(form), verbose=0)


def test_a_pydataset_is_told_of_epochs_and_keeps_its_settings():
    told = []

    class Telling(Batches):
        def on_epoch_begin(self):
            told.append("begin")

        def on_epoch_end(self):
            told.append("end")

    model = model_of("eager", None)
    data = Telling(lambda x, y: (x, None))
    model.fit(data, epochs=2, verbose=0, validation_data=Batches(lambda x, y: (x, None)))
    assert told.count("begin") == 2 and "end" in told
    assert int(model.steps) == 2 * STEPS


@pytest.mark.parametrize("way", ["eager", "two replicas"])
def test_weights_of_classes_are_refused(way):
    model = model_of(way, tiny.CLASSES)
    for method in (model.fit, model.train_on_batch):
        with pytest.raises(ValueError, match="`class_weight` have no meaning for a GAN"):
            method(IMAGES, LABELS, class_weight={0: 1.0})
        with pytest.raises(ValueError, match="`sample_weight`.*no meaning for a GAN"):
            method(IMAGES, LABELS, sample_weight=np.ones(COUNT))
