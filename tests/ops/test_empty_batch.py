"""Batches of no images: where their size is known, and where a program can't know it."""

import keras
import numpy as np
import pytest

from keras_sagan.layers import SelfAttention2D, SNConv2D

LAYERS = [
    lambda: SNConv2D(3, 3, padding="same"),
    lambda: SelfAttention2D(2, use_spectral_norm=False, query_chunk_size=4),
]


@pytest.mark.parametrize("make", LAYERS)
@pytest.mark.parametrize("training", [False, True])
def test_programs_have_a_condition_in_training_alone(make, training):
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("programs of TensorFlow")
    layer = make()
    layer.build((None, 4, 4, 2))

    def operations(batch):
        call = tf.function(lambda x: layer(x, training=training), autograph=False)
        graph = call.get_concrete_function(tf.TensorSpec((batch, 4, 4, 2))).graph
        functions = graph.as_graph_def().library.function
        nodes = [*graph.as_graph_def().node, *(x for f in functions for x in f.node_def)]
        return {node.op for node in nodes}

    conditions = {"If", "StatelessIf", "Cond"}
    assert bool(operations(None) & conditions) == training
    assert not operations(0) & conditions and not operations(3) & conditions


@pytest.mark.parametrize("make", LAYERS)
@pytest.mark.parametrize("training", [False, True])
def test_no_images_where_their_number_is_known(make, training):
    layer = make()
    expected = layer(np.ones((1, 4, 4, 2), "float32")).shape[1:]
    assert layer(np.ones((0, 4, 4, 2), "float32"), training=training).shape == (0, *expected)


@pytest.mark.parametrize("make", LAYERS)
def test_a_program_for_any_number_of_images_takes_a_single_one(make):
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("programs of TensorFlow")
    layer, images = make(), np.random.default_rng(0).normal(size=(2, 4, 4, 2)).astype("float32")
    expected = keras.ops.convert_to_numpy(layer(images))
    signature = [tf.TensorSpec((None, 4, 4, 2))]
    call = tf.function(lambda x: layer(x, training=True), signature, autograph=False)
    for count in (0, 1, 2):
        np.testing.assert_allclose(call(images[:count]), expected[:count], rtol=1e-4, atol=1e-6)
