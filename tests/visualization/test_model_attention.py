"""From a network to the picture: a known attention, a saved file, both networks."""

import keras
import numpy as np
import pytest
import tiny_networks as tiny
from keras import layers

from keras_sagan import SAGAN, SelfAttention2D
from keras_sagan.callbacks import AttentionFigure
from keras_sagan.visualization import draw_attention
from keras_sagan.visualization.attention import GAP, layout
from keras_sagan.visualization.model_attention import in_words

SIZE = (16, 8)  # Oblong, so that rows and columns can't be swapped unseen.
QUERY = (13, 6)
DARK = 0.1


def planted(row, column, size):
    """A dark image but for one cell of a map of `size`, which is white."""
    image = np.full((1, *size, 1), DARK, "float32")
    image[0, row, column] = 1.0
    return image.repeat(SIZE[0] // size[0], axis=1).repeat(SIZE[1] // size[1], axis=2)


def looks_at_the_brightest(factor=1, pool_size=2, cell=(3, 6)):
    """A model whose attention has one key alone from any query: the brightest cell of its map.

    The map is `factor` times smaller than the image. Whatever its latents, the generator makes the
    image that is white in `cell` of the map.
    """
    settings = {"key_reduction": 1, "value_reduction": 1, "use_spectral_norm": False}
    settings["kernel_initializer"] = keras.initializers.Constant(30.0)
    size = SIZE[0] // factor, SIZE[1] // factor
    latents = keras.Input((2,))
    dense = layers.Dense(size[0] * size[1], kernel_initializer="zeros")
    x = layers.Reshape((*size, 1))(dense(latents))
    x = SelfAttention2D(**settings, pool_size=pool_size, name="look")(x)
    generator = keras.Model(latents, layers.UpSampling2D(factor)(x))
    dense.bias.assign(planted(*cell, size)[0, ::factor, ::factor, 0].ravel())
    images = keras.Input((*SIZE, 1))
    x = layers.AveragePooling2D(factor)(images)
    x = SelfAttention2D(**settings, pool_size=pool_size, name="look")(x)
    discriminator = keras.Model(images, layers.Dense(1)(layers.Flatten()(x)))
    return SAGAN(generator, discriminator, latent_dim=2)


@pytest.fixture(scope="module")
def model():
    return looks_at_the_brightest()


def bright_pixels(path):
    """Which pixels of the image have a bright overlay in the file of a figure of one query."""
    picture = np.asarray(pytest.importorskip("PIL.Image").open(path).convert("RGB"))
    left, top, height, width = layout((1, *SIZE, 1), "a title", None)
    box = picture[top:, left + width + GAP :][:height, :width, 0]
    scale = height // SIZE[0]
    assert box.shape == (height, width) and (height, width) == (scale * SIZE[0], scale * SIZE[1])
    return box[scale // 2 :: scale, scale // 2 :: scale] > 200


@pytest.mark.slow
@pytest.mark.parametrize(
    "factor, pool_size, cell",
    [(1, 1, (3, 6)), (1, 4, (5, 7)), (2, 2, (3, 1)), (4, 2, (1, 0))],
)
def test_a_planted_cell_is_where_the_figure_is_bright(factor, pool_size, cell, tmp_path):
    """From a model and a training, of both networks, to the pixels of the file."""
    model = looks_at_the_brightest(factor, pool_size, cell)
    real = planted(*cell, (SIZE[0] // factor, SIZE[1] // factor))
    figures = []
    for folder, images in ((tmp_path / "g", None), (tmp_path / "d", real)):
        common = {"num_images": 1, "query_points": [QUERY]}
        figures.append(draw_attention(model, folder, images, **common)["look"])
    callback = AttentionFigure(tmp_path / "run", 1, real_images=real, query_points=[QUERY])
    model.compile(keras.optimizers.SGD(0.0), keras.optimizers.SGD(0.0), run_eagerly=True)
    model.fit(real, epochs=1, batch_size=1, callbacks=[callback], verbose=0)
    figures += sorted((tmp_path / "run").iterdir())
    assert len(figures) == 4
    block = factor * pool_size  # Pixels of the image that one key covers.
    top, left = (factor * x // block * block for x in cell)
    expected = np.zeros(SIZE, bool)
    expected[top : top + block, left : left + block] = True
    for path in figures:
        found = bright_pixels(path)
        found[QUERY] = expected[QUERY]  # The dot hides it.
        np.testing.assert_array_equal(found, expected, err_msg=str(path))


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


@pytest.mark.parametrize(
    "name, words",
    [
        ("attention", ""),
        ("attention_epoch_006", ", epoch 6"),
        ("attention_epoch_120_discriminator", ", epoch 120 discriminator"),
        ("mine", ", mine"),
    ],
)
def test_names_in_words(name, words):
    assert in_words(name) == words
