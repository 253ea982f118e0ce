"""A study carries on after any interruption, loses no finished run, repeats none, and says what is wrong."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image

from attnlib.__main__ import main
from attnlib.lab import runs, study
from attnlib.lab.run_table import append_row, read_rows
from attnlib.lab.runs import COLUMNS, MEASURED, PROVENANCE, Run, build_network, load_split, train_run

ROOT = Path(__file__).parents[1]
TINY = {"train_images": 60, "test_images": 40, "epochs": 1, "batch_size": 20}
SEEDED = [name for name in COLUMNS if name not in MEASURED + PROVENANCE]


def rows(table: pd.DataFrame) -> set[tuple]:
    """What the seeds decide, of every row."""
    return {tuple(map(str, row)) for row in table[SEEDED].itertuples(index=False)}


def tiny(mechanisms=("none", "se"), **options):
    return study.grid(list(mechanisms), **(TINY | {"seeds": range(2)} | options))


@pytest.fixture
def trained(monkeypatch):
    """The runs that are trained, in order."""
    done = []

    def train(run, source):
        done.append(run)
        return train_run(run, source)

    monkeypatch.setattr(study, "train_run", train)
    return done


def test_the_grid():
    found = study.grid(["none", "se", "eca"], seeds=[3, 5], options={"se": {"reduction": 8, "bias": False}})
    assert [(run.mechanism, run.seed) for run in found] == [
        ("none", 3),
        ("se", 3),
        ("eca", 3),
        ("none", 5),
        ("se", 5),
        ("eca", 5),
    ]
    assert [run.options for run in found[:3]] == ["{}", '{"bias": false, "reduction": 8}', "{}"]
    assert (found[0].train_images, found[0].test_images, found[0].image) == (1287, 510, 8)
    assert study.grid(["ema"])[0].options == '{"groups": 8}'


def test_a_row_holds_the_run_and_its_result(tmp_path):
    found = study.study(tiny(seeds=[1]), tmp_path / "rows.csv", progress=False)
    assert list(found.columns) == COLUMNS
    assert found["mechanism"].tolist() == ["none", "se"]
    assert found["parameters"].tolist() == [3162, 3310]  # 148 of SE with r = 4
    assert found["accuracy"].between(0, 1).all() and (found["loss"] > 0).all()
    assert (found["curve"].astype(float).round(4) == found["accuracy"].round(4)).all()
    again = study.study(tiny(seeds=[1]), tmp_path / "rows.csv", progress=False)
    pd.testing.assert_frame_equal(found, again)


def test_the_same_seed_gives_the_same_row_whatever_ran_before():
    (first, other) = tiny(["cbam"], flips=True)
    alone = train_run(first)[1]
    train_run(other)
    after = train_run(first)[1]
    assert (alone["accuracy"], alone["loss"]) == (after["accuracy"], after["loss"])
    assert alone["loss"] != train_run(other)[1]["loss"]


def test_the_number_of_threads_is_left_as_it_was():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        train_run(tiny()[0])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("backbone", ["small", "resnet20"])
def test_the_backbones_start_equal(backbone):
    data = load_split("digits", "train", 8)
    plain, with_gate, half = (
        build_network(run, data) for run in tiny(["none", "se", "half"], backbone=backbone, seeds=[4])
    )
    shared = plain.state_dict()
    assert all(torch.equal(with_gate.state_dict()[name], value) for name, value in shared.items())
    assert all(torch.equal(half.state_dict()[name], value) for name, value in shared.items())
    assert len(with_gate.state_dict()) > len(shared) == len(half.state_dict())


def test_mirrored_images():
    with_flips, without = (train_run(tiny(["none"], flips=f, epochs=2)[0])[1] for f in (True, False))
    assert with_flips["loss"] != without["loss"]


def test_finished_runs_are_not_repeated(tmp_path, trained):
    file = tmp_path / "rows.csv"
    study.study(tiny(seeds=[0]), file, progress=False)
    assert len(trained) == 2
    found = study.study(tiny(["se", "none", "eca"]), file, progress=False)
    assert [(run.mechanism, run.seed) for run in trained[2:]] == [
        ("eca", 0),
        ("se", 1),
        ("none", 1),
        ("eca", 1),
    ]
    assert found["mechanism"].tolist() == ["se", "none", "eca"] * 2
    assert len(file.read_text().splitlines()) == 7


def test_another_setting_is_another_run(tmp_path, trained):
    for options in ({}, {"learning_rate": 0.02}, {"options": {"se": {"reduction": 2}}}, {"epochs": 2}):
        study.study(tiny(["se"], seeds=[0], **options), tmp_path / "rows.csv", progress=False)
    assert len(trained) == 4


def test_two_processes_find_what_one_finds(tmp_path):
    one = study.study(tiny(), tmp_path / "one.csv", progress=False)
    two = study.study(tiny(), tmp_path / "two.csv", jobs=2, progress=False)
    assert rows(one) == rows(two)


# ---- interruptions


def test_killed_twenty_times(tmp_path):
    """SIGKILL at a random moment, until the study is done: the file is that of an undisturbed study."""
    command = [sys.executable, "-m", "attnlib", "study", "--mechanisms", "none,se,eca,simam"]
    command += ["--seeds", "6", "--train-images", "200", "--test-images", "100", "--epochs", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    start = time.monotonic()
    subprocess.run([*command, str(tmp_path / "whole.csv")], check=True, capture_output=True, env=environment)
    whole, torn = time.monotonic() - start, tmp_path / "torn.csv"
    moments, kills = random.Random(0), 0
    while kills < 20:
        process = subprocess.Popen(
            [*command, str(torn)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
        )
        try:
            process.wait(whole * moments.uniform(0.1, 0.7))
            torn.write_bytes(
                b"".join(torn.read_bytes().splitlines(keepends=True)[:-1])
            )  # done: take a row away
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    subprocess.run([*command, str(torn)], check=True, capture_output=True, env=environment)
    expected, found = pd.read_csv(tmp_path / "whole.csv"), pd.read_csv(torn)
    assert len(expected) == len(found) == 24
    assert rows(expected) == rows(found)


def test_a_torn_line_is_set_aside_and_its_run_repeated(tmp_path, trained, capsys):
    file = tmp_path / "rows.csv"
    whole = study.study(tiny(), file, progress=False)
    text = file.read_text()
    file.write_text(text[:-30])
    again = study.study(tiny(), file, progress=False)
    assert len(trained) == 5 and rows(again) == rows(whole)
    assert file.read_text().count("\n") == 5
    assert (tmp_path / "rows.csv.damaged").read_text() == text.splitlines()[-1][:-29] + "\n"
    assert (
        "rows.csv, line 5: the line breaks off; set aside in rows.csv.damaged, its run is done again"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("none,{}", "none", "it has 22 fields instead of 23"),
        (",False,", ",No,", "flips='No' should be True or False"),
        ("none,{}", "noone,{}", "mechanism='noone' is not one of"),
        (",60,40,", ",sixty,40,", "invalid literal for int() with base 10: 'sixty'"),
        (",False,0.", ",False,7.", "does not lie between 0 and 1"),
    ],
)
def test_a_damaged_line_is_named_and_nothing_else_is_lost(tmp_path, trained, capsys, old, new, said):
    file = tmp_path / "rows.csv"
    whole = study.study(tiny(), file, progress=False)
    first, second, *rest = file.read_text().splitlines(keepends=True)
    assert old in second
    file.write_text(first + second.replace(old, new, 1) + "".join(rest))
    assert rows(study.study(tiny(), file, progress=False)) == rows(whole)
    assert len(trained) == 5
    said_line = capsys.readouterr().out
    assert said_line.startswith("rows.csv, line 2: ") and said in said_line
    assert (tmp_path / "rows.csv.damaged").read_text() == second.replace(old, new, 1)


def test_a_header_that_broke_off_is_begun_again(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("mechanism,opt")
    assert read_rows(file) == [] and file.read_text() == ""


def test_another_table_is_refused_and_left_alone(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("name,age\nAda,36\n")
    with pytest.raises(ValueError, match=r"does not begin with the columns of a study .*give another file"):
        study.study(tiny(), file, progress=False)
    assert file.read_text() == "name,age\nAda,36\n"


def test_what_is_written_is_read_back(tmp_path):
    file, run = tmp_path / "rows.csv", tiny(["se"], learning_rate=0.1 + 0.2)[0]
    row = train_run(run)[1] | {"note": 'a "quoted", note', "device": "GPU, large"}
    append_row(file, run, row)
    ((found, back),) = read_rows(file)
    assert found == run and back == row


def test_a_diverged_run_is_a_row_with_a_note(tmp_path):
    found = study.study(
        tiny(["none"], learning_rate=1e20, seeds=[0], epochs=3), tmp_path / "rows.csv", progress=False
    )
    assert found["accuracy"].isna().all()
    assert re.fullmatch(r"the loss is (nan|inf) in epoch \d", found["note"][0])
    assert len(read_rows(tmp_path / "rows.csv")) == 1


def test_an_error_loses_no_finished_run(tmp_path, monkeypatch):
    def train(run, source):
        if run.mechanism == "eca":
            raise RuntimeError("out of memory")
        return train_run(run, source)

    monkeypatch.setattr(study, "train_run", train)
    with pytest.raises(RuntimeError, match="out of memory"):
        study.study(tiny(["none", "se", "eca"]), tmp_path / "rows.csv", progress=False)
    assert [run.mechanism for run, _ in read_rows(tmp_path / "rows.csv")] == ["none", "se"]


def test_two_studies_do_not_write_to_one_file(tmp_path):
    file = tmp_path / "rows.csv"
    with study._alone(file), pytest.raises(ValueError, match="another study is writing to"):
        study.study(tiny(), file, progress=False)


# ---- a cluster


def test_a_dask_cluster_finds_the_same_though_a_worker_is_killed(tmp_path, monkeypatch):
    from distributed import LocalCluster

    file, killed = tmp_path / "far.csv", []
    grid = tiny(["none", "se", "eca"], seeds=range(4), epochs=3)
    near = study.study(grid, tmp_path / "near.csv", progress=False)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster:

        def append(*arguments):
            append_row(*arguments)
            if not killed:
                killed.append(next(iter(cluster.workers.values())).process.pid)
                os.kill(killed[0], signal.SIGKILL)

        monkeypatch.setattr(study, "append_row", append)
        far = study.study(grid, file, scheduler=cluster.scheduler_address, progress=False)
    assert killed
    assert rows(near) == rows(far) == rows(pd.read_csv(file))
    assert len(pd.read_csv(file)) == 12


# ---- pictures, and the command


@pytest.fixture
def folder(tmp_path):
    """Two classes of five pictures, dark and bright."""
    for name, value in [("dark", 40), ("bright", 200)]:
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(5):
            picture = Image.new("RGB", (16, 16), (value, value + i, value))
            picture.save(tmp_path / "pictures" / name / f"{i}.png")
    return tmp_path / "pictures"


def test_a_folder_is_named_without_its_path(folder, tmp_path):
    runs_ = study.grid(["none"], source=folder, image=8, epochs=1, seeds=[0])
    assert (runs_[0].data, runs_[0].image, runs_[0].train_images) == ("pictures", 8, 8)
    found = study.study(runs_, tmp_path / "rows.csv", source=folder, progress=False)
    assert len(found) == 1
    assert str(tmp_path) not in (tmp_path / "rows.csv").read_text()


def test_the_command(tmp_path, capsys):
    file = tmp_path / "rows.csv"
    arguments = ["study", str(file), "--mechanisms", "none,se", "--seeds", "1", "--epochs", "1"]
    arguments += ["--train-images", "60", "--test-images", "40", "--option", "se.reduction=2"]
    assert main(arguments) == 0
    assert re.search(r"^none +\d", capsys.readouterr().out, re.MULTILINE)
    (plain, _), (gated, _) = read_rows(file)
    assert isinstance(plain, Run) and gated.options == '{"reduction": 2}'


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--mechanisms", "none,see"], "did you mean 'se'?"),
        (["--mechanisms", "se", "--option", "reduction=2"], "expected an option as MECHANISM.NAME=VALUE"),
        (["--mechanisms", "se", "--train-images", "9999"], "train_images=9999, but digits has only 1287"),
        (["--mechanisms", "se", "--data", "digit"], "source='digit' is none of 'digits'"),
        (["--mechanisms", "se", "--data", "cued", "--backbone", "resnet20"], "use the backbone 'small'"),
        (["--mechanisms", "se", "--images", "EMPTY"], "EMPTY"),
        (["--mechanisms", "se", "--scheduler", "nowhere"], "nowhere"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    assert main(["study", "rows.csv", "--seeds", "1", "--epochs", "1", *arguments]) == 2
    error = capsys.readouterr().err
    assert "attnlib study: " in error and said in error


def test_without_git_there_is_no_revision(monkeypatch):
    runs.revision.cache_clear()
    monkeypatch.setenv("PATH", "")
    assert runs.revision() == ""
    runs.revision.cache_clear()
    monkeypatch.undo()
    assert re.fullmatch(r"([0-9a-f]{12}\+?)?", runs.revision()) and ROOT.exists()
