"""The profile of a training step in miniature, and its record."""

import json

import common
import keras
import profile_step
import pytest
import tensorflow as tf

from keras_sagan import SNConv2D


def test_layers_and_kinds_are_told_apart():
    names = {"block_8_conv_1", "attention_32", "last_norm"}
    layers = {
        "gradient_tape/generator_3/block_8_conv_1_1/MatMul:MatMul": "generator/block_8_conv_1",
        "discriminator_1/attention_32_1/Softmax:Softmax": "discriminator/attention_32",
        "generator_1/last_norm_1/Mean:Mean": "generator/last_norm",
        "fused_adam/ResourceApplyAdam:ResourceApplyAdam": "optimizers",
        "AddN_12:AddN": "the rest",
        "gradient_tape/generator_1/last_norm_1/Call:ExecuteAsyncOnStream": "generator/last_norm",
    }
    for operation, layer in layers.items():
        assert profile_step.layer_of(operation, names) == layer
    kinds = [profile_step.kind_of(operation, names) for operation in layers]
    assert kinds == [
        *("convolution", "attention", "batch norm", "optimizers", "the rest"),
        "transforms and sums that XLA compiles",
    ]


@pytest.mark.slow
def test_gradients_written_by_hand_have_their_layers_name():
    discriminator = keras.Sequential(
        [keras.Input((8, 8, 56)), SNConv2D(56, 3, padding="same", name="wide")],
        name="discriminator",
    )

    @tf.function(autograph=False)
    def gradient(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = discriminator(images, training=True)
        return tape.gradient(outputs, [images, *discriminator.trainable_weights])

    graph = gradient.get_concrete_function(tf.TensorSpec((2, 8, 8, 56))).graph
    names = [x.name for x in graph.get_operations() if "PartitionedCall" in x.type]
    assert len(names) > 4 and any("gradient_tape" in name for name in names)
    for name in names:
        assert profile_step.layer_of(f"{name}:Call", {"wide"}) == "discriminator/wide", name


def test_shares_sum_to_one():
    rows = profile_step.shares({"a:x": 3.0, "b:x": 1.0}, lambda name: name[0])
    assert rows == [{"of": "a", "ms": 3.0, "share": 0.75}, {"of": "b", "ms": 1.0, "share": 0.25}]


def test_the_page_has_the_record():
    record = json.loads((common.RESULTS / "profile_step.json").read_text())
    page = (common.ROOT / "benchmarks" / "logs" / "performance.md").read_text(encoding="utf-8")
    assert 0.97 < sum(row["share"] for row in record["kinds"]) < 1.03
    for row in record["kinds"][:8]:
        assert f"| {row['of']} | {row['ms']:.0f} |" in page
    layers = [row for row in record["layers"] if "/" in row["of"]]
    assert len(layers) > 60
