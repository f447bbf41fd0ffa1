"""The layers of a self-attention GAN, which work in any Keras model."""

from keras_sagan.layers.conditional_batch_norm import ConditionalBatchNorm
from keras_sagan.layers.conditional_group_norm import ConditionalGroupNorm
from keras_sagan.layers.conditional_layer_norm import ConditionalLayerNorm
from keras_sagan.layers.differentiable_augmentation import DifferentiableAugmentation
from keras_sagan.layers.self_attention import (
    SelfAttention1D,
    SelfAttention2D,
    SelfAttention3D,
    record_attention_scores,
)
from keras_sagan.layers.sn_conv2d import SNConv2D
from keras_sagan.layers.sn_convolutions import SNConv1D, SNConv2DTranspose, SNConv3D
from keras_sagan.layers.sn_dense import SNDense
from keras_sagan.layers.sn_embedding import SNEmbedding
from keras_sagan.layers.spectral_norm import spectral_norms
from keras_sagan.layers.spectral_norm_wrapper import SpectralNorm

__all__ = [
    "ConditionalBatchNorm",
    "ConditionalGroupNorm",
    "ConditionalLayerNorm",
    "DifferentiableAugmentation",
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
    "record_attention_scores",
    "spectral_norms",
]
