"""Callbacks for `fit` that draw pictures, log metrics, save checkpoints and detect failures."""

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
