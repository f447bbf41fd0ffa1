"""What runs beside `fit`: pictures, γ and Fréchet distances by epoch, checkpoints, a guard.

A callback touches a model only through `generate()`, `attention_maps()`, `attention_gammas()`,
`latent_dim` and `num_classes`, so that it works with any model that has them. The checkpoint and
the guard take a model's variables too, through `model_state`.
"""

from keras_sagan.callbacks.attention_figure import AttentionFigure
from keras_sagan.callbacks.attention_gamma import AttentionGamma
from keras_sagan.callbacks.fid_evaluator import FIDEvaluator
from keras_sagan.callbacks.sample_grid import SampleGrid
from keras_sagan.callbacks.stop_on_non_finite import StopOnNonFinite
from keras_sagan.callbacks.training_checkpoint import TrainingCheckpoint

__all__ = [
    "AttentionFigure",
    "AttentionGamma",
    "FIDEvaluator",
    "SampleGrid",
    "StopOnNonFinite",
    "TrainingCheckpoint",
]
