"""The self-attention GAN as a Keras model; the training step is in `keras_sagan.training.step`."""

import functools
import inspect
import random
import signal
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import keras
import numpy as np
from keras import KerasTensor, ops

from keras_sagan import losses, penalties
from keras_sagan.checks import (
    MAX_COUNT,
    MAX_SIZE,
    check_boolean,
    check_choice,
    check_dict,
    check_float,
    check_integer,
    check_shape,
)
from keras_sagan.distribution import check_workers_agree, chief_decides, is_multi_worker
from keras_sagan.models import batches, pretrained, transfer
from keras_sagan.models.connection import check_unshared, connect, copy_network
from keras_sagan.models.discriminator import build_discriminator
from keras_sagan.models.generator import build_generator
from keras_sagan.models.inversion import InversionMixin
from keras_sagan.models.objective import check_augmentation, checked_objective, fill_in
from keras_sagan.models.presets import TTUR, preset_settings
from keras_sagan.models.sampling import SamplingMixin
from keras_sagan.ops.programs import outside_programs
from keras_sagan.ops.resampling import reference_forms
from keras_sagan.private_keras import layers_of, refresh_constants
from keras_sagan.training import backend, check_owner_of_devices, step
from keras_sagan.training.optimizers import GANOptimizer, follow_steps, follows_steps
from keras_sagan.training.slots import Slots

SETTINGS = (
    *("latent_dim", "num_classes", "d_steps", "ema_momentum", "ema_start", "seed", "ttur"),
    *("ema_half_life", "top_k", "freeze_discriminator", "objective"),
)
AVERAGES = ("ema_momentum", "ema_half_life")  # At most one of these arguments may be given.
METRICS = (
    *("g_loss", "d_loss", "real_logits", "fake_logits", "real_accuracy", "fake_accuracy"),
    *("real_in_margin", "fake_in_margin"),
)


