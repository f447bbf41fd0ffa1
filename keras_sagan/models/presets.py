"""Named configurations, as plain data."""

import copy

from keras_sagan.checks import check_choice

TTUR = {"g_learning_rate": 1e-4, "d_learning_rate": 4e-4, "beta_1": 0.0, "beta_2": 0.999}
# All recipes of a preset share its `settings`, and each recipe lists only its changes. The first
# recipe is the default. `batch_size` is the recommended global batch size. A new preset's name is
# also added to `keras_sagan.options`.
# Sources: the SAGAN authors' code (official), the paper's text (paper), TF-GAN's example (tfgan),
# and the BigGAN schedule of the best open reproduction (biggan).
PRESETS: dict[str, dict] = {
    "sagan_imagenet_128": {
        "description": "ImageNet at 128 pixels, 1000 classes: the networks of the paper.",
        "batch_size": 256,
        "settings": {
            "image_size": 128,
            "base_filters": 64,
            "latent_dim": 128,
            "num_classes": 1000,
            "attention_resolutions": (32,),
            **TTUR,
        },
        "recipes": {
            "official": {},
            "paper": {
                "attention_resolutions": (64,),
                "attention": {"pool_size": 1, "value_reduction": 8},
                "beta_2": 0.9,
            },
            "tfgan": {
                "spectral_norm": {"equality_constrained": False},
                "batch_norm": {"epsilon": 1e-3},
            },
            "biggan": {
                "attention_resolutions": (64,),
                "spectral_norm": {"epsilon": 1e-8},
                "attention": {"epsilon": 1e-8},
                "ema_momentum": 0.9999,
                "ema_start": 2000,
            },
        },
    },
    "sagan_cifar10_32": {
        "description": "CIFAR-10 at 32 pixels, 10 classes: the SNGAN widths with attention at 16.",
        "batch_size": 64,
        "settings": {
            "image_size": 32,
            "base_filters": 64,
            "latent_dim": 128,
            "num_classes": 10,
            "attention_resolutions": (16,),
            **TTUR,
        },
        "recipes": {"official": {}},
    },
    "sagan_fashion_mnist_32": {
        "description": "Fashion-MNIST padded to 32 pixels, 10 classes: small enough for two cores.",
        "batch_size": 64,
        "settings": {
            "image_size": 32,
            "base_filters": 12,
            "latent_dim": 64,
            "num_classes": 10,
            "attention_resolutions": (16,),
            "channels": 1,
            "batch_norm": {"momentum": 0.99},
            "d_steps": 2,
            "ema_momentum": 0.99,
            "g_learning_rate": 4e-4,
            "d_learning_rate": 4e-4,
            "beta_1": 0.0,
            "beta_2": 0.99,
        },
        "recipes": {"official": {}},
    },
    "sagan_photos_64": {
        "description": "Any images at 64 pixels, with or without classes: half the paper's width.",
        "batch_size": 32,
        "settings": {
            "image_size": 64,
            "base_filters": 32,
            "latent_dim": 128,
            "num_classes": None,
            "attention_resolutions": (32,),
            "batch_norm": {"momentum": 0.99},
            "ema_momentum": 0.999,
            **TTUR,
        },
        "recipes": {"official": {}},
    },
    "sagan_emoji_64": {
        "description": "Color emoji at 64 pixels, 9 categories: small enough for two cores.",
        "batch_size": 16,
        "settings": {
            "image_size": 64,
            "base_filters": 16,
            "latent_dim": 64,
            "num_classes": 9,
            "attention_resolutions": (16,),
            "batch_norm": {"momentum": 0.99},
            # The penalties replace spectral normalization, as in R3GAN. Their weight was chosen
            # from 0.05, 0.2, 2 and 10 by the KID after 1,000 steps, with one seed (not recorded).
            "use_spectral_norm": False,
            # Dot products grow until all queries of an image attend to the same position.
            "attention": {"scores": "cosine"},
            "negative_slope": 0.2,
            "objective": {
                "loss": "relativistic",
                "r1": 0.2,
                "r2": 0.2,
                "every": 4,
                "augmentation": {
                    "policy": "color,translation",
                    "probability": "adaptive",
                    "fill": 1.0,  # The background of the images is white.
                },
            },
            "ema_momentum": 0.999,
            "g_learning_rate": 4e-4,
            "d_learning_rate": 4e-4,
            "beta_1": 0.0,
            "beta_2": 0.99,
        },
        "recipes": {"official": {}},
    },
    # For a few thousand images: the loss, the penalties and the leaky ReLUs of R3GAN (Huang et al.,
    # 2024). In benchmarks/small_data.py, the loss and the penalties were best with 1,000 images.
    # With 10,000 images, two of three discriminators with ordinary ReLUs died, and none with leaky
    # ones. With 1,000 images, no discriminator died, and the FID was better with ordinary
    # ReLUs. No other settings were compared. R1 and R2 grow with the image size, as in R3GAN.
    **{
        f"sagan_small_data_{size}": {
            "description": f"A few thousand images at {size} pixels{note}.",
            "batch_size": batch_size,
            "settings": {
                "image_size": size,
                "base_filters": 32,
                "latent_dim": 128,
                "num_classes": None,
                "attention_resolutions": (min(size // 2, 32),),
                "negative_slope": 0.2,
                "batch_norm": {"momentum": 0.99},
                "ema_half_life": 10_000.0,
                "objective": {"loss": "relativistic", "r1": weight, "r2": weight},
                "g_learning_rate": 2e-4,
                "d_learning_rate": 2e-4,
                "beta_1": 0.0,
                "beta_2": 0.99,
            },
            "recipes": {"official": {}},
        }
        for size, batch_size, weight, note in (
            (32, 64, 0.5, ", with or without classes"),
            (64, 32, 2.0, "; its settings were not measured"),
            (128, 32, 10.0, "; its settings were not measured"),
        )
    },
}


def preset_settings(name: str, recipe: str | None = None) -> dict:
    """Returns the settings of a preset with one of its recipes.

    The arguments and errors are the same as in `SAGAN.from_preset`.

    Returns:
        A new dictionary that contains arguments of `build_generator`, `build_discriminator` and
        `SAGAN`, and keys of `ttur`.

    Example:
    >>> preset_settings("sagan_imagenet_128", recipe="paper")["beta_2"]
    0.9
    """
    name = check_choice("name", name, PRESETS, f"one of {sorted(PRESETS)}")
    recipes = PRESETS[name]["recipes"]
    if recipe is None:
        recipe = next(iter(recipes))
    expected = f"one of {sorted(recipes)} for preset {name!r}"
    recipe = check_choice("recipe", recipe, recipes, expected)
    return copy.deepcopy({**PRESETS[name]["settings"], **recipes[recipe]})
