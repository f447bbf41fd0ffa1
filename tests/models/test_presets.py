import json

import keras
import pytest
import tiny_networks as tiny

from keras_sagan import SAGAN, layers, losses
from keras_sagan.models import PRESETS, preset_settings
from keras_sagan.penalties import R1, R2

RECIPES = [(name, recipe) for name, preset in PRESETS.items() for recipe in preset["recipes"]]
NARROW = {"base_filters": 8, "latent_dim": 6, "num_classes": 5}


def test_names_and_recipes():
    assert {name: list(preset["recipes"]) for name, preset in PRESETS.items()} == {
        "sagan_imagenet_128": ["official", "paper", "tfgan", "biggan"],
        "sagan_cifar10_32": ["official"],
        "sagan_fashion_mnist_32": ["official"],
        "sagan_photos_64": ["official"],
        "sagan_emoji_64": ["official"],
        "sagan_small_data_32": ["official"],
        "sagan_small_data_64": ["official"],
        "sagan_small_data_128": ["official"],
    }


def test_presets_are_plain_data():
    assert json.loads(json.dumps(PRESETS)).keys() == PRESETS.keys()
    for preset in PRESETS.values():
        assert set(preset) == {"description", "batch_size", "settings", "recipes"}


def test_settings_of_the_recipes():
    settings = {
        r: preset_settings("sagan_imagenet_128", r) for r in ("official", "paper", "biggan")
    }
    assert preset_settings("sagan_imagenet_128") == settings["official"]
    assert settings["official"]["attention_resolutions"] == (32,)
    assert settings["paper"]["attention_resolutions"] == (64,)
    assert settings["paper"]["attention"] == {"pool_size": 1, "value_reduction": 8}
    assert [settings[r]["beta_2"] for r in settings] == [0.999, 0.9, 0.999]
    for each in settings.values():
        assert (each["g_learning_rate"], each["d_learning_rate"], each["beta_1"]) == (1e-4, 4e-4, 0)
        assert (each["base_filters"], each["latent_dim"], each["num_classes"]) == (64, 128, 1000)


