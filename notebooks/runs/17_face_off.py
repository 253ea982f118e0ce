"""The stored runs of 17_face_off.

    python notebooks/runs/17_face_off.py costs             # two minutes, on a quiet machine
    python notebooks/runs/17_face_off.py trainings IMAGES  # some hours on two cores

"costs" writes data/results/17_costs.csv: parameters, multiply-accumulates, time and memory of each network.
"trainings" writes data/results/17_cifar10.csv and 17_rates.csv from a folder of images with the sub-folders
train and test and a folder for each class in them (CIFAR-10 as pictures). It carries on where it was
interrupted. It is the same as the commands `attnlib study` that data/README.md gives.
"""

import argparse
import json

import pandas as pd
import torch

from attnlib.lab.cost import count_macs, saved_bytes, time_against
from attnlib.lab.data import Images, data_folder
from attnlib.lab.runs import build_network
from attnlib.lab.study import grid, study

MECHANISMS = ["none", "half", "se", "eca", "cbam", "sam", "nam", "gam", "ema", "nonlocal"]
MECHANISMS += ["coordinate", "simam"]
SETTING = {
    "backbone": "resnet20",
    "image": 16,
    "train_images": 10_000,
    "test_images": 5_000,
    "epochs": 10,
    "batch_size": 100,
    "flips": True,
}


def trainings(images: str, jobs: int) -> None:
    results = data_folder() / "results"
    studies = [
        ("17_cifar10", MECHANISMS, range(5), [0.1]),
        ("17_rates", MECHANISMS[:3], range(3), [0.05]),
    ]
    for name, mechanisms, seeds, rates in studies:
        for rate in rates:
            runs = grid(mechanisms, seeds=seeds, source=images, learning_rate=rate, **SETTING)
            study(runs, results / f"{name}.csv", source=images, jobs=jobs)


def costs() -> None:
    """One network after the other beside the plain one, on one thread."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = torch.randn(100, 3, 16, 16)
    there = Images(images=x[:10], labels=torch.arange(10), classes=[str(i) for i in range(10)])
    rows, plain = [], None
    for run in grid(MECHANISMS, seeds=[0], source="cluttered", backbone="resnet20"):
        network = build_network(run, there)
        plain = plain or network
        rows.append(
            {
                "mechanism": run.mechanism,
                "options": json.loads(run.options),
                "parameters": sum(p.numel() for p in network.parameters()),
                "macs": count_macs(network, x[:1]),
                "time": round(time_against(network, plain, x, repeats=40), 3),
                "memory": round(saved_bytes(network.train(), x) / saved_bytes(plain.train(), x), 3),
                "batch_size": len(x),
                "image": x.shape[2],
                "torch": torch.__version__.partition("+")[0],
            }
        )
        print(rows[-1], flush=True)
    pd.DataFrame(rows).to_csv(data_folder() / "results" / "17_costs.csv", index=False, lineterminator="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("part", choices=["costs", "trainings"])
    parser.add_argument("images", nargs="?", help="the image folder, for the trainings")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    options = parser.parse_args()
    if options.part == "costs":
        costs()
    elif options.images:
        trainings(options.images, options.jobs)
    else:
        parser.error("trainings need the image folder")


if __name__ == "__main__":
    main()
