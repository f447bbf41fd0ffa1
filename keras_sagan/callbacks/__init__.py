"""Callbacks for `fit`: pictures, metrics and Fréchet distances per epoch, checkpoints and guards.

They rely only on `generate()`, `attention_maps()`, `attention_gammas()`, `spectral_norms()`,
`latent_dim` and `num_classes`, so they work with any model that provides them. The checkpoint and
the guards also read its variables, through `model_state`.
"""

from keras_sagan.callbacks.attention_figure import AttentionFigure
from keras_sagan.callbacks.attention_monitor import AttentionMonitor
from keras_sagan.callbacks.checkpoint import TrainingCheckpoint
from keras_sagan.callbacks.collapse_monitor import CollapseMonitor
from keras_sagan.callbacks.fid_evaluator import FIDEvaluator
from keras_sagan.callbacks.run_history import RunHistory
from keras_sagan.callbacks.sample_grid import SampleGrid
from keras_sagan.callbacks.spectral_monitor import SpectralMonitor
from keras_sagan.callbacks.stop_on_non_finite import StopOnNonFinite

__all__ = [
    "AttentionFigure",
    "AttentionMonitor",
    "CollapseMonitor",
    "FIDEvaluator",
    "RunHistory",
    "SampleGrid",
    "SpectralMonitor",
    "StopOnNonFinite",
    "TrainingCheckpoint",
]
