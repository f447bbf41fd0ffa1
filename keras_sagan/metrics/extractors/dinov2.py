"""DINOv2, from keras-hub, as a feature extractor."""

import importlib

import keras
import numpy as np

from keras_sagan.checks import check_string
from keras_sagan.metrics.extraction import Extractor
from keras_sagan.metrics.extractors.resizing import resize_images, to_rgb
from keras_sagan.metrics.report import weights_sha256

_SIZE = 224
# The mean and the standard deviation of ImageNet's pixels in [0, 1].
_MEAN, _STD = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], "float32")
_RANDOM = {
    "patch_size": 14,
    "num_layers": 1,
    "hidden_dim": 32,
    "num_heads": 2,
    "intermediate_dim": 64,
}


@keras.saving.register_keras_serializable(package="keras_sagan")
class DINOv2Features(Extractor):
    """Feature extractor: the normalized class token of a DINOv2 vision transformer.

    DINOv2 was trained without labels. According to Stein et al., distances between DINOv2 features
    agree better with human judgments than distances between Inception features. Their code,
    [dgm-eval](https://github.com/layer6ai-labs/dgm-eval), uses the preset `"dinov2_large"`. As in
    dgm-eval, images are resized bicubically to 224 pixels, with anti-aliasing. The network comes
    from keras-hub, which isn't part of the package's extras. The preset is downloaded on the first
    call.

    Args:
        preset: A preset of `keras_hub.models.DINOV2Backbone`, or `None` for a small network with
            random weights (in tests).

    Call arguments:
        images: Float tensor in [-1, 1] of shape (batch, height, width, 1 or 3). Any image size is
            allowed.

    Returns:
        Float32 tensor of shape (batch, hidden_dim), which is (batch, 1024) for `"dinov2_large"`.

    Raises:
        ValueError: When called, if images have the wrong shape or dtype.
        ImportError: On the first call, if keras-hub isn't installed.

    Example:
    ```python
    kid = KernelInceptionDistance(DINOv2Features())
    ```

    Reference: [Oquab et al., 2023](https://arxiv.org/abs/2304.07193);
    [Stein et al., 2023](https://arxiv.org/abs/2306.04675).
    """

    arguments = ("preset",)
    resize = "antialiased bicubic"

    def __init__(self, preset: str | None = "dinov2_large"):
        self.preset = check_string("preset", preset, optional=True)

    @property
    def version(self) -> str:
        """The preset, the resize method and the SHA-256 of the weights."""
        digest = weights_sha256(self._load())
        return f"DINOv2 {self.preset} resize={self.resize} class token sha256:{digest}"

    def named_outputs(self, images: keras.KerasTensor) -> dict:
        """Returns a dictionary with `"features"` of shape (batch, hidden_dim)."""
        images = resize_images(to_rgb(images), _SIZE, "antialiased", "bicubic")
        images = keras.ops.clip(images, -1.0, 1.0)  # Bicubic resizing can exceed the range.
        images = (images * 0.5 + 0.5 - _MEAN) / _STD
        return {"features": self._load()({"images": images}, training=False)[:, 0]}

    def _build(self):
        try:
            backbone = importlib.import_module("keras_hub").models.DINOV2Backbone
        except ImportError as error:
            raise ImportError(
                f"DINOv2Features needs keras-hub, which could not be imported ({error}). "
                "Run:\npip install keras-hub"
            ) from error
        options = {"image_shape": (_SIZE, _SIZE, 3), "dtype": "float32"}
        if self.preset is None:
            return backbone(**_RANDOM, **options)
        return backbone.from_preset(self.preset, **options)
