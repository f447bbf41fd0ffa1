"""What programs of TensorFlow consist of."""


def has_compiled_parts(program):
    """Whether functions that XLA compiles are called in a concrete function."""
    parts = program.graph.as_graph_def().library.function
    return any(part.attr["_XlaMustCompile"].b for part in parts)
