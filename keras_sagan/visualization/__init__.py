"""Pictures: image grids, attention overlays and training curves.

Everything here takes numpy arrays in user space, uint8 in [0, 255], and never touches a model.
Drawing needs the `plot` extra: `pip install "keras_sagan[plot]"`.
"""

from keras_sagan.visualization.attention import attention_overlay, plot_attention
from keras_sagan.visualization.curves import plot_curves
from keras_sagan.visualization.grid import image_grid, sample_grid, save_image
from keras_sagan.visualization.query_points import choose_query_points

__all__ = [
    "attention_overlay",
    "choose_query_points",
    "image_grid",
    "plot_attention",
    "plot_curves",
    "sample_grid",
    "save_image",
]
