"""The self-attention GAN as a Keras model. Its training step is in `keras_sagan.training.step`."""

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
    check_function,
    check_integer,
    check_labels,
    check_shape,
    known_values,
)
from keras_sagan.distribution import check_workers_agree, chief_decides
from keras_sagan.models import batches
from keras_sagan.models.connection import connect, copy_network
from keras_sagan.models.discriminator import build_discriminator
from keras_sagan.models.generator import build_generator
from keras_sagan.models.presets import TTUR, preset_settings
from keras_sagan.models.sampling import SamplingMixin, check_latents
from keras_sagan.ops.latent import sample_labels, sample_latents
from keras_sagan.ops.programs import outside_programs
from keras_sagan.ops.resampling import reference_forms
from keras_sagan.private_keras import layers_of
from keras_sagan.training import backend, check_owner_of_devices, step
from keras_sagan.training.optimizers import GANOptimizer, follow_steps, follows_steps
from keras_sagan.training.slots import Slots

SETTINGS = ("latent_dim", "num_classes", "d_steps", "ema_momentum", "ema_start", "seed", "ttur")
METRICS = (
    *("g_loss", "d_loss", "real_logits", "fake_logits", "real_accuracy", "fake_accuracy"),
    *("real_in_margin", "fake_in_margin"),
)


