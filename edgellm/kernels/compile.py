"""`python -m edgellm.kernels.compile FOLDER [NAME...]`: compile kernels, all if none is named, into a cache
folder, a printed line each.
"""

from __future__ import annotations

import sys
from pathlib import Path

from edgellm.kernels.cache import write_object
from edgellm.kernels.jit import compile_kernel, kernel_names


def main(folder: str, names: list[str]) -> None:
    """Compile each kernel and put its object into the folder."""
    for name in names or kernel_names():
        write_object(Path(folder) / f"{name}.o", compile_kernel(name))
        sys.stdout.write(name + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
