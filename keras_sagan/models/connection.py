"""Whether two networks make a GAN, found out before anything is trained."""

import keras


def connect(generator, discriminator, latent_dim, num_classes):
    """Builds both networks by calling one after the other.

    Args:
        generator, discriminator: Keras models.
        latent_dim: Positive integer.
        num_classes: Positive integer, or `None` for networks without labels.

    Returns:
        Tuple `(height, width, channels)`, the shape of an image.

    Raises:
        ValueError: For networks that don't take what they should, or don't fit each other.
    """
    labels = [] if num_classes is None else [keras.Input((), dtype="int32")]
    latents = keras.Input((latent_dim,))
    try:
        _check_first_input(generator, latents.shape)
        images = generator([latents, *labels] if labels else latents)
    except Exception as error:
        raise ValueError(
            f"`generator` must take latents of shape (batch, {latent_dim})"
            + (" together with labels" if labels else " alone, as num_classes=None")
            + f". Received: a generator that says: {error}"
        ) from error
    shape = tuple(getattr(images, "shape", ()))
    if len(shape) != 4:
        raise ValueError(
            "`generator` must make images of shape (batch, height, width, channels). "
            f"Received: a generator with outputs of shape {shape}"
        )
    try:
        _check_first_input(discriminator, shape)
        discriminator([keras.Input(shape[1:]), *labels] if labels else keras.Input(shape[1:]))
    except Exception as error:
        raise ValueError(
            "`discriminator` must take what `generator` makes"
            + (" together with labels" if labels else " alone, as num_classes=None")
            + f". Received: a generator with images of shape {shape}, and a discriminator "
            f"that says: {error}"
        ) from error
    return shape[1:]


def _check_first_input(network, shape):
    # Keras lets maps of one channel through where more are expected.
    for expected in getattr(network, "inputs", None) or []:
        expected = tuple(expected.shape)
        fits = len(expected) == len(shape) and all(
            None in pair or pair[0] == pair[1] for pair in zip(expected, shape)
        )
        if not fits:
            raise ValueError(f"it takes inputs of shape {expected}")
        return


def check_scope(strategy, **owners):
    """Raises for a network or optimiser that was built outside of the scope of a strategy."""
    for name, owner in owners.items():
        for variable in owner.variables:
            if not strategy.extended.variable_created_in_scope(variable.value):
                raise ValueError(
                    f"`{name}` must be built inside the `strategy.scope()` that the model is "
                    f"built in. Received: a {name} whose {variable.path} was made outside of "
                    f"{type(strategy).__name__}"
                )


def copy_network(network):
    """A network of the same configuration, with variables of its own."""
    if isinstance(network, keras.Sequential) or hasattr(network, "operations"):
        return keras.models.clone_model(network)
    return network.__class__.from_config(network.get_config())