@keras.saving.register_keras_serializable(package="keras_sagan")
class SAGAN(SamplingMixin, InversionMixin, keras.Model):
    """Self-attention GAN that can be trained with `fit`.

    Each step updates the discriminator `d_steps` times and then the generator once;
    `keras_sagan.training.step` contains the algorithm. Each network has its own optimizer (TTUR),
    and the default loss is the hinge loss. The discriminator processes real and fake images in one
    pass, or in two passes if it uses batch statistics. An update of one network changes neither the
    weights nor the state (batch statistics, `vector_u` of the spectral norms) of the other network.
    Latents and fake labels depend only on the seed and the step.

    Args:
        generator: Keras model that maps latents `(batch, latent_dim)`, or `[latents, labels]`, to
            images `(batch, height, width, channels)` in [-1, 1].
        discriminator: Keras model that maps images, or `[images, labels]`, to logits.
        latent_dim: Positive integer.
        num_classes: Positive integer, or `None` for networks without labels.
        d_steps: Positive integer, the number of discriminator updates per step. Each update draws
            new latents, but uses the same real images.
        ema_momentum: Float in [0, 1), the momentum of the averaged generator; `None` means no
            averaging. The half-life of the average is at most a twentieth of the steps taken, so
            early steps use a lower momentum.
        ema_start: Non-negative integer. Before this step, the averaged generator is a copy of the
            generator.
        seed: Non-negative integer, the seed of latents and fake labels, or `None` for a random
            seed. For reproducible initial weights, call `keras.utils.set_random_seed` before you
            build the networks.
        ttur: Dictionary of settings for the `"auto"` optimizers in `compile`: `g_learning_rate`,
            `d_learning_rate`, `beta_1` and `beta_2`. Defaults to 1e-4, 4e-4, 0 and 0.999.
        ema_half_life: Positive float, an alternative to `ema_momentum`: the half-life of the
            average, measured in images, which doesn't depend on the batch size. The momentum of a
            step is `0.5 ** (global batch / ema_half_life)`.
        top_k: The generator's loss uses only the fake images with the largest logits. A float in
            (0, 1] is a fraction of each replica's batch, rounded down, but at least one image. An
            integer is a number of images per global batch, divided equally among the replicas.
            `None` uses all images. A relativistic loss also uses the real images that are paired
            with these fake images. `evaluate` always uses all images.
        freeze_discriminator: Integer, the number of discriminator blocks to freeze (FreezeD),
            starting at the input. All layers up to the last layer named `block_{n}_…` get
            `trainable=False`, so their kernels and `vector_u` don't change.
        objective: Dictionary of settings for the `"auto"` arguments of `compile`. `loss` is the
            name of a loss, `r1` and `r2` are the weights of the penalties `R1` and `R2` (0 for no
            penalty), `every` is passed to both penalties, and `augmentation` is the policy or a
            dictionary of arguments of a `DifferentiableAugmentation`, or `None`. By default, only
            the hinge loss is used.

    Call arguments:
        inputs, training: The arguments of `generator`. The outputs are the generated images.

    State:
        The networks, `ema_generator`, and `steps`, the number of training steps taken.

    Raises:
        ValueError: If the networks don't match each other, an argument is out of range, or the
            distribution strategy belongs to a different backend or was set after the networks were
            built.

    Example:
    >>> model = SAGAN.from_preset("sagan_fashion_mnist_32", base_filters=4)
    >>> model.generate(2, labels=[0, 9], seed=1).shape
    (2, 32, 32, 1)

    Reference: [Zhang et al., 2019](https://arxiv.org/abs/1805.08318).
    """

    def __init__(
        self,
        generator: keras.Model,
        discriminator: keras.Model,
        latent_dim: int,
        num_classes: int | None = None,
        d_steps: int = 1,
        ema_momentum: float | None = None,
        ema_start: int = 0,
        seed: int | None = None,
        ttur: dict | None = None,
        ema_half_life: float | None = None,
        top_k: int | float | None = None,
        freeze_discriminator: int = 0,
        objective: dict | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        latent_dim = check_integer("latent_dim", latent_dim, maximum=MAX_SIZE)
        num_classes = check_integer("num_classes", num_classes, maximum=MAX_SIZE, optional=True)
        self.latent_dim, self.num_classes = latent_dim, num_classes
        self.d_steps = check_integer("d_steps", d_steps, maximum=MAX_COUNT)
        self.ema_momentum = check_float("ema_momentum", ema_momentum, 0, below=1, optional=True)
        self.ema_half_life = check_float("ema_half_life", ema_half_life, above=0, optional=True)
        if None not in (ema_momentum, ema_half_life):
            raise ValueError(
                "`ema_momentum` and `ema_half_life` must not be given both. "
                f"Received: ema_momentum={ema_momentum}, ema_half_life={ema_half_life}"
            )
        expected = "a non-negative integer below 2**31"
        self.ema_start = check_integer("ema_start", ema_start, 0, MAX_SIZE, expected=expected)
        seed = check_integer("seed", seed, 0, MAX_SIZE, optional=True)
        self.seed = random.randint(0, MAX_SIZE) if seed is None else seed
        self.ttur, self.objective = _checked_ttur(ttur), checked_objective(objective)
        self.top_k = _checked_top_k(top_k)
        self.freeze_discriminator = transfer.freeze_blocks(discriminator, freeze_discriminator)
        self.generator, self.discriminator = generator, discriminator
        self.image_shape = connect(generator, discriminator, latent_dim, num_classes)
        check_owner_of_devices()
        self._strategy = backend.current_strategy()
        self._num_devices = backend.count_devices(self._strategy)
        self._is_one_of_many = is_multi_worker(self._strategy)
        backend.check_built_under(self._strategy, generator=generator, discriminator=discriminator)
        self._step_lock = threading.RLock()  # Other threads must hold this lock to read variables.
        self._skipped_steps = self._skipped_batches = 0
        self._average = None
        if ema_momentum is not None or ema_half_life is not None:
            needed_by = "`ema_momentum` or `ema_half_life`"
            self._average = copy_network("generator", generator, needed_by)
            connect(self._average, discriminator, latent_dim, num_classes)
            self._average.set_weights(generator.get_weights())
            refresh_constants(self._average)
            self._average.trainable = False
        self.steps = self.add_weight(
            name="steps",
            shape=(),
            dtype="int32",
            initializer="zeros",
            trainable=False,
            aggregation="only_first_replica",
        )
        self._trackers = {name: keras.metrics.Mean(name=name) for name in METRICS}
        names = {"fit": "x", "evaluate": "validation_data` or the `x` of `evaluate"}
        self._checks = {
            method: batches.BatchCheck(name, num_classes, self.image_shape)
            for method, name in names.items()
        }
        if isinstance(self.top_k, int):
            self._checks["fit"].top_k = self.top_k
        self._generate_functions = {}
        self.built = True

    @classmethod
    def from_preset(
        cls,
        name: str,
        recipe: str | None = None,
        load_weights: bool | str | Path = False,
        **overrides,
    ) -> "SAGAN":
        """Builds the networks and the model of a preset, with new or trained weights.

        The package includes trained weights for `"sagan_fashion_mnist_32"`. These weights contain
        both networks, the averaged generator and the step count, so that you can generate images,
        select them by their logits, or continue training with new optimizers.

        Args:
            name: String, a key of `keras_sagan.models.PRESETS`, or `"hf://user/name"` for a model
                that `save` uploaded to the Hugging Face Hub, with its own settings and weights.
            recipe: String, a recipe of the preset, or `None` for the first recipe.
            load_weights: Boolean, whether to load the preset's trained weights, or the path or URL
                of a `.keras` or `.weights.h5` file of a model with the same networks. Only the
                weights are read, and no code in the file is executed. If the file name ends with
                the first digits of its SHA-256 (8 or more), such as `name-0123abcd.weights.h5`,
                these digits are checked.
            **overrides: Settings to change: arguments of `build_generator`, `build_discriminator`
                or `SAGAN`, or keys of `ttur`. A dictionary changes only the keys that it contains.

        Returns:
            A `SAGAN` that isn't compiled; `compile()` uses the recipe's optimizers. A model from
            the Hugging Face Hub is compiled if it was compiled when it was saved.

        Raises:
            ValueError: If the preset, recipe or a setting is unknown, the preset has no trained
                weights, an override doesn't match the trained weights, or a weights file is
                damaged or incomplete, or doesn't match the networks.
            OSError: If a model can't be loaded from the Hugging Face Hub.
            ImportError: If the model is on the Hugging Face Hub and `huggingface_hub` isn't
                installed.

        Example:
        >>> model = SAGAN.from_preset("sagan_fashion_mnist_32", load_weights=True)
        >>> model.generate(2, labels=[1, 8], seed=0).shape  # A trouser and a bag.
        (2, 32, 32, 1)
        """
        if pretrained.is_on_hub(name):
            return pretrained.load_from_hub(name, cls, recipe, load_weights, overrides)
        settings = _merged(preset_settings(name, recipe), overrides)
        # Check before creating variables, which deadlocks if workers have different settings.
        check_workers_agree(
            backend.current_strategy(),
            preset=name,
            recipe=recipe,
            overrides=overrides,
            load_weights=load_weights is not False,
            dtype_policy=keras.config.dtype_policy().name,
        )

        def pick(names):
            return {name: value for name, value in settings.items() if name in names}

        of_generator, of_discriminator = (
            inspect.signature(build).parameters for build in (build_generator, build_discriminator)
        )
        # The rest are arguments of the constructor, which raises an error for an unknown name.
        of_networks = {*of_generator, *of_discriminator} - {"latent_dim", "num_classes"}
        for_model = pick(settings.keys() - of_networks - TTUR.keys())
        given = check_dict("ttur", for_model.pop("ttur", None))
        given = {name: value for name, value in given.items() if name not in overrides}
        path = pretrained.find_weights(name, settings, load_weights)
        model = cls(
            build_generator(**pick(of_generator)),
            build_discriminator(**pick(of_discriminator)),
            ttur={**pick(TTUR), **given},
            **for_model,
        )
        if path is not None:
            pretrained.load_weights(model, path)
        return model

    @classmethod
    def from_model(
        cls,
        model: "str | Path | SAGAN",
        num_classes: int | None | str = "same",
        **overrides,
    ) -> "SAGAN":
        """Creates a new model from a trained model, for the same or different classes.

        Networks and settings are copied from `model`, except where they depend on the classes.
        Weights of the generator (not the averaged one) and the discriminator are copied if their
        shapes match; a warning and `new_weights` list all other weights. With different classes,
        each row of an embedding or conditional norm starts as the mean of the old rows; other new
        weights are initialized as usual. The step count starts at 0. Optimizers aren't copied.

        Args:
            model: A `SAGAN`, or the path of a `.keras` file that contains one.
            num_classes: Positive integer, `None` for a model without labels, or `"same"`.
            **overrides: Arguments of `SAGAN` to change, such as `freeze_discriminator`. It freezes
                the first blocks of the discriminator, and makes its other layers trainable.

        Returns:
            A `SAGAN` that isn't compiled. Its attribute `new_weights` is a list of paths.

        Raises:
            ValueError: If `model` isn't a `SAGAN`, its networks share layers or can't be copied, an
                override changes the size or width of the networks, or the number of classes can't
                be changed.

        Example:
        >>> import warnings
        >>> warnings.simplefilter("ignore")
        >>> model = SAGAN.from_preset("sagan_fashion_mnist_32", base_filters=4)
        >>> new = SAGAN.from_model(model, num_classes=3, freeze_discriminator=1)
        >>> "discriminator/label_embedding/embeddings" in new.new_weights
        True

        Reference: [Mo et al., 2020](https://arxiv.org/abs/2002.10964) (FreezeD).
        """
        if num_classes != "same":
            expected = 'a positive integer, None or "same"'
            num_classes = check_integer("num_classes", num_classes, 1, MAX_SIZE, True, expected)
        source = transfer.source_of(model)
        check_unshared(source.generator, source.discriminator)
        before = source.num_classes
        num_classes = before if num_classes == "same" else num_classes
        builders = build_generator, build_discriminator
        fixed = {name for build in builders for name in inspect.signature(build).parameters}
        fixed = fixed - {*SETTINGS, "name"} | {"generator", "discriminator"}
        for name in fixed & overrides.keys():
            raise ValueError(
                "`from_model` copies the networks, so it can't change their settings. "
                f"Received: {name}={overrides[name]!r}"
            )
        settings = {name: getattr(source, name) for name in SETTINGS}
        settings = {**_merged(settings, overrides), "num_classes": num_classes}
        networks = {}
        for name in ("generator", "discriminator"):
            own = getattr(source, name)
            networks[name] = transfer.with_classes(name, own, before, num_classes)
        if "freeze_discriminator" in overrides:
            for layer in layers_of(networks["discriminator"]):
                layer.trainable = True
        new = cls(**networks, **settings)
        new.new_weights = []
        for name, network in networks.items():
            paths = transfer.take_weights(network, getattr(source, name))
            new.new_weights += [f"{name}/{path}" for path in paths]
        transfer.warn_of_new_weights(new.new_weights, num_classes)
        return new

    def call(self, inputs: KerasTensor, training: bool = False) -> KerasTensor:
        return self.generator(inputs, training=training)

    # Compile

    def compile(
        self,
        g_optimizer: str | dict | keras.Optimizer = "auto",
        d_optimizer: str | dict | keras.Optimizer | None = None,
        loss: str | tuple[Callable, Callable] | losses.AdversarialLoss = "auto",
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: bool | str = "auto",
        auto_scale_loss: bool = True,
        augmentation: str | Callable | None = "auto",
        penalty: str | Callable | Sequence[Callable] | None = "auto",
    ) -> None:
        """Configures the model for training. The defaults come from its `ttur` and `objective`.

        Args:
            g_optimizer, d_optimizer: Keras optimizers, their names or configurations, or `"auto"`
                for `keras.optimizers.Adam` with the model's `ttur`. Both are `"auto"` by default;
                if you pass a `g_optimizer`, pass a `d_optimizer` too. Each `LearningRateSchedule`
                follows `model.steps`. `model.optimizer` combines both optimizers, so a callback
                that sets its `learning_rate` scales both learning rates by the same factor.
            loss, augmentation, penalty: `"auto"` uses the setting in the model's `objective`.
            loss: `"hinge"`, `"non_saturating"`, `"wasserstein"`, `"least_squares"`,
                `"relativistic"`, `"relativistic_average"`, or a pair of functions
                `(generator_loss, discriminator_loss)`; see `keras_sagan.losses`.
            run_eagerly, steps_per_execution: As in `keras.Model.compile`; PyTorch supports only one
                step per execution.
            jit_compile: `True` compiles the full step with XLA. With `False`, only JAX uses XLA,
                to compile each operation separately. `"auto"` lets Keras choose: on JAX, and on
                TensorFlow with one GPU, XLA compiles the full step; on TensorFlow with CPUs, XLA
                compiles only parts of wide 3 x 3 convolutions. PyTorch compiles nothing.
            auto_scale_loss: Boolean, whether to use a `LossScaleOptimizer` for each network that
                computes in float16.
            augmentation: Function `(images, uniform) -> images` that augments real and fake images
                for the discriminator, or `None`. Images are float32
                `(batch, height, width, channels)` in [-1, 1]. `uniform(columns)` returns random
                float32 numbers in [0, 1) of shape `(batch, columns)`, which depend on the seed and
                the step. Use only these random numbers, because Keras's seed generators don't
                advance here. The generator's gradient flows through the augmentation.
            penalty: Function `(judge, real, fake) -> scalar` that is added to the discriminator's
                loss, such as `R1(10.0)` of `keras_sagan.penalties`; a list of such functions; or
                `None`. `judge(images, labels)` returns logits, and
                `keras_sagan.training.input_gradient` computes their gradient. `real` and `fake` are
                pairs of images and labels. A function that takes four arguments also receives
                `uniform`. `judge.logits` contains the real and fake logits that the loss received,
                or `None` for a penalty with `every` above 1 and without `uses_logits = True`.

        Raises:
            ValueError: If `compile` is called outside the scope in which the model was built, only
                `g_optimizer` is given, both networks share an optimizer, an optimizer has
                `use_ema=True`, the loss is unknown, the augmentation is adaptive but the loss has
                no `threshold`, the generator's variables were changed, as by LoRA, while the model
                has an average of them, or PyTorch or `TPUStrategy` doesn't support a setting
                (`jit_compile=True`, several steps per execution, or float16).
        """
        backend.check_scope(self._strategy, "compile", or_outside=False)
        loss, augmentation, penalty = fill_in(self.objective, loss, augmentation, penalty)
        arguments = {
            "loss": loss,
            "run_eagerly": check_boolean("run_eagerly", run_eagerly),
            "steps_per_execution": check_integer("steps_per_execution", steps_per_execution),
            "jit_compile": check_choice("jit_compile", jit_compile, (True, False, "auto")),
            "auto_scale_loss": check_boolean("auto_scale_loss", auto_scale_loss),
            "augmentation": check_augmentation(augmentation),
            "penalty": penalty,
        }
        for name, supported in backend.ONLY.items():
            expected = f"{' or '.join(map(repr, supported))} on {keras.backend.backend()}"
            check_choice(name, arguments[name], supported, expected)
        if d_optimizer is None:
            if not (isinstance(g_optimizer, str) and g_optimizer == "auto"):
                raise ValueError(
                    "`d_optimizer` must be given too, as each network has its own optimizer; "
                    '`d_optimizer="auto"` uses the model\'s `ttur`. '
                    f"Received: g_optimizer={g_optimizer!r} alone"
                )
            d_optimizer = "auto"
        for name in ("compute_loss", "compute_metrics"):
            if getattr(type(self), name) is not getattr(keras.Model, name):
                warnings.warn(
                    f"`{name}` of {type(self).__name__} is never called by SAGAN, as a GAN has two "
                    "losses: give `compile` a pair of functions as `loss`, or extend `train_step`.",
                    stacklevel=2,
                )
        inner = [getattr(x, "inner_optimizer", x) for x in (g_optimizer, d_optimizer)]
        if inner[0] is inner[1] and not isinstance(g_optimizer, (str, dict)):
            raise ValueError(
                "`g_optimizer` and `d_optimizer` must be two optimizers: one can't keep the "
                f"moments of both networks. Received: {g_optimizer} for both"
            )
        networks = (self._average or self.generator, self.generator)
        averaged, own = ([x.shape for x in network.variables] for network in networks)
        if averaged != own:
            raise ValueError(
                "`generator` must keep its variables while the model averages them: change its "
                "layers, as with LoRA or quantization, before you create the SAGAN. Received: a "
                f"generator of {len(own)} variables and an average of {len(averaged)}"
            )
        is_float16 = any(map(_computes_in_float16, (self.generator, self.discriminator)))
        backend.check_compile(self._strategy, arguments["jit_compile"], is_float16)
        self.loss_functions = losses.get(loss)
        self.uses_real_logits = self.loss_functions.uses_real_logits
        self.augmentation, self.penalty = augmentation, penalty
        self.slots = Slots(self, augmentation, penalties.get(penalty), self.loss_functions)
        self._judges_apart = None
        self.g_optimizer = self._optimizer("g", g_optimizer, self.generator, auto_scale_loss)
        self.d_optimizer = self._optimizer("d", d_optimizer, self.discriminator, auto_scale_loss)
        self._follow_steps()
        super().compile(
            optimizer=GANOptimizer(self.g_optimizer, self.d_optimizer),
            run_eagerly=arguments["run_eagerly"],
            steps_per_execution=arguments["steps_per_execution"],
            jit_compile=arguments["jit_compile"],
            auto_scale_loss=False,
        )
        self._compile_arguments = arguments

    def _optimizer(self, side, optimizer, network, auto_scale_loss):
        if isinstance(optimizer, str) and optimizer == "auto":
            betas = {name: self.ttur[name] for name in ("beta_1", "beta_2")}
            optimizer = keras.optimizers.Adam(self.ttur[f"{side}_learning_rate"], **betas)
        optimizer = keras.optimizers.get(optimizer)
        if optimizer is None:
            raise ValueError(
                f"`{side}_optimizer` must be a Keras optimizer, its name or configuration, or "
                f'"auto". Received: {side}_optimizer=None'
            )
        if any(x.use_ema for x in (optimizer, getattr(optimizer, "inner_optimizer", optimizer))):
            raise ValueError(
                f"`{side}_optimizer` must not have use_ema=True: Keras would write the averages of "
                "one network into the other. Give SAGAN an `ema_momentum`. "
                f"Received: {side}_optimizer={optimizer.name} with use_ema=True"
            )
        backend.check_built_under(self._strategy, **{f"{side}_optimizer": optimizer})
        is_scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        if auto_scale_loss and not is_scaled and _computes_in_float16(network):
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        optimizer.build(network.trainable_variables)
        return optimizer

    def _follow_steps(self, only_new=False):
        """Makes learning rate schedules follow `steps`, including schedules set after `compile`."""
        for side, updates in (("g", 1), ("d", self.d_steps)):
            optimizer = getattr(self, f"{side}_optimizer")
            is_constant = isinstance(getattr(optimizer, "learning_rate", None), keras.Variable)
            if not is_constant and not (only_new and follows_steps(optimizer)):
                follow_steps(f"{side}_optimizer", optimizer, self.steps, updates)

    # Steps

    def train_step(self, data: tuple) -> dict:
        images, labels = self._unpack(data)
        found, g_loss = step.train_step(self, images, labels)
        for d_loss, real_logits, fake_logits in found:
            self._record({"d_loss": d_loss}, real_logits, fake_logits)
        self._trackers["g_loss"].update_state(g_loss, sample_weight=ops.shape(images)[0])
        return self.get_metrics_result()

    def test_step(self, data: tuple) -> dict:
        images, labels = self._unpack(data)
        # The metric's count includes only the images of this replica.
        seen = ops.cast(self._trackers["d_loss"].count, "int32")
        seen *= backend.count_replicas()
        (d_loss, *logits), g_loss = step.test_step(self, images, labels, seen)
        self._record({"d_loss": d_loss, "g_loss": g_loss}, *logits)
        return self.get_metrics_result()

    def _unpack(self, data):
        images, labels = batches.unpack(data, self.num_classes)
        check_shape(images.shape, self.image_shape)
        labels = None if labels is None else ops.convert_to_tensor(labels)
        return batches.to_model_space(images), labels

    def _record(self, values, real_logits, fake_logits):
        real_mean, fake_mean = ops.mean(real_logits), ops.mean(fake_logits)
        threshold = self.loss_functions.threshold
        least, most = (fake_mean, real_mean) if threshold is None else (threshold, threshold)
        values = {
            **values,
            "real_logits": real_mean,
            "fake_logits": fake_mean,
            "real_accuracy": ops.mean(ops.cast(real_logits > least, "float32")),
            "fake_accuracy": ops.mean(ops.cast(fake_logits <= most, "float32")),
            # Under the hinge loss, the discriminator learns only from images inside the margin.
            "real_in_margin": ops.mean(ops.cast(real_logits < 1.0, "float32")),
            "fake_in_margin": ops.mean(ops.cast(fake_logits > -1.0, "float32")),
        }
        for name, value in values.items():
            self._trackers[name].update_state(value, sample_weight=ops.shape(real_logits)[0])

    @property
    def metrics(self) -> list[keras.Metric]:
        own = list(self._trackers.values())
        known = {id(metric) for metric in own}
        return own + [x for x in self._metrics if id(x) not in known]  # A subclass may add metrics.

    @reference_forms()  # Compiling fast convolutions isn't worthwhile for a few images.
    def _see_first_batch(self, batch):
        """Warns once per `compile` if the last activation of a network is wrong."""
        images, labels = batches.unpack(batch, self.num_classes)
        if self._judges_apart is None and len(images):
            images = ops.convert_to_numpy(batches.to_model_space(images[: batches.FEW]))
            labels = None if labels is None else ops.convert_to_numpy(labels[: batches.FEW])
            batches.warn_of_outputs(self, images, labels)
            self._find_out_whether_apart(images.shape[1:])

    @property
    def judges_apart(self) -> bool:
        """Boolean, whether the discriminator processes real and fake images separately."""
        if self._judges_apart is None:
            with outside_programs(), reference_forms():
                self._find_out_whether_apart(self.image_shape)
        return bool(self._judges_apart)

    def _find_out_whether_apart(self, image_shape):
        has_labels = self.num_classes is not None
        apart = batches.has_batch_statistics(self.discriminator, image_shape, has_labels)
        if self._is_one_of_many:
            apart = chief_decides(self._strategy, apart)
        self._judges_apart = apart

    # Fit and evaluate

    def fit(self, x=None, y=None, *args, **kwargs) -> keras.callbacks.History:
        """Trains the model, with the arguments and callbacks of `keras.Model.fit`.

        A callback with a method `start(model, data, steps_per_epoch)`, such as
        `TrainingCheckpoint`, can restore the model. Then `fit` continues from the restored
        step, with the data that follow this step.

        Args:
            x: An array of images, or a dataset of images or `(images, labels)` that
                `keras.Model.fit` accepts, such as a `tf.data.Dataset`, a `keras.utils.PyDataset` or
                a `torch.utils.data.DataLoader`. Images are uint8 in [0, 255] or float in [-1, 1] of
                shape `(batch, height, width, channels)`.
            y: Array of integer labels, if `x` is an array of images.

        Returns:
            A `keras.callbacks.History`. The logs of each epoch also contain both learning rates as
            `g_learning_rate` and `d_learning_rate`, and the strength of an adaptive augmentation as
            `augmentation_probability`.

        Raises:
            ValueError: If the data don't match the model, or if `class_weight` or `sample_weight`
                is given. These weights make no sense for a GAN. Pixel values are checked in the
                first batch.
        """
        batches.check_given(x, y)
        steps_before = int(self.steps.numpy())
        is_ordered = hasattr(x, "shape") or isinstance(x, keras.utils.PyDataset)
        if hasattr(x, "at_step") or not is_ordered:
            # Keras's default would shuffle a `PyDataset`, and cause a warning for other datasets.
            kwargs.setdefault("shuffle", False)
        backend.check_scope(self._strategy, "fit")
        given = inspect.signature(super().fit).bind_partial(x, y, *args, **kwargs).arguments
        batch_size, validation_data = given.get("batch_size"), given.get("validation_data")
        is_read_whole = not (given.get("steps_per_epoch") or given.get("validation_split"))
        self._check_shares("x", x, batch_size, is_read_whole)
        if isinstance(validation_data, (tuple, list)):
            size = given.get("validation_batch_size") or batch_size
            is_read_whole = given.get("validation_steps") is None
            self._check_shares("validation_data", validation_data[0], size, is_read_whole)
        callbacks = given.get("callbacks")
        self._skipped_steps = 0
        for callback in keras.tree.flatten(getattr(callbacks, "callbacks", callbacks)):
            if callable(getattr(callback, "start", None)):  # A user's `start` may be a number.
                start = callback.start(self, x, given.get("steps_per_epoch"))
                x, epoch, self._skipped_steps, self._skipped_batches = start
                given.update({} if epoch is None else {"initial_epoch": epoch})
        for check in self._checks.values():
            check.begin()
        callbacks = _with_epoch_end(self, callbacks)
        given.update(x=batches.without_none(x), callbacks=callbacks)
        if "validation_data" in given:
            given["validation_data"] = batches.without_none(given["validation_data"])
        history = super().fit(**given)
        if history.epoch and int(self.steps.numpy()) == steps_before:
            self._checks["fit"].at_end()  # On PyTorch, Keras accepts empty data.
        return history

    def evaluate(self, *args, **kwargs) -> list[float] | dict[str, float]:
        """Returns the losses on held-out data, which depend only on the data and the weights.

        Arguments and results are as in `keras.Model.evaluate`; data and errors are as in `fit`.
        """
        if not self.compiled:  # On PyTorch, Keras doesn't check this.
            raise ValueError("You must call `compile()` before `evaluate`.")
        backend.check_scope(self._strategy, "evaluate")
        bound = inspect.signature(super().evaluate).bind(*args, **kwargs)
        given = bound.arguments
        batches.check_given(given.get("x"), given.get("y"))
        is_read_whole = given.get("steps") is None
        self._check_shares("x", given["x"], given.get("batch_size"), is_read_whole)
        if not kwargs.get("_use_cached_eval_dataset"):  # Keras's `fit` passes this argument.
            self._checks["evaluate"].begin()
        given["x"] = batches.without_none(given["x"])
        results = super().evaluate(*bound.args, **bound.kwargs)
        self._checks["evaluate"].at_end()
        return results

    def train_on_batch(self, x, y=None, *args, **kwargs) -> list[float] | dict[str, float]:
        """Trains on one batch, like `keras.Model.train_on_batch`. See `fit` for the data."""
        self._begin_batch("train_on_batch", "fit", x, y)
        return super().train_on_batch(x, y, *args, **kwargs)

    def test_on_batch(self, x, y=None, *args, **kwargs) -> list[float] | dict[str, float]:
        """Returns the losses on one batch, like `keras.Model.test_on_batch`."""
        self._begin_batch("test_on_batch", "evaluate", x, y)
        return super().test_on_batch(x, y, *args, **kwargs)

    def _begin_batch(self, method, check, x, y):
        batches.check_given(x, y)
        backend.check_scope(self._strategy, method)
        self._checks[check].begin(is_new_data=False)

    def _check_shares(self, argument, x, batch_size, is_read_whole):
        """Raises an error before training if the replicas can't divide the batches of an array."""
        if not hasattr(x, "shape"):
            return
        if self._is_one_of_many:
            backend.check_share(argument)
        elif self._num_devices > 1 and is_read_whole:  # Otherwise, `BatchCheck` checks each batch.
            batches.check_shares(argument, x.shape[0], batch_size, self._num_devices)

    def make_train_function(self, force=False):
        self._follow_steps(only_new=True)
        if self.train_function is not None and not force:
            return
        if self._is_one_of_many:
            names = ("seed", "d_steps", *AVERAGES, "ema_start", "top_k", "freeze_discriminator")
            check_workers_agree(
                self._strategy,
                **{name: getattr(self, name) for name in names},
                **self.get_compile_config(),
                parameters=[self.generator.count_params(), self.discriminator.count_params()],
            )
        train_step, check = self.train_step, self._checks["fit"]
        if self._compile_arguments["jit_compile"] is False:
            train_step = reference_forms()(train_step)
        function = backend.make_step_function(self, train_step, check, is_training=True)

        def resuming(*arguments):
            """Skips the steps that were taken before the epoch was interrupted."""
            if not self._skipped_steps:
                return function(*arguments)
            *state, iterator = arguments  # Only JAX passes a state.
            for _ in range(min(self._skipped_batches, self.steps_per_execution)):
                next(iterator)
                self._skipped_batches -= 1
            self._skipped_steps -= self.steps_per_execution
            logs = self.get_metrics_result()
            return (logs, *state) if state else logs

        self.train_function = interrupted_at_end(resuming)

    def make_test_function(self, force=False):
        if self.test_function is None or force:
            check = self._checks["evaluate"]
            function = backend.make_step_function(self, self.test_step, check, is_training=False)
            self.test_function = interrupted_at_end(function)

    def _symbolic_build(self, iterator=None, data_batch=None):
        """Does nothing: the networks are already built, and Keras's method would use up a batch."""

    _maybe_symbolic_build = _symbolic_build

    def _purge_model_variables(self, **kinds):
        """Does nothing; on JAX, Keras's method would delete the variables' values in each epoch."""

    # Saving

    def save(self, filepath: str | Path, *args, **kwargs) -> None:
        """Saves the model, like `keras.Model.save`, to a file or to the Hugging Face Hub.

        Args:
            filepath: Path of a `.keras` file, or `"hf://user/name"` to upload the model to the
                Hugging Face Hub. Uploading requires the package `huggingface_hub`. `from_preset`
                loads an uploaded model.

        Raises:
            ValueError: If the networks share layers. Use `save_weights` instead.
        """
        pretrained.is_on_hub(filepath)
        check_unshared(self.generator, self.discriminator)  # Keras would empty the file first.
        super().save(filepath, *args, **kwargs)

    def export(self, filepath: str | Path, *args, **kwargs) -> NoReturn:
        """Always raises a ValueError. Use `keras_sagan.models.export_generator` instead."""
        raise ValueError(
            "`export` must not be called on a SAGAN: "
            "`keras_sagan.models.export_generator(model, directory)` writes its generator as "
            f"SavedModel, ONNX and LiteRT. Received: filepath={filepath!r}"
        )

    def get_config(self) -> dict:
        check_unshared(self.generator, self.discriminator)
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "dtype": serialize(self.dtype_policy),
            "generator": serialize(self.generator),
            "discriminator": serialize(self.discriminator),
            **{name: getattr(self, name) for name in SETTINGS},
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        for name in ("generator", "discriminator", "ttur"):
            config[name] = keras.saving.deserialize_keras_object(config[name], custom_objects)
        return cls(**config)

    def save_own_variables(self, store):
        super().save_own_variables(store)
        # Keras doesn't save the seeds of layers such as Dropout.
        for i, state in enumerate(self._seed_states()):
            store[f"seed_{i}"] = state

    def load_own_variables(self, store):
        seeds = {key for key in store.keys() if key.startswith("seed_")}
        super().load_own_variables({key: store[key] for key in store.keys() if key not in seeds})
        for i, state in enumerate(self._seed_states()):
            if f"seed_{i}" in seeds:
                state.assign(store[f"seed_{i}"])
        if refresh_constants(self):
            self.retrace()

    def retrace(self) -> None:
        """Makes all compiled functions be traced again, because they contain constants."""
        self._generate_functions.clear()
        for kind in ("train", "test"):
            if getattr(self, f"{kind}_function") is not None:
                getattr(self, f"make_{kind}_function")(force=True)

    def _seed_states(self):
        return [seed.state for x in layers_of(self) for seed in x._seed_generators]

    def get_compile_config(self) -> dict | None:
        if not self.compiled:
            return None
        serialize = keras.saving.serialize_keras_object
        return {
            "g_optimizer": _of_any_backend(serialize(self.g_optimizer)),
            "d_optimizer": _of_any_backend(serialize(self.d_optimizer)),
            **{name: serialize(value) for name, value in self._compile_arguments.items()},
        }

    def compile_from_config(self, config):
        # `compile` builds both optimizers, so that their variables can be restored.
        config = {k: keras.saving.deserialize_keras_object(v) for k, v in config.items()}
        for name, supported in backend.ONLY.items():
            if config.get(name, supported[-1]) not in supported:
                warnings.warn(
                    f"The model was saved with {name}={config[name]}, which "
                    f"{keras.backend.backend()} can't do; it continues with {supported[-1]!r}.",
                    stacklevel=2,
                )
                config[name] = supported[-1]
        self.compile(**config)


def interrupted_at_end(function: Callable) -> Callable:
    """Wraps a function to delay Ctrl-C until it returns; a second Ctrl-C interrupts immediately.

    During a step, Ctrl-C could leave variables partly updated, or crash the backend. A signal
    handler that the user has set isn't replaced.
    """

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if not is_default or threading.current_thread() is not threading.main_thread():
            return function(*args, **kwargs)
        pressed = []

        def wait(number, frame):
            pressed.append(number)
            if len(pressed) > 1:
                raise KeyboardInterrupt

        signal.signal(signal.SIGINT, wait)
        try:
            return function(*args, **kwargs)
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if pressed:
                raise KeyboardInterrupt

    return wrapped


def _checked_ttur(ttur):
    ttur = check_dict("ttur", ttur, keys=TTUR)
    try:
        for name, value in ttur.items():
            if name.startswith("beta"):
                ttur[name] = check_float(name, value, minimum=0, below=1)
            elif not callable(value):  # A schedule is callable.
                ttur[name] = check_float(name, value, minimum=0)
    except ValueError as error:
        raise ValueError(f"`ttur` must hold settings of Adam: {error}") from error
    return {**TTUR, **ttur}


def _merged(settings, overrides):
    """Merges overrides into settings, and dictionaries in overrides into those in settings.

    An `ema_half_life` removes `ema_momentum`, and vice versa.
    """
    others = {AVERAGES[1 - i] for i, x in enumerate(AVERAGES) if overrides.get(x) is not None}
    merged = {name: x for name, x in settings.items() if name not in others}
    for name, value in overrides.items():
        before = merged.get(name)
        are_dicts = isinstance(before, dict) and isinstance(value, dict)
        merged[name] = {**before, **value} if are_dicts else value
    return merged


def _checked_top_k(top_k):
    if isinstance(top_k, (float, np.floating)):
        return check_float("top_k", top_k, above=0, maximum=1)
    expected = "a positive integer, a float in (0, 1] or None"
    return check_integer("top_k", top_k, maximum=MAX_SIZE, optional=True, expected=expected)


def _of_any_backend(config):
    """Replaces the names of PyTorch's optimizer classes with the names used on every backend."""
    if not isinstance(config, dict):
        return config
    config = {key: _of_any_backend(value) for key, value in config.items()}
    if str(config.get("module", "")).startswith("keras.src.backend.torch.optimizers"):
        config.update(module="keras.optimizers", registered_name=None)
    return config


class _EpochEnd(keras.callbacks.Callback):
    """Logs learning rates and augmentation strengths; warns once about classes without images."""

    def __init__(self, check):
        super().__init__()
        self.check, self._has_warned = check, False

    def on_epoch_end(self, epoch, logs=None):
        if self.model._skipped_steps:
            raise ValueError(
                "The dataset must yield as many batches as before in each epoch. Received: one "
                f"that ended {self.model._skipped_steps} steps before the checkpoint's position"
            )
        for name in ("g_optimizer", "d_optimizer"):
            # Keras's `MultiOptimizer` has several rates, but no `learning_rate`.
            rate = getattr(getattr(self.model, name), "learning_rate", None)
            if rate is not None:
                logs[f"{name[0]}_learning_rate"] = float(ops.convert_to_numpy(rate))
        for slot in self.model.slots.moving:
            for name, value in getattr(slot, "logged", {}).items():
                logs[name] = float(ops.convert_to_numpy(value))
        if not self._has_warned:
            self._has_warned = self.check.warn_of_missing_classes()


def _with_epoch_end(model, callbacks):
    """Puts an `_EpochEnd` first, so that all other callbacks find its values in the logs."""
    own = _EpochEnd(model._checks["fit"])
    if not isinstance(callbacks, keras.callbacks.CallbackList):
        return [own, *keras.tree.flatten(callbacks or [])]
    own.set_model(model)
    others = [x for x in callbacks.callbacks if not isinstance(x, _EpochEnd)]
    callbacks.callbacks[:] = [own, *others]
    return callbacks


def _computes_in_float16(network):
    return any(x.dtype_policy.compute_dtype == "float16" for x in layers_of(network))
