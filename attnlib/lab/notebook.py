"""What a notebook needs at its first cell and at each of its figures."""

import io
import os

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from IPython.display import display
from matplotlib.figure import Figure


def start(seed: int = 0) -> None:
    """Begin a notebook: one thread, a fixed seed, and the course's look for figures.

    One thread makes a run repeatable and, beside other kernels, fast; the environment variable
    ATTNLIB_THREADS asks for another number. Nothing of this happens at import, because other people's
    programs import attnlib too.
    """
    torch.set_num_threads(int(os.environ.get("ATTNLIB_THREADS", "1")))
    torch.manual_seed(seed)
    torch.set_printoptions(precision=4, sci_mode=False)
    sns.set_theme(
        style="ticks", palette="colorblind", rc={"figure.dpi": 100, "figure.constrained_layout.use": True}
    )


def show(figure: Figure, *, alt: str) -> None:
    """Display a figure as a PNG on white with ``alt``, a text that says what is to be seen in it.

    The text goes into the image's metadata, where exporters find it, and stands as the output's plain form,
    so that a test which compares text notices when the figure is missing.

    Raises:
        ValueError: if ``alt`` is too short to say anything.
    """
    if len(alt.split()) < 5:
        raise ValueError(f"alt={alt!r} should say in a sentence what is to be seen in the figure")
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=100, facecolor="white", metadata={"Software": None})
    plt.close(figure)
    data = {"image/png": png.getvalue(), "text/plain": alt}
    display(data, raw=True, metadata={"image/png": {"alt": alt}})
