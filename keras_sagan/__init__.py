"""Self-Attention GAN for Keras 3 on TensorFlow, JAX and PyTorch: layers and a trainable model."""

import os
import sys

from keras_sagan import quiet
from keras_sagan.version import __version__

if "tensorflow" not in sys.modules:  # On some CPUs, oneDNN halves the time of a training step.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

if not quiet.IS_COMMAND:  # The `keras-sagan` command imports Keras after selecting a backend.
    from keras_sagan import (
        callbacks,
        data,
        layers,
        losses,
        metrics,
        models,
        penalties,
        visualization,
    )
    from keras_sagan.layers import (
        ConditionalBatchNorm,
        ConditionalGroupNorm,
        ConditionalLayerNorm,
        SelfAttention1D,
        SelfAttention2D,
        SelfAttention3D,
        SNConv1D,
        SNConv2D,
        SNConv2DTranspose,
        SNConv3D,
        SNDense,
        SNEmbedding,
        SpectralNorm,
    )
    from keras_sagan.metrics import FrechetInceptionDistance
    from keras_sagan.models import SAGAN, build_discriminator, build_generator

__all__ = [
    "ConditionalBatchNorm",
    "ConditionalGroupNorm",
    "ConditionalLayerNorm",
    "FrechetInceptionDistance",
    "SAGAN",
    "SNConv1D",
    "SNConv2D",
    "SNConv2DTranspose",
    "SNConv3D",
    "SNDense",
    "SNEmbedding",
    "SelfAttention1D",
    "SelfAttention2D",
    "SelfAttention3D",
    "SpectralNorm",
    "__version__",
    "build_discriminator",
    "build_generator",
    "callbacks",
    "data",
    "layers",
    "losses",
    "metrics",
    "models",
    "penalties",
    "visualization",
]
