"""The runs behind part 10 of 08_squeeze_and_excitation: SE on the cards, by reduction and seed.

python notebooks/runs/08_reduction.py    writes data/results/08_reduction.csv; about a minute
"""

import pandas as pd
import torch

from attnlib import SqueezeExcitation
from attnlib.lab.data import cued_digits, data_folder
from attnlib.lab.small_network import learn
from attnlib.lab.training import accuracy

torch.set_num_threads(1)
cards = {"n": 2000, "seed": 0}
new_cards = {"n": 500, "split": "test", "seed": 1}
recipe = {"groups": 2, "epochs": 8, "batch_size": 50, "learning_rate": 0.015}

data, test = cued_digits(**cards), cued_digits(**new_cards)
rows = []
for reduction in (1, 2, 4, 8, 16):
    for seed in range(10):
        network = learn(data, lambda r=reduction: SqueezeExcitation(16, reduction=r), seed=seed, **recipe)
        result = {"reduction": reduction, "seed": seed, "accuracy": accuracy(network, test)}
        settings = {"cards": len(data), "new_cards": len(test), "torch": torch.__version__.split("+")[0]}
        rows.append(result | recipe | settings)
    print(f"reduction {reduction}: {sum(row['accuracy'] for row in rows[-10:]) / 10:.2f}", flush=True)
pd.DataFrame(rows).round(4).to_csv(data_folder() / "results" / "08_reduction.csv", index=False)
