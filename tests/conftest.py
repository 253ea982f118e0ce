"""One thread, and a progress folder of the tests' own: nobody's progress is read or written by them."""

import os
import tempfile

# set before any test module imports torch; the kernels of the notebooks inherit both
os.environ["OMP_NUM_THREADS"] = "1"
_progress = tempfile.TemporaryDirectory(prefix="attnlib-progress-")
os.environ["ATTNLIB_PROGRESS"] = _progress.name