@keras.saving.register_keras_serializable(package="keras_sagan")
class SAGAN(SamplingMixin, keras.Model):
    """Self-attention GAN that trains with `fit`.

    Each step updates the discriminator `d_steps` times and then the generator once, with the
    hinge loss and an optimizer for each (TTUR); `keras_sagan.training.step` is the algorithm. The
    discriminator gets real and fake images in one pass, or in a pass each if it uses statistics of
    the batch. The state of a network (batch statistics, `vector_u` of the spectral norms) moves in
    its own update only, which computes its own gradients only. Latents and fake labels are a pure
    function of the seed and the step.

    Args:
        generator: Keras model from latents `(batch, latent_dim)`, or from `[latents, labels]`,
            to images `(batch, height, width, channels)` in [-1, 1].
        discriminator: Keras model from images, or from `[images, labels]`, to logits.
        latent_dim: Positive integer.
        num_classes: Positive integer, or `None` for networks without labels.
        d_steps: Positive integer, the discriminator updates per step, each with its own latents
            and the real images of the step. Defaults to `1`.
        ema_momentum: Float in [0, 1), the share that the averaged generator keeps at a step, or
            `None` for no averaging. Early steps keep less, so that the half-life of the average is
            at most a twentieth of the steps taken.
        ema_start: Integer, the averaged generator is a copy before this step. Defaults to `0`.
        seed: Integer, the seed of latents and fake labels, or `None` to draw one. The initial
            weights are those of the networks: call `keras.utils.set_random_seed` before building.
        ttur: Dictionary with `g_learning_rate`, `d_learning_rate`, `beta_1` and `beta_2`, the
            settings of `"auto"` in `compile`. Defaults to 1e-4, 4e-4, 0 and 0.999.
        **kwargs: Base model arguments, such as `name`.

    Call arguments:
        inputs: Latents, or `[latents, labels]`.

    Returns:
        Float images `(batch, height, width, channels)` in [-1, 1].

    State:
        The networks; `ema_generator`, the averaged generator or `None`; `steps`, the number of
        training steps taken; `judges_apart`, whether real and fake images get a pass each.

    Raises:
        ValueError: For networks that don't fit each other, an argument out of range, or a
            strategy or distribution of another backend or from after the networks were built.

    Example:

    >>> model = SAGAN.from_preset("sagan_fashion_mnist_32", base_filters=4)
    >>> model.generate(2, labels=[0, 9], seed=1).shape
    (2, 32, 32, 1)

    Reference:
        [Zhang et al., 2019](https://arxiv.org/abs/1805.08318).
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
        **kwargs,
    ):
        super().__init__(**kwargs)
        latent_dim = check_integer("latent_dim", latent_dim, maximum=MAX_SIZE)
        num_classes = check_integer("num_classes", num_classes, maximum=MAX_SIZE, optional=True)
        self.latent_dim, self.num_classes = latent_dim, num_classes
        self.d_steps = check_integer("d_steps", d_steps, maximum=MAX_COUNT)
        self.ema_momentum = check_float("ema_momentum", ema_momentum, 0, below=1, optional=True)
        expected = "a non-negative integer below 2**31"
        self.ema_start = check_integer("ema_start", ema_start, 0, MAX_SIZE, expected=expected)
        seed = check_integer("seed", seed, 0, MAX_SIZE, optional=True)
        self.seed = random.randint(0, MAX_SIZE) if seed is None else seed
        self.ttur = _checked_ttur(ttur)
        self.generator, self.discriminator = generator, discriminator
        self.image_shape = connect(generator, discriminator, latent_dim, num_classes)
        check_owner_of_devices()
        self._strategy = backend.current_strategy()
        self._num_devices = backend.count_devices(self._strategy)
        self._is_one_of_many = backend.is_multi_worker(self._strategy)
        backend.check_built_under(self._strategy, generator=generator, discriminator=discriminator)
        self._step_lock = threading.RLock()  # Held while other threads must not read variables.
        self._skipped_steps = self._skipped_batches = 0  # Of an epoch that `fit` resumes.
        self._average = None
        self._averaged_from: int | None = None
        if ema_momentum is not None:
            self._average = copy_network(generator)
            connect(self._average, discriminator, latent_dim, num_classes)
            self._average.set_weights(generator.get_weights())
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
        self._generate_functions = {}
        self.built = True

    @classmethod
    def from_preset(cls, name: str, recipe: str | None = None, **overrides) -> "SAGAN":
        """Builds the networks and the model of a preset.

        Args:
            name: String, a key of `keras_sagan.models.PRESETS`.
            recipe: String, one of that preset's recipes, or `None` for its first one.
            **overrides: Settings to change: arguments of `build_generator`,
                `build_discriminator` and `SAGAN`, and the `g_learning_rate`, `d_learning_rate`,
                `beta_1` and `beta_2` that `compile()` uses.

        Returns:
            A `SAGAN` to compile: `compile()` uses the recipe's optimizers.

        Raises:
            ValueError: For an unknown preset, recipe or setting.
        """
        settings = {**preset_settings(name, recipe), **overrides}
        # Check before creating variables: creation is collective, and workers that differ deadlock.
        check_workers_agree(
            backend.current_strategy(),
            preset=name,
            recipe=recipe,
            overrides=overrides,
            dtype_policy=keras.config.dtype_policy().name,
        )
        constructors = []
        for each in cls.__mro__:  # A subclass may pass on `*args, **kwargs`.
            constructors.append(inspect.signature(each.__init__).parameters)  # type: ignore[misc]
            kinds = [parameter.kind for parameter in constructors[-1].values()]
            if each is SAGAN or inspect.Parameter.VAR_KEYWORD not in kinds:
                break
        if not any("ttur" in parameters for parameters in constructors):
            raise ValueError(
                f"`from_preset` needs a constructor of {cls.__name__} that takes `ttur`, or "
                f"`**kwargs` for `SAGAN`. Received: {cls.__name__}{inspect.signature(cls)}"
            )

        def pick(*signatures):
            names = {name for parameters in signatures for name in parameters}
            names -= {"generator", "discriminator", "self", "args", "kwargs", "name"}
            return {name: value for name, value in settings.items() if name in names}

        for_generator = pick(inspect.signature(build_generator).parameters)
        for_discriminator = pick(inspect.signature(build_discriminator).parameters)
        for_model = pick(*constructors)
        ttur = {name: settings[name] for name in TTUR if name in settings}
        unknown = set(settings).difference(for_generator, for_discriminator, for_model, ttur)
        if unknown:
            raise ValueError(
                "`overrides` must be settings of build_generator, build_discriminator, SAGAN or "
                f"its optimizers. Received: {', '.join(sorted(unknown))}"
            )
        return cls(
            build_generator(**for_generator),
            build_discriminator(**for_discriminator),
            **{"ttur": ttur, **for_model},
        )

    def call(self, inputs: KerasTensor, training: bool = False) -> KerasTensor:
        return self.generator(inputs, training=training)

    # Compile

    def compile(
        self,
        g_optimizer: str | dict | keras.Optimizer = "auto",
        d_optimizer: str | dict | keras.Optimizer | None = None,
        loss: str | tuple[Callable, Callable] | losses.AdversarialLoss = "hinge",
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: bool | str = "auto",
        auto_scale_loss: bool = True,
        augmentation: Callable | None = None,
        penalty: Callable | Sequence[Callable] | None = None,
    ) -> None:
        """Configures the model for training; without arguments, as in its recipe.

        Args:
            g_optimizer, d_optimizer: Keras optimizers, their names or configurations, or `"auto"`
                for `keras.optimizers.Adam` with the model's `ttur`. Both are `"auto"` by default;
                a `g_optimizer` needs a `d_optimizer`. A `LearningRateSchedule` of either follows
                `model.steps`. `model.optimizer` combines the two: a callback that sets its
                `learning_rate` sets the generator's and scales the discriminator's with it.
            loss: `"hinge"`, `"non_saturating"`, `"wasserstein"`, `"least_squares"`,
                `"relativistic"`, `"relativistic_average"`, or a pair of functions
                `(generator_loss, discriminator_loss)`; see `keras_sagan.losses`. A generator loss
                of two arguments gets the real and the fake logits.
            run_eagerly, steps_per_execution: As in `keras.Model.compile`; PyTorch takes one step
                per execution.
            jit_compile: `True` compiles the whole step with XLA; `False` uses no XLA, except for
                single operations on JAX; `"auto"` leaves the choice to Keras: the whole step on
                JAX and on TensorFlow with one GPU, the sums of wide 3 x 3 convolutions on CPUs.
                PyTorch compiles nothing. Defaults to `"auto"`.
            auto_scale_loss: Boolean, whether each optimizer gets its own loss scale where the
                networks compute in float16. Defaults to `True`.
            augmentation: Function `(images, uniform) -> images` that changes the real and fake
                images that the discriminator sees, or `None`. Images are float32
                `(batch, height, width, channels)` in [-1, 1]; `uniform(columns)` draws float32
                numbers in [0, 1) of shape `(batch, columns)` from the seed and the step. Use no
                other random numbers: Keras's seed generators stand still here. The generator
                learns through it.
            penalty: Penalty of `keras_sagan.penalties`, such as `R1(10.0)`, or another function
                `(judge, real, fake) -> scalar` to add to the discriminator's loss, a list of
                these, or `None`. `judge(images, labels)` gives the logits; `real` and `fake` are
                pairs of images and labels. A function of four arguments gets the `uniform` of an
                augmentation too. `keras_sagan.training.input_gradient` differentiates `judge`.
                `judge.logits` are the real and fake logits of the loss, and `None` for a penalty
                with an `every` above 1.

        Raises:
            ValueError: Outside of the scope that the model was built in, for a `g_optimizer`
                alone, one optimizer for both networks or with `use_ema=True`, an unknown loss, one
                without a threshold for an adaptive augmentation, or what PyTorch or `TPUStrategy`
                can't do: `jit_compile=True`, several steps per execution, float16.
        """
        backend.check_scope(self._strategy, "compile", or_outside=False)
        arguments = {
            "loss": loss,
            "run_eagerly": check_boolean("run_eagerly", run_eagerly),
            "steps_per_execution": check_integer("steps_per_execution", steps_per_execution),
            "jit_compile": check_choice("jit_compile", jit_compile, (True, False, "auto")),
            "auto_scale_loss": check_boolean("auto_scale_loss", auto_scale_loss),
            "augmentation": check_function("augmentation", augmentation, optional=True),
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
        is_float16 = any(map(_computes_in_float16, (self.generator, self.discriminator)))
        backend.check_compile(self._strategy, arguments["jit_compile"], is_float16)
        self.loss_functions = losses.get(loss)
        self.uses_real_logits = self.loss_functions.uses_real_logits
        self.augmentation, self.penalty = augmentation, penalty
        self.slots = Slots(self, augmentation, penalties.get(penalty), self.loss_functions)
        self._judges_apart = None  # Known from the first batch on.
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
        """Evaluates schedules of the optimizers at `steps`, also those set after `compile`."""
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
        # Each replica has seen its share of the images.
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
            # The discriminator still learns from these under the hinge loss.
            "real_in_margin": ops.mean(ops.cast(real_logits < 1.0, "float32")),
            "fake_in_margin": ops.mean(ops.cast(fake_logits > -1.0, "float32")),
        }
        for name, value in values.items():
            self._trackers[name].update_state(value, sample_weight=ops.shape(real_logits)[0])

    @property
    def metrics(self) -> list[keras.Metric]:
        own = list(self._trackers.values())
        known = {id(metric) for metric in own}
        return own + [x for x in self._metrics if id(x) not in known]  # Those of a subclass.

    @reference_forms()  # A few images aren't worth compiling for.
    def _see_first_batch(self, batch):
        """Warns, once for each `compile`, of networks that end in the wrong activation."""
        images, labels = batches.unpack(batch, self.num_classes)
        if self._judges_apart is None and len(images):
            images = ops.convert_to_numpy(batches.to_model_space(images[: batches.FEW]))
            labels = None if labels is None else ops.convert_to_numpy(labels[: batches.FEW])
            batches.warn_of_outputs(self, images, labels)
            self._find_out_whether_apart(images.shape[1:])

    @property
    def judges_apart(self) -> bool:
        """Whether the discriminator uses batch statistics, so that it gets real and fake apart."""
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

    @property
    def ema_generator(self) -> keras.Model | None:
        """The averaged generator, or `None`. While `steps` is 0 it follows the generator."""
        steps = known_values(self.steps) if self._average is not None else None
        if steps is not None and steps == 0:
            # Copy after changes of the generator only: the average may have its own statistics.
            values = map(ops.convert_to_numpy, self.generator.variables)
            weights = hash(tuple(value.tobytes() for value in values))
            if weights != self._averaged_from:
                self.restart_average()
                self._averaged_from = weights
        return self._average

    def restart_average(self) -> None:
        """Makes the averaged generator a copy of the generator, from which averaging continues.

        Call it after putting other weights into the `generator` of a model that has trained; while
        `steps` is 0 that isn't needed. A model without averaging raises a ValueError.
        """
        if self._average is None:
            raise ValueError(
                "`restart_average` needs a model with an `ema_momentum`. "
                "Received: ema_momentum=None"
            )
        for mean, variable in zip(self._average.variables, self.generator.variables):
            mean.assign(ops.copy(variable))  # On the device: one of several processes may do it.

    # Fit and evaluate

    def fit(
        self, x=None, y=None, *args, class_weight=None, sample_weight=None, **kwargs
    ) -> keras.callbacks.History:
        """Trains the model; arguments and callbacks are those of `keras.Model.fit`.

        A callback with a method `start(model, data, steps_per_epoch)`, such as
        `TrainingCheckpoint`, first restores the model and says where the data and `fit` begin.

        Args:
            x: A data set of images or `(images, labels)`, such as a `tf.data.Dataset`, a
                `keras.utils.PyDataset` or a `torch.utils.data.DataLoader`, an array of images, or
                anything else that Keras takes. Images are uint8 in [0, 255] or float in [-1, 1] of
                shape `(batch, height, width, channels)`.
            y: With an array of images, the array of integer labels.

        Returns:
            A `keras.callbacks.History`, with both learning rates at the end of each epoch under
            `g_learning_rate` and `d_learning_rate`, and the strength of an adaptive augmentation
            under `augmentation_probability`.

        Raises:
            ValueError: For `class_weight` or `sample_weight`, which have no meaning for a GAN, or
                for data that don't fit; the first batch shows their range.
        """
        _refuse_weights(class_weight=class_weight, sample_weight=sample_weight)
        batches.check_given(x, y)
        steps_before = int(self.steps.numpy())
        is_ordered = hasattr(x, "shape") or isinstance(x, keras.utils.PyDataset)
        if hasattr(x, "at_step") or not is_ordered:
            kwargs.setdefault("shuffle", False)  # Keras warns of its default, or shuffles batches.
        backend.check_scope(self._strategy, "fit")
        given = inspect.signature(super().fit).bind_partial(x, y, *args, **kwargs).arguments
        self._check_shares_of_arrays(**given)
        callbacks = given.get("callbacks")
        self._skipped_steps = 0
        for callback in keras.tree.flatten(getattr(callbacks, "callbacks", callbacks)):
            if hasattr(callback, "start"):
                start = callback.start(self, x, given.get("steps_per_epoch"))
                x, epoch, self._skipped_steps, self._skipped_batches = start
                given.update({} if epoch is None else {"initial_epoch": epoch})
        for check in self._checks.values():
            check.begin()
        # A worker has its share of the data only, and a resumed epoch what is left of it.
        is_whole = given.get("steps_per_epoch") is None and x is given.get("x")
        is_whole = is_whole and not self._is_one_of_many
        callbacks = _with_epoch_end(self, callbacks, is_whole)
        given.update(x=batches.without_none(x), callbacks=callbacks)
        if "validation_data" in given:
            given["validation_data"] = batches.without_none(given["validation_data"])
        history = super().fit(**given)
        if history.epoch and int(self.steps.numpy()) == steps_before:
            self._checks["fit"].at_end()  # On PyTorch, Keras accepts empty data.
        return history

    def evaluate(self, *args, **kwargs) -> list[float] | dict[str, float]:
        """Returns the losses on other data, the same for the same data and weights.

        Arguments and results are those of `keras.Model.evaluate`, data and errors those of `fit`.
        """
        backend.check_scope(self._strategy, "evaluate")
        bound = inspect.signature(super().evaluate).bind(*args, **kwargs)
        given = bound.arguments
        batches.check_given(given.get("x"), given.get("y"))
        self._check_shares("x", given["x"], given.get("batch_size"), given.get("steps"))
        if not kwargs.get("_use_cached_eval_dataset"):  # Keras passes it in `fit`.
            self._checks["evaluate"].begin()
        given["x"] = batches.without_none(given["x"])
        results = super().evaluate(*bound.args, **bound.kwargs)
        self._checks["evaluate"].at_end()
        return results

    def train_on_batch(
        self, x, y=None, sample_weight=None, class_weight=None, return_dict: bool = False
    ) -> list[float] | dict[str, float]:
        """Trains on one batch, as `keras.Model.train_on_batch` does; data as in `fit`."""
        _refuse_weights(class_weight=class_weight, sample_weight=sample_weight)
        self._begin_batch("train_on_batch", "fit", x, y)
        return super().train_on_batch(x, y, return_dict=return_dict)

    def test_on_batch(
        self, x, y=None, sample_weight=None, return_dict: bool = False
    ) -> list[float] | dict[str, float]:
        """Returns the losses on one batch, as `keras.Model.test_on_batch` does."""
        _refuse_weights(sample_weight=sample_weight)
        self._begin_batch("test_on_batch", "evaluate", x, y)
        return super().test_on_batch(x, y, return_dict=return_dict)

    def _begin_batch(self, method, check, x, y):
        batches.check_given(x, y)
        backend.check_scope(self._strategy, method)
        self._checks[check].begin(is_new_data=False)

    def _check_shares_of_arrays(self, x, batch_size=None, validation_split=0.0, **given):
        """Raises before training for arrays in batches that the replicas can't share equally."""
        steps = given.get("steps_per_epoch")
        if steps is not None:
            steps *= given.get("epochs", 1) - given.get("initial_epoch", 0)
        validation_data, validation_steps = map(given.get, ("validation_data", "validation_steps"))
        validation_size = given.get("validation_batch_size") or batch_size
        if isinstance(validation_data, (tuple, list)):
            first = validation_data[0]
            self._check_shares("validation_data", first, validation_size, validation_steps)
        if not validation_split or not hasattr(x, "shape"):
            self._check_shares("x", x, batch_size, steps)
            return
        count = int(x.shape[0] * (1.0 - validation_split))  # As Keras splits it.
        advice = "give `validation_data` that they divide instead of `validation_split`"
        self._check_shares("x", x[:count], batch_size, steps, advice)
        self._check_shares("x", x[count:], validation_size, validation_steps, advice)

    def _check_shares(self, argument, x, batch_size, steps, advice=None):
        if not hasattr(x, "shape"):
            return
        if self._is_one_of_many:
            backend.check_share(argument)
        elif self._num_devices > 1:
            count = x.shape[0]
            batches.check_shares(argument, count, batch_size, self._num_devices, steps, advice)

    def make_train_function(self, force=False):
        self._follow_steps(only_new=True)
        if self.train_function is not None and not force:
            return
        if self._is_one_of_many:
            names = ("seed", "d_steps", "ema_momentum", "ema_start")
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
            """Skips the steps that were done in an epoch before it was interrupted."""
            if not self._skipped_steps:
                return function(*arguments)
            *state, iterator = arguments  # JAX passes a state.
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
        """Nothing: the networks are built, and Keras would take a batch."""

    _maybe_symbolic_build = _symbolic_build

    def _purge_model_variables(self, **kinds):
        """Nothing: on JAX, Keras would leave the variables empty during an epoch."""

    # Generate

    def generate(
        self,
        num_images: int,
        labels: int | np.ndarray | None = None,
        seed: int | None = None,
        truncation: float | None = None,
        batch_size: int = 64,
        latents: np.ndarray | None = None,
        use_ema: bool = True,
    ) -> np.ndarray:
        """Generates images.

        Args:
            num_images: Positive integer.
            labels: Class id for all images, or array of `num_images` of them; `None` draws them
                evenly. Only for a model with classes.
            seed: Integer that determines latents and labels for every batch size, or `None` for
                new ones at each call.
            truncation: Positive float: latents beyond it are drawn again (the truncation trick:
                better images, less variety). `None` for none.
            batch_size: Positive integer, the images computed at a time. Defaults to `64`.
            latents: Float array `(num_images, latent_dim)` to use instead of drawn ones.
            use_ema: Boolean, whether to use the averaged generator if there is one. Defaults to
                `True`.

        Returns:
            uint8 array of shape `(num_images, height, width, channels)` in [0, 255].

        Raises:
            ValueError: For arguments out of range, labels or latents that don't fit, NaN in
                latents, or a `truncation` together with `latents`.
        """
        num_images = check_integer("num_images", num_images)
        expected = "a non-negative integer or None"
        seed = check_integer("seed", seed, 0, optional=True, expected=expected)
        truncation = check_float("truncation", truncation, above=0, optional=True)
        batch_size = check_integer("batch_size", batch_size)
        use_ema = check_boolean("use_ema", use_ema)
        rng = np.random.default_rng(seed)
        if latents is None:
            latents = sample_latents(num_images, self.latent_dim, rng, truncation)
        elif truncation is not None:
            raise ValueError(
                "`truncation` must be None if `latents` are given, which are used as they are. "
                f"Received: truncation={truncation}"
            )
        inputs = [check_latents("latents", latents, num_images, self.latent_dim)]
        if self.num_classes is not None and labels is None:
            labels = sample_labels(num_images, self.num_classes, rng)
        labels = self._labels(labels, num_images)
        inputs += [] if labels is None else [labels]
        generator = self._generator_in_use(use_ema)
        function = self._generate_function(generator)
        images = []
        for start in range(0, num_images, batch_size):
            parts = [ops.convert_to_tensor(x[start : start + batch_size]) for x in inputs]
            with self._step_lock:
                images.append(function(*parts))
        return np.concatenate([ops.convert_to_numpy(x) for x in images])

    def _labels(self, labels, count, name="labels"):
        """Class ids as an int32 array of `count`; `None` for a model without classes."""
        if self.num_classes is None:
            if labels is not None:
                raise ValueError(
                    f"`{name}` must not be given, as the model has num_classes=None. "
                    f"Received: {name}={labels}"
                )
            return None
        if labels is None:
            raise ValueError(
                f"`{name}` must be given, as the model has num_classes={self.num_classes}. "
                f"Received: {name}=None"
            )
        labels = np.asarray(labels)
        if labels.ndim == 0:
            labels = np.full(count, labels)
        check_labels(labels, self.num_classes, argument=name)
        if len(labels) != count:
            raise ValueError(
                f"`{name}` must be one class id or {count} of them. Received: {len(labels)} labels"
            )
        return labels.astype("int32")

    def _generator_in_use(self, use_ema):
        average = self.ema_generator if use_ema else None
        return self.generator if average is None else average

    def _generate_function(self, generator):
        is_average = generator is self._average
        if is_average not in self._generate_functions:

            def function(latents, labels=None):
                return batches.to_user_space(step.call(generator, latents, labels, training=False))

            self._generate_functions[is_average] = backend.compiled(
                function, generator, self.latent_dim, self.num_classes
            )
        return self._generate_functions[is_average]

    # Saving

    def export(self, filepath: str | Path, *args, **kwargs) -> NoReturn:
        """Raises a ValueError: use `keras_sagan.models.export_generator`."""
        raise ValueError(
            "`export` must not be called on a SAGAN: "
            "`keras_sagan.models.export_generator(model, directory)` writes its generator as "
            f"SavedModel, ONNX and LiteRT. Received: filepath={filepath!r}"
        )

    def get_config(self) -> dict:
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
        # Keras's files lack the seeds of layers such as Dropout.
        for i, state in enumerate(self._seed_states()):
            store[f"seed_{i}"] = state

    def load_own_variables(self, store):
        seeds = {key for key in store.keys() if key.startswith("seed_")}
        super().load_own_variables({key: store[key] for key in store.keys() if key not in seeds})
        for i, state in enumerate(self._seed_states()):
            if f"seed_{i}" in seeds:
                state.assign(store[f"seed_{i}"])

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
        # `compile` builds both optimizers, so that their slots can be restored.
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
    """Delays Ctrl-C until a call of the function ends; a second one doesn't wait.

    A KeyboardInterrupt in the middle of a step leaves variables half updated, and may crash the
    backend. Handlers that the user has set stay in charge.
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
            elif not callable(value):  # A schedule is.
                ttur[name] = check_float(name, value, minimum=0)
    except ValueError as error:
        raise ValueError(f"`ttur` must hold settings of Adam: {error}") from error
    return {**TTUR, **ttur}


def _of_any_backend(config):
    """Names Keras's optimizers as on every backend: PyTorch has its own classes of them."""
    if not isinstance(config, dict):
        return config
    config = {key: _of_any_backend(value) for key, value in config.items()}
    if str(config.get("module", "")).startswith("keras.src.backend.torch.optimizers"):
        config.update(module="keras.optimizers", registered_name=None)
    return config


