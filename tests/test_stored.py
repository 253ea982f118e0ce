"""What lies in data/ is what its sources say, byte by byte, and a damaged file says how to restore it."""

import hashlib
import importlib.util
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch

from attnlib.lab import stored
from attnlib.lab.data import data_file, load_digits, load_photograph, load_results, load_terms

DATA = Path(__file__).parents[1] / "data"
DATA_FILES = {"china.npy", "claims.csv", "co2.csv", "digits.npy", "sunspots.csv", "terms.csv"}
NOTEBOOKS = {
    "00_start_here",
    "00_toolbox",
    "01_what_is_attention",
    "02_self_attention",
    "03_multi_head_and_positions",
    "04_recurrent_attention",
    "05_transformer",
    "06_moving_averages",
    "07_attention_on_feature_maps",
    "08_squeeze_and_excitation",
    "09_efficient_channel_attention",
    "10_spatial_attention",
    "11_cbam",
    "12_normalization_attention",
    "13_global_attention",
    "14_non_local",
    "15_efficient_multi_scale",
    "16_hrnet",
    "17_face_off",
    "18_claims_on_trial",
    "19_capstone",
}


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of data/ that a test may spoil, in use through ATTNLIB_DATA."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in [*DATA_FILES, "SHA256SUMS"]:
        shutil.copyfile(DATA / name, folder / name)
    monkeypatch.setenv("ATTNLIB_DATA", str(folder))
    return folder


@pytest.fixture
def build():
    """The module data/build.py."""
    spec = importlib.util.spec_from_file_location("build_data", DATA / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_digits_shapes_and_splits():
    train, test, both = load_digits(), load_digits("test"), load_digits("all")
    assert (len(train), len(test), len(both)) == (1287, 510, 1797)
    assert train.images.shape[1:] == (1, 8, 8)
    assert torch.equal(torch.cat([train.images, test.images]), both.images)
    assert torch.equal(torch.cat([train.labels, test.labels]), both.labels)
    assert train.classes == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
    assert both.images.max() == 1 and both.images.min() == 0
    assert torch.equal(both.images * 16, (both.images * 16).round())


def test_digits_are_not_transposed():
    # the first image is a nought, whose first two rows of 4x4 counts are these
    expected = torch.tensor([[0, 0, 5, 13, 9, 1, 0, 0], [0, 0, 13, 15, 10, 15, 5, 0]])
    assert torch.equal(load_digits().images[0, 0, :2] * 16, expected.float())
    assert load_digits().labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]


def test_splits_are_cut_where_a_form_ends():
    # every form begins 0 to 9, 0 to 9, 0 to 9 and ends 0, 8, 9, 8
    assert load_digits("train").labels[-4:].tolist() == [0, 8, 9, 8]
    assert load_digits("test").labels[:30].tolist() == [*range(10)] * 3


def test_digits_split_is_checked():
    with pytest.raises(ValueError, match=r"split='trian' is not one of .*did you mean 'train'"):
        load_digits("trian")


def test_photograph_has_its_colours_and_its_place_the_right_way_round():
    photograph = load_photograph()
    assert photograph.shape == (3, 53, 80)
    assert photograph.min() >= 0 and 0.5 < photograph.max() <= 1
    red, green, blue = photograph
    assert (blue[:2] > red[:2]).all() and not (blue[-2:] > red[-2:]).all()  # the sky is above
    wall, tree = (slice(25, 28), slice(14, 38)), (slice(20, 50), slice(72, 80))
    assert red[wall].mean() > green[wall].mean() + 0.1  # the red wall is on the left
    assert green[tree].mean() > red[tree].mean() + 0.01


def test_sources_rebuild_the_same_bytes(build, tmp_path):
    build.main(["--out", str(tmp_path / "new")])
    for name in [*DATA_FILES, "SHA256SUMS"]:
        assert (tmp_path / "new" / name).read_bytes() == (DATA / name).read_bytes(), name


def test_build_refuses_a_set_that_it_does_not_know(build, tmp_path, capsys):
    with pytest.raises(SystemExit):
        build.main(["digit", "--out", str(tmp_path)])
    assert "there is no set 'digit'; the sets are digits" in capsys.readouterr().err


