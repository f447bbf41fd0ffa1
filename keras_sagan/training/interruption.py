"""Ctrl-C between two steps, not in the middle of one."""

import functools
import signal
import threading


def interrupted_at_end(function):
    """Delays Ctrl-C until a call of the function ends; a second one doesn't wait.

    A KeyboardInterrupt in the middle of a step leaves variables half updated, and may crash the
    backend. Handlers that the user has set stay in charge.

    Args:
        function: Any callable.

    Returns:
        The same as a callable that raises KeyboardInterrupt at its end, if one came meanwhile.
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
