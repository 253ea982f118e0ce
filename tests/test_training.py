"""The loop learns, repeats itself, and says what went wrong."""

import pytest
import torch
from torch import nn

from attnlib.lab.data import Images, load_digits
from attnlib.lab.training import NonFiniteLossError, accuracy, classification_loss, train


def blobs(n=60):
    """Two classes that a linear layer tells apart: dark and bright images of 2x3 pixels."""
    labels = torch.arange(n) % 2
    images = labels[:, None, None, None] + 0.1 * torch.rand(
        n, 1, 2, 3, generator=torch.Generator().manual_seed(4)
    )
    return Images(images.float(), labels, ("dark", "bright"))


def linear(seed=0, dropout=0.0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(6, 2))


def test_it_learns_and_leaves_the_model_in_eval():
    data, model = blobs(), linear()
    losses = train(model, data, epochs=20, batch_size=16, learning_rate=0.1, progress=False)
    assert len(losses) == 20 * 4 and losses[-1] < 0.1 < losses[0]
    assert accuracy(model, data) == 1.0
    assert not model.training


def test_the_first_loss_is_that_of_the_untrained_model():
    data, model = blobs(12), linear()
    expected = classification_loss(model, data).item()
    assert train(model, data, epochs=1, batch_size=12, progress=False) == [pytest.approx(expected, abs=1e-6)]


def test_the_loss_is_the_mean_of_minus_log_probability_of_the_class():
    data, model = blobs(5), linear()
    probabilities = model(data.images).softmax(1)
    by_hand = -sum(p[label].log() for p, label in zip(probabilities, data.labels, strict=True)) / 5
    assert classification_loss(model, data).item() == pytest.approx(by_hand.item())


def test_the_steps_are_adams():
    data, model, by_hand = blobs(5), linear(), linear()
    train(model, data, epochs=3, progress=False)
    adam = torch.optim.Adam(by_hand.parameters(), lr=1e-3)
    for _ in range(3):
        adam.zero_grad()
        classification_loss(by_hand, data).backward()
        adam.step()
    for p, q in zip(model.parameters(), by_hand.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_seed_decides_batches_and_dropout(dropout):
    def losses(seed, drawn_before):
        model = linear(dropout=dropout)
        torch.manual_seed(drawn_before)
        return train(model, blobs(), epochs=2, batch_size=16, seed=seed, progress=False)

    assert losses(3, 10) == losses(3, 11) != losses(4, 11)


def test_without_other_wishes_a_batch_has_64_images_and_the_seed_is_0():
    losses = train(linear(), blobs(130), epochs=1, progress=False)
    assert losses == train(linear(), blobs(130), epochs=1, batch_size=64, seed=0, progress=False)
    assert len(losses) == 3


def test_epochs_are_shuffled_differently():
    seen = []

    def loss(model, batch):
        assert model.training
        seen.append(batch.labels.tolist())
        return classification_loss(model, batch)

    for seed in (0, 1):
        train(linear().eval(), blobs(), epochs=2, batch_size=60, seed=seed, loss=loss, progress=False)
    assert len({tuple(labels) for labels in seen}) == 4  # nor does one seed repeat the other's epochs
    assert sorted(seen[0]) == sorted(seen[1])


def test_progress_goes_to_stderr_only_if_asked_for(capsys):
    train(linear(), blobs(), epochs=1, progress=False)
    assert capsys.readouterr() == ("", "")
    train(linear(), blobs(), epochs=1)
    assert "epochs" in capsys.readouterr().err


@pytest.mark.no_shape_hook
@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"epochs": 0}, "epochs=0 should be a whole number of at least 1"),
        ({"epochs": 1, "batch_size": 0}, "batch_size=0 should be a whole number of at least 1"),
        ({"epochs": 1, "learning_rate": 0.0}, r"learning_rate=0\.0 should be above 0"),
        ({"epochs": 1, "learning_rate": float("nan")}, "learning_rate=nan should be above 0"),
    ],
)
def test_arguments_are_checked(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        train(linear(), blobs(), **wrong, progress=False)


class Explodes(nn.Module):
    def forward(self, x):
        return x.log()


def test_infinite_data_are_named():
    data = blobs()
    data.images[7] = float("inf")
    with pytest.raises(
        NonFiniteLossError, match=r"at step \d+: the batch itself holds values that are not finite"
    ):
        train(linear(), data, epochs=1, batch_size=16, progress=False)


def test_a_parameter_that_ran_away_is_named():
    model = linear()
    model[2].bias.data[1] = float("nan")
    with pytest.raises(NonFiniteLossError, match=r"at step 0: the parameter 2\.bias is no longer finite"):
        train(model, blobs(), epochs=1, progress=False)


def test_the_first_module_that_goes_wrong_is_named():
    data = blobs()
    model = nn.Sequential(nn.Flatten(), nn.Hardshrink(2.0), Explodes(), nn.Linear(6, 2))
    with pytest.raises(NonFiniteLossError, match=r"at step 0: the output of 2 \(Explodes\) is the first"):
        train(model, data, epochs=1, progress=False)
    assert not any(module._forward_hooks for module in model.modules())


class Spoils(nn.Module):
    """Holds a layer that returns a pair, and spoils one entry of its own output."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(6, 2)

    def forward(self, x):
        y = self.gru(x.flatten(1))[0]
        return torch.cat([y[:1] + float("inf"), y[1:]])


def test_modules_that_return_pairs_are_passed_over_and_the_model_itself_is_named():
    with pytest.raises(
        NonFiniteLossError, match=r"at step 0: the output of the model \(Spoils\) is the first"
    ):
        train(Spoils(), blobs(), epochs=1, loss=lambda m, b: m(b.images).sum(), progress=False)


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_loss_that_goes_wrong_is_named(value):
    def loss(model, batch):
        return model(batch.images).sum() * float(value)

    with pytest.raises(
        NonFiniteLossError, match="the model's output is finite, so the loss function makes it so"
    ):
        train(linear(), blobs(), epochs=1, loss=loss, progress=False)


def test_the_weights_are_those_before_the_bad_step():
    model, kept = linear(), []

    def loss(model, batch):
        kept.append(model[2].weight.detach().clone())
        return classification_loss(model, batch) * (float("nan") if len(kept) == 3 else 1)

    with pytest.raises(NonFiniteLossError, match="at step 2"):
        train(model, blobs(), epochs=1, batch_size=16, loss=loss, progress=False)
    assert torch.equal(model[2].weight, kept[2]) and not torch.equal(kept[0], kept[1])


def test_accuracy_is_taken_in_eval_and_leaves_the_mode_alone():
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(64, 10)).train()
    digits = load_digits("test")
    assert accuracy(model, digits) == accuracy(model, digits)
    assert model.training
    model.register_forward_hook(
        lambda *_: pytest.fail("gradients are kept") if torch.is_grad_enabled() else None
    )
    nn.init.zeros_(model[2].weight)
    model[2].bias.data = torch.arange(10).float()  # always says 9
    assert accuracy(model, digits) == pytest.approx((digits.labels == 9).float().mean().item())
