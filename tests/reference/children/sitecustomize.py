"""Python runs this at the start of every process that the tests start.

scikit-learn is installed for one oracle. Where it is, `import keras` imports it, which takes a
second of processor time in each of a hundred processes.
"""

import sys

sys.modules["sklearn"] = None
