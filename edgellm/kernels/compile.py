"""`python -m edgellm.kernels.compile FOLDER [NAME...]`: compile kernels, all if none is named, into a cache
folder, a printed line each. With `-` for names they come from standard input, a line each.
"""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

from edgellm.kernels.cache import write_object
from edgellm.kernels.jit import compile_kernel, kernel_names

# Numba makes so many objects that looking for garbage among them was a seventh of its time.
_OBJECTS_BETWEEN_COLLECTIONS = 100_000


def main(folder: str, names: Iterable[str]) -> None:
    """Compile each kernel and put its object into the folder."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # who has lost its reader just ends
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    for name in names:
        code = compile_kernel(name)
        try:
            write_object(Path(folder) / f"{name}.o", code)
        except OSError as error:
            sys.exit(f"kernel {name} cannot be kept in {folder} ({error.strerror})")
        sys.stdout.write(name + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    given = sys.argv[2:]
    main(sys.argv[1], map(str.strip, sys.stdin) if given == ["-"] else given or kernel_names())
