"""Pictures: grids, attention maps, interpolations, neighbors, training curves and animations."""

from keras_sagan.visualization.animation import save_gif
from keras_sagan.visualization.attention import attention_overlay, plot_attention
from keras_sagan.visualization.curves import plot_curves
from keras_sagan.visualization.grid import image_grid, sample_grid, save_image
from keras_sagan.visualization.model_attention import draw_attention
from keras_sagan.visualization.model_pictures import (
    draw_interpolation,
    draw_neighbours,
    draw_truncation,
    nearest_neighbours,
)
from keras_sagan.visualization.query_points import choose_query_points

__all__ = [
    "attention_overlay",
    "choose_query_points",
    "draw_attention",
    "draw_interpolation",
    "draw_neighbours",
    "draw_truncation",
    "image_grid",
    "nearest_neighbours",
    "plot_attention",
    "plot_curves",
    "sample_grid",
    "save_gif",
    "save_image",
]
