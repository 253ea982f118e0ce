"""The stored runs behind part 9 of 16_hrnet, one row a trained network and kind of weights.

    python notebooks/runs/16_hrnet.py

writes data/results/16_keypoints.csv; about twenty minutes on one core.
"""

import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from attnlib.backbone import HRNet
from attnlib.backbone.hrnet import Design
from attnlib.lab.data import batches, cluttered_digits, data_folder
from attnlib.lab.keypoints import DownUp, heatmaps, read_heatmaps

SMALL = Design(8, bottlenecks=1, bottleneck_width=16, units=(1, 1, 1), blocks=1)
WIDER = Design(9, bottlenecks=1, bottleneck_width=16, units=(1, 1, 1), blocks=1)
EMA = {"attention": "ema", "options": {"groups": 2}}


class Silence(nn.Module):
    """A path between two branches that says nothing."""

    def forward(self, x):
        return torch.zeros_like(x[:, :1])


def without_exchange():
    """HRNet whose fusions keep each branch to itself."""
    model = HRNet(SMALL, classes=3, head="keypoints")
    for unit in (unit for stage in model.stages for unit in stage):
        for i, paths in enumerate(unit.fusion):
            for j in range(len(paths)):
                paths[j] = paths[j] if i == j else Silence()
    return model


VARIANTS = {
    "HRNet": lambda: HRNet(SMALL, classes=3, head="keypoints"),
    "down-up": lambda: DownUp(WIDER, 3),
    "HRNet, no exchange": without_exchange,
    "HRNet, EMA in all blocks": lambda: HRNet(SMALL, classes=3, head="keypoints", at="blocks", **EMA),
}
RECIPE = {"images": 2000, "epochs": 10, "batch_size": 50, "learning_rate": 0.002, "decay": 0.98}


@torch.no_grad()
def share_within_two(model, cards):
    """The share of key-points that the model finds within two pixels."""
    model.eval()
    images = cards.images.expand(-1, 3, -1, -1)
    found = torch.cat([read_heatmaps(model(part), image=32) for part in images.split(100)])
    return ((found - cards.keypoints).norm(dim=2) < 2).double().mean().item()


def run(variant, seed, cards, test):
    torch.manual_seed(seed)
    model = VARIANTS[variant]()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(RECIPE["decay"]), use_buffers=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=RECIPE["learning_rate"])
    curves = {"live": [], "averaged": []}
    for epoch in range(RECIPE["epochs"]):
        model.train()
        for batch in batches(cards, RECIPE["batch_size"], seed=seed + 1000 * epoch):
            wanted = heatmaps(batch.keypoints, 8, image=32)
            loss = F.mse_loss(model(batch.images.expand(-1, 3, -1, -1)), wanted)
            optimizer.zero_grad(), loss.backward(), optimizer.step()
            average.update_parameters(model)
        for kind, network in (("live", model), ("averaged", average)):
            curves[kind].append(share_within_two(network, test))
    parameters = sum(p.numel() for p in model.parameters())
    return [
        {
            "variant": variant,
            "seed": seed,
            "weights": kind,
            "parameters": parameters,
            "within_2": round(curve[-1], 4),
            "curve": ";".join(f"{share:.4f}" for share in curve),
            **RECIPE,
            "torch": torch.__version__.split("+")[0],
        }
        for kind, curve in curves.items()
    ]


def main():
    torch.set_num_threads(1)
    cards, test = cluttered_digits(RECIPE["images"]), cluttered_digits(500, split="test", seed=1)
    rows = []
    for seed in range(10):
        for variant in VARIANTS:
            rows += run(variant, seed, cards, test)
            print(variant, seed, [row["within_2"] for row in rows[-2:]], flush=True)
            table = pd.DataFrame(rows)
            table.to_csv(data_folder() / "results" / "16_keypoints.csv", index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