def test_settings_are_a_copy():
    preset_settings("sagan_imagenet_128", "paper")["attention"]["pool_size"] = 7
    assert preset_settings("sagan_imagenet_128", "paper")["attention"]["pool_size"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("name, recipe", RECIPES)
def test_every_recipe_builds(name, recipe):
    settings, changes = preset_settings(name, recipe), {}
    if settings["image_size"] == 128:  # Which test_networks.py builds.
        changes = {"image_size": 32, "attention_resolutions": (16,)}
    settings |= changes
    model = SAGAN.from_preset(name, recipe, **NARROW, **changes)
    size, channels = settings["image_size"], settings.get("channels", 3)
    assert model.image_shape == (size, size, channels)
    (resolution,) = settings["attention_resolutions"]
    assert set(model.attention_gammas()) == {
        f"{network}/attention_{resolution}" for network in ("generator", "discriminator")
    }
    averages = {"ema_momentum", "ema_half_life"}
    assert (model.ema_generator is None) == (not averages & set(settings))
    attention = model.generator.get_layer(f"attention_{resolution}")
    assert attention.pool_size == (1 if recipe == "paper" else 2)
    assert attention.epsilon == (1e-8 if recipe == "biggan" else 1e-12)
    is_normalized = settings.get("use_spectral_norm", True)
    if is_normalized:
        assert attention.query_conv.equality_constrained  # TF-GAN's attention too.
    for network in (model.generator, model.discriminator):
        convolutions = [x for x in network.layers if "_conv" in x.name]
        if not is_normalized:
            assert not any(isinstance(x, layers.SNConv2D) for x in convolutions)
            continue
        assert {x.equality_constrained for x in convolutions} == {recipe != "tfgan"}
        assert {x.epsilon for x in convolutions} == {1e-8 if recipe == "biggan" else 1e-12}
    norm = model.generator.get_layer("last_norm")
    assert norm.epsilon == (1e-3 if recipe == "tfgan" else 1e-5)
    model.compile()
    for side, optimizer in (("g", model.g_optimizer), ("d", model.d_optimizer)):
        assert isinstance(optimizer, keras.optimizers.Adam)
        rate = settings[f"{side}_learning_rate"]
        assert float(optimizer.learning_rate) == pytest.approx(rate)
        assert (optimizer.beta_1, optimizer.beta_2) == (0.0, settings["beta_2"])
    if recipe == "biggan":
        assert (model.ema_momentum, model.ema_start) == (0.9999, 2000)


def test_overrides_reach_networks_model_and_optimizers():
    model = SAGAN.from_preset(
        "sagan_fashion_mnist_32",
        base_filters=4,
        attention={"key_reduction": 4},
        d_steps=2,
        ema_momentum=None,
        num_classes=None,
        seed=3,
        g_learning_rate=0.5,
    )
    assert (model.d_steps, model.ema_generator, model.num_classes, model.seed) == (2, None, None, 3)
    assert model.generator.get_layer("attention_16").key_reduction == 4
    assert model.generator.get_layer("last_conv").kernel.shape == (3, 3, 16, 1)
    model.compile()
    rates = [float(x.learning_rate) for x in (model.g_optimizer, model.d_optimizer)]
    assert rates == pytest.approx([0.5, 4e-4])


def test_the_objective_of_a_preset_is_the_default_of_compile():
    settings = {"image_size": 8, "attention_resolutions": (), **NARROW}
    model = SAGAN.from_preset("sagan_small_data_32", **settings)
    model.compile()
    assert model.loss_functions == losses.get("relativistic")
    assert [(type(x), x.weight) for x in model.penalty] == [(R1, 0.5), (R2, 0.5)]
    assert model.augmentation is None
    assert float(model.d_optimizer.learning_rate) == pytest.approx(2e-4)
    slopes = [getattr(x, "negative_slope", None) for x in model.discriminator.layers]
    assert {x for x in slopes if x is not None} == {0.2}
    objective = {"loss": "relativistic", "r1": 2.0, "every": 4}
    lazy = tiny.build_small_sagan(objective={**objective, "augmentation": "translation,cutout"})
    lazy.compile()
    assert lazy.augmentation.policy == "translation,cutout" and lazy.augmentation.probability == 1
    assert [(type(x), x.weight, x.every) for x in lazy.penalty] == [(R1, 2.0, 4)]
    adaptive = {"augmentation": {"policy": "color", "probability": "adaptive", "speed": 1000}}
    adaptive = tiny.build_small_sagan(objective=adaptive)
    adaptive.compile()
    layer = adaptive.augmentation
    assert (layer.policy, layer.probability, layer.speed) == ("color", "adaptive", 1000)
    model.compile(loss="hinge", augmentation=None, penalty=None)
    assert model.loss_functions == losses.get("hinge")
    assert model.augmentation is None and model.penalty is None


def test_a_dictionary_changes_only_its_keys():
    small = {"image_size": 8, "attention_resolutions": (), **NARROW}
    model = SAGAN.from_preset("sagan_small_data_32", objective={"augmentation": "cutout"}, **small)
    expected = {"loss": "relativistic", "r1": 0.5, "r2": 0.5, "every": 1, "augmentation": "cutout"}
    assert model.objective == expected
    model = SAGAN.from_preset(
        "sagan_small_data_32", ttur={"beta_1": 0.5, "beta_2": 0.9}, beta_2=0.8, **small
    )
    rates = {"g_learning_rate": 2e-4, "d_learning_rate": 2e-4}
    assert model.ttur == {**rates, "beta_1": 0.5, "beta_2": 0.8}


def test_the_objective_of_other_models_is_the_hinge_loss_alone():
    model = tiny.build_small_sagan()
    model.compile()
    assert model.loss_functions == losses.get("hinge")
    assert model.augmentation is None and model.penalty is None


@pytest.mark.parametrize(
    "objective",
    [
        *({"loss": "no"}, {"r1": -1.0}, {"every": 0}, {"r3": 1.0}, 3, {"augmentation": "blur"}),
        *({"augmentation": 3}, {"augmentation": {"policies": "color"}}),
        {"augmentation": {"probability": 2.0}},
    ],
)
def test_an_objective_that_is_none(objective):
    with pytest.raises(ValueError, match="`objective` must .*Received: "):
        tiny.build_small_sagan(objective=objective)


@pytest.mark.parametrize("size", [64, 128])
def test_presets_that_were_not_measured_say_so(size):
    assert "not measured" in PRESETS[f"sagan_small_data_{size}"]["description"]


def test_unknown_names():
    with pytest.raises(ValueError, match="`name` must be one of .*cifar10.*Received: name='sag'"):
        SAGAN.from_preset("sag")
    with pytest.raises(ValueError, match="`recipe` must be one of .*biggan.*Received: recipe='b'"):
        SAGAN.from_preset("sagan_imagenet_128", "b")


@pytest.mark.parametrize("name", ["filters", "kwargs", "batch_size"])
def test_unknown_overrides(name):
    with pytest.raises(
        ValueError, match=f"Unrecognized keyword arguments passed to SAGAN: .*{name}"
    ):
        SAGAN.from_preset("sagan_fashion_mnist_32", **{name: 1, "base_filters": 8})


class WithPenalty(SAGAN):
    def __init__(self, *args, weight=10.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.weight = weight


class Wrapped(WithPenalty):
    def __init__(self, *networks, **kwargs):
        super().__init__(*networks, **kwargs)


@pytest.mark.parametrize("kind", [WithPenalty, Wrapped])
def test_subclasses_that_hand_arguments_on(kind):
    settings = {"image_size": 8, "attention_resolutions": (), **NARROW}
    model = kind.from_preset("sagan_cifar10_32", weight=3.0, d_steps=2, seed=5, **settings)
    assert (model.weight, model.d_steps, model.seed, model.num_classes) == (3.0, 2, 5, 5)
    with pytest.raises(ValueError, match="Unrecognized keyword arguments passed to .*wieght"):
        kind.from_preset("sagan_cifar10_32", wieght=3.0, **settings)