def test_build_says_what_is_missing(build, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(SystemExit, match="needs scikit-learn: pip install"):
        build.main(["digits", "--out", str(tmp_path)])


def test_checksums_agree_with_the_files_and_the_readme():
    lines = (DATA / "SHA256SUMS").read_bytes().decode().splitlines()
    sums = {line[66:]: line[:64] for line in lines}
    assert sums.keys() == DATA_FILES
    assert lines == [f"{sums[name]}  {name}" for name in sorted(sums)]
    for name, expected in sums.items():
        assert hashlib.sha256((DATA / name).read_bytes()).hexdigest() == expected, name
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    in_readme = re.findall(r"^\| `([^`]+)` \|.*\| `([0-9a-f]{64})` \|$", readme, re.MULTILINE)
    assert dict(in_readme) == sums


def test_readme_names_source_and_licence():
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    digits = ["10.24432/C50P49", "E. Alpaydin", "C. Kaynak", "licenses/by/4.0"]
    for words in [*digits, "danielbuechele", "licenses/by/2.0"]:
        assert words in readme, words


def test_missing_file_says_how_to_restore_it(copy):
    (copy / "digits.npy").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"digits\.npy is missing; run 'git checkout -- data/digits\.npy'"
    ):
        load_digits()


def test_damaged_file_says_how_to_restore_it(copy):
    content = bytearray((copy / "digits.npy").read_bytes())
    content[5000] ^= 1
    (copy / "digits.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"digits\.npy is damaged: .*run 'git checkout -- data/digits\.npy'"):
        load_digits()


def test_file_without_a_checksum(copy):
    with pytest.raises(ValueError, match=r"SHA256SUMS does not list moon\.npy"):
        data_file("moon.npy")


def test_environment_variable_names_the_folder(copy):
    assert data_file("digits.npy") == copy / "digits.npy"


def test_environment_variable_that_leads_nowhere(monkeypatch, tmp_path):
    monkeypatch.setenv("ATTNLIB_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="correct the environment variable ATTNLIB_DATA, or unset it"):
        load_digits()


def test_installed_without_the_repository(monkeypatch, tmp_path):
    monkeypatch.delenv("ATTNLIB_DATA", raising=False)
    monkeypatch.setattr(stored.attnlib, "__file__", str(tmp_path / "attnlib" / "__init__.py"))
    with pytest.raises(FileNotFoundError, match="attnlib was installed without its repository: clone that"):
        load_digits()


def test_terms():
    terms = load_terms()
    assert list(terms.columns) == ["english", "chinese", "symbol", "notebook", "meaning"]
    assert 60 <= len(terms) <= 90
    for column in ["english", "chinese"]:
        assert not terms[column].str.lower().duplicated().any(), column
    for column in ["english", "chinese", "notebook", "meaning"]:
        assert (terms[column].str.strip() != "").all(), column
    assert not terms.isna().any(axis=None)
    assert set(terms["notebook"]) <= NOTEBOOKS
    assert terms["chinese"].str.contains("[\u4e00-\u9fff]").all()
    assert terms["meaning"].str.fullmatch("[A-Z].*[.]").all()
    keys = list(zip(terms["notebook"], terms["english"].str.lower(), strict=True))
    assert keys == sorted(keys)


def test_the_readme_of_the_data_names_every_file_of_stored_runs_and_the_script_that_makes_it():
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    stored = sorted(path.name for path in (DATA / "results").glob("*.csv"))
    assert len(stored) >= 20
    assert [name for name in stored if f"`{name}`" not in readme] == []
    named = re.findall(r"`(\w+\.csv)`(?=[^\n]*\|[^\n]*\|[^\n]*\|)", readme)
    assert [name for name in named if re.match(r"\d\d_", name) and name not in stored] == []
    for script in re.findall(r"`python (notebooks/runs/\w+\.py)`", readme):
        assert (DATA.parent / script).exists(), script


def test_stored_runs_load_with_their_settings():
    runs = load_results("08_cards")
    assert {"variant", "seed", "accuracy", "epochs", "learning_rate", "torch"} <= set(runs.columns)
    assert runs["accuracy"].between(0, 1).all()
    assert not runs.duplicated(["variant", "epochs", "seed"]).any()


def test_missing_runs_are_named_with_what_restores_them():
    with pytest.raises(
        FileNotFoundError, match=r"08_crads\.csv is missing; run 'git checkout -- data/results/08_crads\.csv'"
    ):
        load_results("08_crads")
