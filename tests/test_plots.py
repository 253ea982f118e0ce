"""Figures: what is drawn is what was given, on the scale that was asked for, and none is shown by itself."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
import seaborn as sns
import torch
from matplotlib.colors import to_rgb

from attnlib.lab import notebook
from attnlib.lab.plots import by_seed, curves, heatmap, pictures


@pytest.fixture(autouse=True)
def closed_figures(monkeypatch):
    plt.switch_backend("agg")
    monkeypatch.setattr(plt, "show", lambda *a, **k: pytest.fail("a plot function called plt.show"))
    yield
    plt.close("all")


def test_a_heatmap_has_its_first_row_on_top_and_its_limits():
    values = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    ax = heatmap(values, limits=(0, 0.8), label="weight")
    (image,) = ax.images
    assert image.get_array().tolist() == [pytest.approx(row) for row in values.tolist()]
    assert image.get_clim() == (0, 0.8) and image.get_cmap().name == "viridis"
    bottom, top = ax.get_ylim()
    assert bottom > top  # rows run downwards
    assert ax.figure.axes[1].get_ylabel() == "weight"


def test_a_signed_heatmap_is_centred():
    ax = heatmap(torch.tensor([[-1.0, 1.0]]), limits=(-2, 2), signed=True)
    assert ax.images[0].get_cmap().name == "vlag" and ax.images[0].get_clim() == (-2, 2)
    with pytest.raises(
        ValueError, match=r"limits=\(-1, 2\) of a signed map should be symmetric, such as \(-2, 2\)"
    ):
        heatmap(torch.zeros(1, 1), limits=(-1, 2), signed=True)


def written(ax):
    return {text.get_position(): (text.get_text(), text.get_color()) for text in ax.texts}


def test_numbers_are_written_where_they_belong_and_can_be_read():
    ax = heatmap(torch.tensor([[0.0, 0.25], [0.5, 1.0]]), numbers=True)
    assert written(ax)[(1, 0)] == ("0.25", "white") and written(ax)[(0, 1)] == ("0.50", "black")
    assert {(text.get_ha(), text.get_va()) for text in ax.texts} == {("center", "center")}
    ax = heatmap(torch.tensor([[1.0, 3.0]]), numbers=True, limits=(0, 4))
    assert [colour for _, colour in written(ax).values()] == ["white", "black"]
    ax = heatmap(torch.tensor([[-0.9, 0.9]]), numbers=True, limits=(-1, 1), signed=True)
    assert [colour for _, colour in written(ax).values()] == ["black", "black"]
    assert not written(heatmap(torch.zeros(1, 1)))


def test_weights_of_a_module_are_drawn_as_they_are():
    weights = torch.tensor([[0.25, 0.5, 0.75]], dtype=torch.bfloat16, requires_grad=True)
    ax = heatmap(weights, limits=(0.2, 0.8))
    assert ax.images[0].get_array().tolist() == [[0.25, 0.5, 0.75]] and ax.get_aspect() == "auto"
    (ax,) = pictures(weights.detach().float()[None].requires_grad_())
    assert ax.images[0].get_array().tolist() == [[0.25, 0.5, 0.75]]


def test_a_heatmap_draws_on_the_axes_it_is_given():
    fig, (left, right) = plt.subplots(1, 2)
    assert heatmap(torch.zeros(2, 3), ax=right, colorbar=False) is right
    assert len(fig.axes) == 2 and not left.images


def test_pictures_share_a_scale():
    axes = pictures(torch.stack([torch.zeros(4, 5), torch.full((4, 5), 0.5)]), ["a", "b"])
    assert [ax.get_title() for ax in axes] == ["a", "b"]
    assert {ax.images[0].get_clim() for ax in axes} == {(0, 1)}
    with pytest.raises(ValueError, match="expected one of the axes for each of 3 images, got 2"):
        pictures(torch.zeros(3, 4, 5), axes=axes)


def test_pictures_are_grey_and_without_ticks_on_the_axes_and_the_scale_they_are_given():
    (ax,) = pictures(torch.zeros(1, 4, 5))
    assert ax.images[0].get_cmap().name == "gray" and not [*ax.get_xticks(), *ax.get_yticks()]
    given = list(plt.subplots(1, 2)[1])
    axes = pictures(torch.zeros(2, 4, 5), ["only one title"], axes=given, limits=(-1, 2))
    assert isinstance(axes, np.ndarray) and list(axes) == given
    assert {ax.images[0].get_clim() for ax in axes} == {(-1, 2)}


def test_by_seed_draws_every_seed_and_the_mean():
    given = plt.subplots()[1]
    plt.figure()  # the last figure is another one
    ax = by_seed({"plain": [0.2, 0.4], "SE": [0.9]}, ax=given, label="accuracy")
    assert ax is given and ax.get_ylabel() == "accuracy" and ax.get_xlim() == (-0.6, 1.6)
    assert [line.get_xdata().tolist() for line in ax.lines] == [pytest.approx([-0.12, 0.12]), [1]]
    bars = [collection.get_segments()[0][:, 0].tolist() for collection in ax.collections]
    assert bars == [[-0.25, 0.25], [0.75, 1.25]]
    assert [sorted(line.get_ydata()) for line in ax.lines] == [[0.2, 0.4], [0.9]]
    means = [collection.get_segments()[0][0][1] for collection in ax.collections]
    assert means == [pytest.approx(0.3), pytest.approx(0.9)]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["plain", "SE"]


def test_curves_draw_the_mean_in_a_band_from_lowest_to_highest():
    runs = {"a": torch.tensor([[1.0, 2.0], [3.0, 6.0]])}
    ax = curves(runs, x=[10, 20])
    assert ax.lines[0].get_xydata().tolist() == [[10, 2], [20, 4]]
    corners = ax.collections[0].get_paths()[0].vertices.tolist()
    assert [10, 1] in corners and [20, 6] in corners and [20, 2] in corners


def test_curves_count_the_steps_and_name_the_conditions_on_the_axes_they_are_given():
    given = plt.subplots()[1]
    (before,) = given.plot([0, 1])
    plt.figure()  # the last figure is another one
    ax = curves({"a": torch.zeros(2, 3), "b": torch.ones(1, 3)}, ax=given)
    lines = [line for line in ax.lines if line is not before]
    assert ax is given and lines[0].get_xdata().tolist() == [0, 1, 2]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
    for line, band in zip(lines, ax.collections, strict=True):
        assert to_rgb(line.get_color()) == tuple(band.get_facecolor()[0][:3])


@pytest.fixture
def displayed(monkeypatch):
    shown = []
    monkeypatch.setattr(notebook, "display", lambda data, **options: shown.append((data, options)))
    return shown


def test_show_displays_one_png_with_its_alt_text_and_closes_the_figure(displayed):
    figure = plt.figure(figsize=(2, 1), dpi=50)
    notebook.show(figure, alt="An empty figure, two inches wide.")
    ((data, options),) = displayed
    assert (
        data["image/png"].startswith(b"\x89PNG") and data["text/plain"] == "An empty figure, two inches wide."
    )
    assert plt.imread(io.BytesIO(data["image/png"])).shape[:2] == (100, 200)
    assert options == {"raw": True, "metadata": {"image/png": {"alt": "An empty figure, two inches wide."}}}
    assert b"Software" not in data["image/png"]  # it would name the version of matplotlib
    assert plt.get_fignums() == []


def test_show_gives_the_same_bytes_on_white(displayed):
    for _ in range(2):
        ax = heatmap(torch.eye(3))
        ax.figure.set_facecolor("none")
        notebook.show(ax.figure, alt="A three by three identity.")
    assert displayed[0][0] == displayed[1][0]
    pixels = plt.imread(io.BytesIO(displayed[0][0]["image/png"]))
    assert pixels[0, 0].tolist()[:3] == [1, 1, 1] and (pixels[..., -1] == 1).all()


def test_an_alt_text_that_says_nothing_is_refused(displayed):
    with pytest.raises(
        ValueError, match="alt='a figure of bars' should say in a sentence what is to be seen"
    ):
        notebook.show(plt.figure(), alt="a figure of bars")


@pytest.fixture
def settings_put_back(monkeypatch):
    monkeypatch.delenv("ATTNLIB_THREADS", raising=False)
    kept, threads = dict(plt.rcParams), torch.get_num_threads()
    yield
    plt.rcParams.update(kept)
    torch.set_printoptions(profile="default")
    torch.set_num_threads(threads)


def test_start_sets_the_threads(settings_put_back, monkeypatch):
    torch.set_num_threads(2)
    notebook.start()
    assert torch.get_num_threads() == 1
    monkeypatch.setenv("ATTNLIB_THREADS", "2")
    notebook.start()
    assert torch.get_num_threads() == 2


def test_start_sets_the_seed_and_how_tensors_are_printed(settings_put_back):
    drawn = []
    for seed in (3, 3, 4):
        notebook.start(seed=seed)
        drawn.append(torch.rand(2).tolist())
    assert drawn[0] == drawn[1] != drawn[2]
    assert str(torch.tensor([0.00001, 1000.0])) == "tensor([   0.0000, 1000.0000])"


def test_start_sets_the_look_of_figures(settings_put_back):
    plt.rcParams.update({"figure.dpi": 50, "figure.constrained_layout.use": False})
    notebook.start()
    assert plt.rcParams["figure.dpi"] == 100 and plt.rcParams["figure.constrained_layout.use"]
    assert plt.rcParams["xtick.bottom"] and not plt.rcParams["axes.grid"]
    first_colour = plt.rcParams["axes.prop_cycle"].by_key()["color"][0]
    assert to_rgb(first_colour) == sns.color_palette("colorblind")[0]


def test_importing_the_library_changes_nothing_and_loads_no_plots():
    import subprocess
    import sys

    code = (
        "import torch, sys; before = torch.get_num_threads(); import attnlib; "
        "assert torch.get_num_threads() == before; "
        "heavy = {'matplotlib', 'pandas', 'IPython', 'attnlib.lab', 'attnlib.exercises'}; "
        "loaded = heavy & set(sys.modules); "
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_by_seed_keeps_the_meaning_of_its_colours():
    ax = by_seed({"plain": [0.1], "SE": [0.2], "double": [0.3]}, highlight="SE")
    assert [line.get_color() for line in ax.lines] == ["grey", "C0", "C1"]


def test_by_seed_draws_means_and_limit_as_asked():
    ax = by_seed({"a": [0.1, 0.9]}, means=False, limit=0.75)
    assert not ax.collections
    assert list(ax.lines[-1].get_ydata()) == [0.75, 0.75] and ax.lines[-1].get_linestyle() == "--"
    assert len(by_seed({"a": [0.1, 0.9]}).lines) == 1


@pytest.mark.parametrize(
    ("results", "got"), [({}, r"got \{\}"), ({"a": [1.0], "b": []}, r"got \{'a': 1, 'b': 0\}")]
)
def test_by_seed_wants_a_value_for_each_condition(results, got):
    with pytest.raises(ValueError, match=f"expected at least one value for each condition, {got}"):
        by_seed(results)
