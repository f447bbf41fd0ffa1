"""What the benchmarks share: alternating timing, peak memory, records and tables.

Machines are noisy and slow down while a program runs. So the forms that are compared run in turn,
one call each a round, and a ratio is the median over rounds of two neighbouring times.
"""

import argparse
import contextlib
import ctypes
import json
import os
import platform
import re
import resource
import shlex
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# TensorFlow leaves oneDNN off on processors without AVX-512, where it is about twice as fast too.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
# Settings of oneDNN, OpenBLAS, XLA and PyTorch that hold a processor to fewer instructions.
LIMITS = ("ONEDNN_MAX_CPU_ISA", "OPENBLAS_CORETYPE", "XLA_FLAGS", "ATEN_CPU_CAPABILITY")


class Peer:
    """Another program that prints `READY` once warm, and then, for each line that it reads on
    standard input, the seconds of one step, or more of it as JSON.

    Args:
        command: String, the command line.
    """

    def __init__(self, command):
        self.command = command
        self.process = subprocess.Popen(
            shlex.split(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        for line in self.process.stdout:
            if line.startswith("READY"):
                return
        raise RuntimeError(f"The peer ended before it was ready. Received: {command}")

    def __call__(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write("step\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"The peer ended before its last step. Received: {self.command}")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)


def named_command(text):
    """Reads the `NAME=COMMAND` of a `--peer` argument."""
    name, _, command = text.partition("=")
    if not name or not command:
        raise argparse.ArgumentTypeError(f"A peer must be given as NAME=COMMAND. Received: {text}")
    return name, command


def without_commands(arguments):
    """Arguments as they can be published: a peer's command has paths of this machine."""
    pairs = zip(["", *arguments], arguments)
    whole = [f"{before}={x}" if before == "--peer" else x for before, x in pairs if x != "--peer"]
    return [re.sub("^--peer=(.*?)=.*", r"--peer=\1=COMMAND", x, flags=re.S) for x in whole]


def alternate(functions, rounds=10, warmup=2):
    """Times functions in turn.

    Args:
        functions: Dictionary from name to a function without arguments that returns when its work
            is done, or a `Peer`.
        rounds: Positive integer, the timed calls of each.
        warmup: Integer, the calls before. Defaults to `2`.

    Returns:
        Dictionary from name to list of seconds.
    """
    seconds = {name: [] for name in functions}
    for index in range(warmup + rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            value = function()
            spent = value if isinstance(function, Peer) else time.perf_counter() - start
            if index >= warmup:
                seconds[name].append(spent)
    return seconds


def summarize(seconds, reference=None):
    """Medians and paired ratios of the times of `alternate`.

    Args:
        seconds: Dictionary from name to list of seconds.
        reference: Name of the form the others are compared with; by default the first.

    Returns:
        Dictionary from name to `median_seconds`, `min_seconds`, the `rounds`, and `times_faster`:
        the median over rounds of the reference's seconds by those of the form.
    """
    reference = seconds[reference or next(iter(seconds))]
    return {
        name: {
            "median_seconds": rounded(statistics.median(times)),
            "min_seconds": rounded(min(times)),
            "times_faster": rounded(statistics.median(r / t for r, t in zip(reference, times))),
            "rounds": len(times),
        }
        for name, times in seconds.items()
    }


def rounded(value, digits=4):
    """A number with so many significant digits."""
    return float(f"{value:.{digits}g}")


def peak_bytes():
    """The most memory this process has had, or has had since `reset_peak`."""
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def reset_peak():
    """Gives freed memory back, and makes `peak_bytes` start from what is left, where it can."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_of(function):
    """Bytes by which memory grows at its peak while a function runs; 0 where it doesn't.

    What the process had before can hide growth: call it in a new one, as `peak_in_new_process`
    does.
    """
    reset_peak()
    before = peak_bytes()
    function()
    return max(0, peak_bytes() - before)  # Linux counts pages to some hundred.


def in_new_process(script, *arguments):
    """Runs a script in a process of its own, and returns the JSON of its last line."""
    command = [sys.executable, str(script), *map(str, arguments)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


def peak_in_new_process(script, **arguments):
    """Megabytes that a benchmark's form takes at its peak, in a process that does nothing else.

    Args:
        script: Path of the benchmark, which ends in `run(main, peak)`.
        **arguments: Those of its function `peak`, as JSON holds them.
    """
    return rounded(in_new_process(script, "--peak", json.dumps(arguments)) / 2**20)


def run(main, peak):
    """What a benchmark does as a program: all of it, or one form alone for its peak in bytes."""
    if sys.argv[1:2] == ["--peak"]:
        print(peak(**json.loads(sys.argv[2])))
    else:
        main()


def _status(field):
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(x.split()[1]) * 1024 for x in lines if x.startswith(field + ":")), 0)


def stablehlo_of(function, *specs):
    """The program of a function of TensorFlow's, as XLA gets it, in StableHLO text.

    Args:
        function: Function of tensors.
        *specs: The `tf.TensorSpec` of each argument.
    """
    import tensorflow as tf

    function = tf.function(function, jit_compile=True, autograph=False)
    # For "TPU" TensorFlow refuses variables as arguments. This stage comes before all that a
    # compiler does for its platform.
    ir = function.experimental_get_compiler_ir(*specs)
    text = ir(stage="stablehlo", platform_name="CPU")
    # A copy is the only operation in it that StableHLO itself doesn't have.
    return text.replace("mhlo.copy", "stablehlo.optimization_barrier")


def count_flops(text):
    """Operations of a StableHLO program by XLA's own count. Needs `jax`.

    The program is counted as it goes into the compiler. What comes out of XLA's compiler for the
    CPU has the same number to 0.3 %, and takes a minute to make.
    """
    import jax
    from jaxlib.xla_client import _xla

    computation = _xla.mlir.mlir_module_to_xla_computation(text, False, False)
    client = jax.devices("cpu")[0].client
    return _xla.hlo_module_cost_analysis(client, computation.get_hlo_module())["flops"]


def versions(*packages):
    """Versions of Python, of this package, and of those of the packages that are installed."""
    import keras_sagan

    found = {"python": platform.python_version(), "keras_sagan": keras_sagan.__version__}
    for name in packages or ("keras", "tensorflow", "numpy", "jax", "torch"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        pairs = (line.split(":", 1) for line in lines if ":" in line)
        known = {key.strip(): value.strip() for key, value in pairs}
        name, flags = known["model name"], known["flags"].split()
    except (OSError, KeyError):
        name, flags = platform.processor() or platform.machine(), ()
    wide = {"avx512f": "AVX-512", "avx2": "AVX2"}  # Half of the time hangs on it.
    vectors = next((wide[flag] for flag in wide if flag in flags), None)
    limits = {name: os.environ[name] for name in LIMITS if name in os.environ}
    found = {"cpu": name, "vectors": vectors, "cores": os.cpu_count()}
    return {**found, "limits": limits} if limits else found


def record(script, path, arguments=None, packages=(), **results):
    """Writes results with command, versions, hardware, load and date.

    Args:
        script: Path of the benchmark, its `__file__`.
        path: File to write, or `None` to write nothing.
        arguments: List of the command's arguments; by default those of this process.
        packages: Names of the packages whose versions matter, those of `versions` by default.
        **results: What was measured, and the settings.

    Returns:
        Dictionary of all of it.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    result = {
        "command": shlex.join(
            ["python", f"benchmarks/{Path(script).name}", *without_commands(arguments)]
        ),
        **results,
        "versions": versions(*packages),
        "hardware": hardware(),
        "load_average": os.getloadavg(),
        "date": time.strftime("%Y-%m-%d"),
    }
    if path is not None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(result, indent=2, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
    return result


def argument_parser(text, name):
    """A parser with the first line of a docstring, and with `--json [FILE]`.

    Without a file, the record goes to `benchmarks/results/<name>.json`.
    """
    parser = argparse.ArgumentParser(
        description=text.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--json",
        nargs="?",
        const=RESULTS / f"{name}.json",
        type=Path,
        help=f"record the result in a file, {name}.json of benchmarks/results/ by default",
    )
    return parser


def print_table(rows):
    """Prints a list of dictionaries with the same keys as a table."""
    if not rows:
        return
    cells = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    is_text = [isinstance(value, str) for value in rows[0].values()]
    for row in cells:
        padded = (
            cell.ljust(width) if text else cell.rjust(width)
            for cell, width, text in zip(row, widths, is_text)
        )
        print("  ".join(padded).rstrip())


def _cell(value):
    if not isinstance(value, float):
        return str(value)
    if 0 < abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
