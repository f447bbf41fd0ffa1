"""From a network to the picture: a known attention, a saved file, both networks."""

import keras
import numpy as np
import pytest
import tiny_networks as tiny
from keras import layers

from keras_sagan import SAGAN, SelfAttention2D
from keras_sagan.visualization import attention_overlay, draw_attention

SIZE = (16, 8)  # Oblong, so that rows and columns can't be swapped unseen.


def looks_at_the_brightest():
    """A model whose attention has one key alone from any query: the brightest pixel's cell."""
    settings = {"key_reduction": 1, "value_reduction": 1, "use_spectral_norm": False}
    settings["kernel_initializer"] = keras.initializers.Constant(30.0)
    latents = keras.Input((2,))
    x = layers.Reshape((*SIZE, 1))(layers.Dense(SIZE[0] * SIZE[1], activation="tanh")(latents))
    generator = keras.Model(latents, SelfAttention2D(**settings, name="look")(x))
    images = keras.Input((*SIZE, 1))
    look = SelfAttention2D(**settings, name="look")(images)
    discriminator = keras.Model(images, layers.Dense(1)(layers.Flatten()(look)))
    return SAGAN(generator, discriminator, latent_dim=2)


@pytest.fixture(scope="module")
def model():
    return looks_at_the_brightest()


@pytest.mark.parametrize("row, column", [(0, 0), (15, 7), (3, 6), (12, 1)])
@pytest.mark.parametrize("query", [(0, 7), (9, 2)])
def test_a_planted_pixel_is_where_the_overlay_is_bright(model, row, column, query):
    images = np.full((1, *SIZE, 1), 0.1, "float32")
    images[0, row, column] = 1.0
    _, maps = model.attention_maps(images)
    overlay = attention_overlay(maps["look"][0][query], SIZE)
    expected = np.zeros(SIZE)
    top, left = row // 2 * 2, column // 2 * 2  # The cell that the pixel was pooled into.
    expected[top : top + 2, left : left + 2] = 1.0
    np.testing.assert_allclose(overlay, expected, atol=1e-6)


def test_a_saved_file_gives_the_same_figure(tmp_path, model):
    model.save(tmp_path / "model.keras")
    paths = [
        draw_attention(source, tmp_path / name, num_images=2)["look"]
        for source, name in ((model, "one"), (tmp_path / "model.keras", "two"))
    ]
    assert paths[0] == tmp_path / "one" / "attention.png"
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_the_discriminators_figure_of_given_images_and_points(tmp_path, model):
    images = np.zeros((2, *SIZE, 1), "uint8")
    paths = draw_attention(model, tmp_path, images, query_points=[(1, 2)], name="judged")
    assert paths == {"look": tmp_path / "judged.png"} and paths["look"].exists()


def test_names_must_fit_the_model(tmp_path, model):
    with pytest.raises(ValueError, match="`class_names` must be None for an unconditional model"):
        draw_attention(model, tmp_path, np.zeros((1, *SIZE, 1)), class_names=["a"])
    with pytest.raises(ValueError, match="`class_names` must name each of the model's 5 classes"):
        draw_attention(tiny.build_sagan(), tmp_path, class_names=["a"])
    with pytest.raises(ValueError, match="`num_images` must be an integer.*num_images=0"):
        draw_attention(model, tmp_path, num_images=0)
