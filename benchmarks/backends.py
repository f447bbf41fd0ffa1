"""How long does a training step take on each backend, and what does `fit` cost over a plain loop?

Command:   python benchmarks/backends.py --json
Measures   the steps of `SAGAN.fit` on TensorFlow, JAX and PyTorch, each backend in a process of
           its own and one step each in turn
Against:   the same step written plainly (plain_steps.py): in JAX without a Keras trainer, in
           PyTorch as a loop with PyTorch's own Adam. From equal weights and latents both forms
           must have the same losses in two steps. They take a step in turn, `fit` with all that
           Keras does between two steps
Needs:     pip install jax torch
Result:    benchmarks/results/backends.json and a table, about 10 minutes on 2 CPU cores
"""

import json
import os
import shlex
import sys

import common

BACKENDS = ("tensorflow", "jax", "torch")
GOALS = {"jax": 1.1, "torch": 1.25}  # Times of `fit` over those of the plain form.
TOLERANCE = 1e-3  # Of the losses of two steps.
COLOR = {"image_size": 64, "channels": 3, "base_filters": 16, "attention_resolutions": (32,)}
SETTINGS = {
    "Fashion-MNIST, 32 px, batch 64": ("sagan_fashion_mnist_32", {}, 64),
    "color, 64 px, batch 16": ("sagan_cifar10_32", COLOR, 16),
}


def take_turns(backend, preset, overrides, batch_size, warmup):
    """Checks the forms of one backend, and then times a step of each for a line of input."""
    os.environ["KERAS_BACKEND"] = backend
    import keras
    import numpy as np
    import plain_steps

    import keras_sagan

    def build():
        keras.utils.set_random_seed(0)
        model = keras_sagan.SAGAN.from_preset(preset, seed=0, **overrides)
        for network in (model.generator, model.discriminator):
            for layer in network.layers:
                if isinstance(layer, keras_sagan.SelfAttention2D):
                    layer.gamma.assign(0.5)  # At 0 the attention's own gradients are 0.
        model.compile()
        return model

    model, rng = build(), np.random.default_rng(0)
    images = rng.integers(0, 256, (batch_size, *model.image_shape), "uint8")
    batch = images, rng.integers(0, model.num_classes, batch_size, "int32")
    losses, others, error = plain_steps.first_losses(model, batch), {}, None
    plain = plain_steps.plain_step(build(), batch)
    if plain:
        others = {"plain": plain}
        error = plain_steps.largest_difference(losses, [plain() for _ in losses])
        if not error <= TOLERANCE:
            raise RuntimeError(f"The forms must agree within {TOLERANCE}. Received: {error}")
    turns = 0

    def after(seconds):
        nonlocal turns
        turns += 1
        if turns >= warmup:
            # The turn before the first line isn't reported.
            print("READY" if turns == warmup else json.dumps({**seconds, "error": error}))
            sys.stdout.flush()
            if not sys.stdin.readline():
                os._exit(0)  # TensorFlow's data pipeline can take minutes to end.

    callback = plain_steps.Turns(plain_steps.waiter(model), others, after)
    data = plain_steps.repeated(batch)
    model.fit(data, steps_per_epoch=10**6, verbose=0, callbacks=[callback])


def measure(preset, overrides, batch_size, backends, rounds, warmup=2):
    """Rows of a table, one for each backend."""
    peers = {}
    for backend in backends:
        arguments = json.dumps([backend, preset, overrides, batch_size, warmup])
        command = [sys.executable, __file__, "--turns", arguments]
        peers[backend] = common.Peer(shlex.join(command))
    turns = {name: [] for name in backends}
    for _ in range(rounds):
        for backend, peer in peers.items():
            turns[backend].append(peer())
    for peer in peers.values():
        peer.close()
    rows = []
    for backend, found in turns.items():
        seconds = {key: [turn[key] for turn in found] for key in found[0] if key != "error"}
        figures = common.summarize(seconds)
        ratio = plain = None
        if "plain" in figures:
            plain = figures["plain"]["median_seconds"]
            ratio = figures["plain"]["times_faster"]
        rows.append(
            {
                "backend": backend,
                "fit_seconds": figures["fit"]["median_seconds"],
                "fit_min_seconds": figures["fit"]["min_seconds"],
                "plain_seconds": plain,
                "fit_over_plain": ratio,
                "goal": GOALS.get(backend),
                "error": found[0]["error"] and common.rounded(found[0]["error"], 2),
            }
        )
    return rows


def main(arguments=None):
    parser = common.argument_parser(__doc__, "backends")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=[*SETTINGS])
    parser.add_argument("--rounds", type=int, default=10)
    settings = parser.parse_args(arguments)
    results = {}
    for name in settings.settings:
        results[name] = measure(*SETTINGS[name], settings.backends, settings.rounds)
        print(name)
        common.print_table(results[name])
    return common.record(
        __file__,
        settings.json,
        arguments,
        results=results,
        settings={
            name: {"preset": preset, "overrides": overrides, "batch_size": batch_size}
            for name, (preset, overrides, batch_size) in SETTINGS.items()
            if name in results
        },
        rounds=settings.rounds,
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--turns"]:
        take_turns(*json.loads(sys.argv[2]))
    else:
        main()