def _refuse_weights(**weights):
    for name, value in weights.items():
        if value is not None:
            raise ValueError(
                f"`{name}` has no meaning for a GAN; choose what the data set yields instead. "
                f"Received: {name}={value}"
            )


class _EpochEnd(keras.callbacks.Callback):
    """Adds rates and strengths to the logs, and warns once of classes without images."""

    def __init__(self, check, is_whole):
        super().__init__()
        self.check, self.is_whole = check, is_whole
        self._has_warned = False

    def on_epoch_end(self, epoch, logs=None):
        if self.model._skipped_steps:
            raise ValueError(
                "The data set must give as many batches as before in each epoch. Received: one "
                f"that ended {self.model._skipped_steps} steps before the checkpoint's position"
            )
        for name in ("g_optimizer", "d_optimizer"):
            # Keras's `MultiOptimizer` has several rates, and none of its own.
            rate = getattr(getattr(self.model, name), "learning_rate", None)
            if rate is not None:
                logs[f"{name[0]}_learning_rate"] = float(ops.convert_to_numpy(rate))
        for slot in self.model.slots.moving:
            for name, value in getattr(slot, "logged", {}).items():
                logs[name] = float(ops.convert_to_numpy(value))
        if not self._has_warned:
            self._has_warned = self.check.warn_of_missing_classes(self.is_whole)


def _with_epoch_end(model, callbacks, is_whole):
    """Puts an `_EpochEnd` first, so that the callbacks of `fit` find the rates in the logs."""
    own = _EpochEnd(model._checks["fit"], is_whole)
    if not isinstance(callbacks, keras.callbacks.CallbackList):
        return [own, *keras.tree.flatten(callbacks or [])]
    own.set_model(model)
    others = [x for x in callbacks.callbacks if not isinstance(x, _EpochEnd)]
    callbacks.callbacks[:] = [own, *others]
    return callbacks


def _computes_in_float16(network):
    return any(x.dtype_policy.compute_dtype == "float16" for x in layers_of(network))
