"""Python runs this at the start of every process that the tests start.

scikit-learn is installed for one oracle, and JAX for one backend. Where they are, `import keras`
imports them, which takes a second of processor time each, in each of a hundred processes.
While TensorFlow is imported, garbage collection takes almost another second.
"""

import gc
import os
import sys

gc.set_threshold(200_000, 50, 100)
sys.modules["sklearn"] = None


class NoJAXForOthers:
    """Hides JAX while Keras or TensorFlow is imported for another backend; later, it is found."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "jax" and os.environ.get("KERAS_BACKEND", "tensorflow") != "jax":
            modules = [sys.modules[x] for x in ("keras", "tensorflow") if x in sys.modules]
            if any(getattr(module.__spec__, "_initializing", False) for module in modules):
                raise ModuleNotFoundError("No module named 'jax'", name="jax")


sys.meta_path.insert(0, NoJAXForOthers)
