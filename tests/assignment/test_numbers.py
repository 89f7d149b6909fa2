"""The numbers that solutions are compared with, computed another way, and the mistakes."""

import json
import math
import re

import pytest
import torch
from make_numbers import SECTIONS, ranges
from torch.distributions import Bernoulli, Normal, kl_divergence

from assignment import TASKS
from assignment.answers import BIT_LOGITS, BITS, LOGITS, OTHER_M, OTHER_V, M, V, X
from assignment.check import NUMBERS, mismatched_keys

KNOWN = json.loads(NUMBERS.read_text())
POSTERIOR, PRIOR = Normal(M, V.sqrt()), Normal(torch.zeros(2), torch.ones(2))
KL = kl_divergence(POSTERIOR, PRIOR).sum(-1)
REC = -Bernoulli(logits=LOGITS).log_prob(X).sum(-1)


def right(name, key):
    values, errors = KNOWN[name]["right"][key]
    return torch.tensor(values), torch.tensor(errors)


@pytest.mark.parametrize(
    ("name", "key", "values"),
    [
        (
            "kl_normal",
            "result (2)",
            kl_divergence(POSTERIOR, Normal(OTHER_M, OTHER_V.sqrt())).sum(-1),
        ),
        ("log_normal", "result (2)", POSTERIOR.log_prob(OTHER_M).sum(-1)),
        (
            "log_bernoulli_with_logits",
            "result (2)",
            Bernoulli(logits=BIT_LOGITS).log_prob(BITS).sum(-1),
        ),
        ("negative_elbo_bound", "KL", KL.mean()),
        ("negative_elbo_bound", "REC", REC.mean()),
        ("negative_elbo_bound", "NELBO", (KL + REC).mean()),
        ("negative_iwae_bound", "KL", KL.mean()),
        ("negative_iwae_bound", "REC", REC.mean()),
        ("train", "NELBO", torch.tensor(100.0)),
    ],
)
def test_values_equal_torch_distributions(name, key, values):
    torch.testing.assert_close(right(name, key)[0], values.view(-1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["sample_gaussian", "negative_elbo_bound"])
def test_moments_and_errors_equal_those_of_the_posterior(name):
    samples, n = {"sample_gaussian": ("result", 8_000)}.get(name, ("z", 2_000))
    moments = {
        "mean": (M, (V / n).sqrt()),
        "variance": (V, V * math.sqrt(2 / n)),
        "mean absolute deviation": (
            (V * 2 / math.pi).sqrt(),
            (V * (1 - 2 / math.pi) / n).sqrt(),
        ),
    }
    for moment, (values, error) in moments.items():
        mean, five = right(name, f"{moment} of {samples}")
        assert ((mean - values.flatten()).abs() < five / 5).all()
        assert (five / (5 * error.flatten()) - 1).abs().max() < 0.5


def test_the_importance_weighted_bound_lies_between_its_limits():
    value, error = right("negative_iwae_bound", "NIWAE")
    assert REC.mean() + error < value < (KL + REC).mean() - error


@pytest.mark.slow
@pytest.mark.parametrize("name", [task.name for task in TASKS])
def test_the_file_is_up_to_date(name):
    """Few samples of what `make_numbers` writes lie within the tolerances of the file."""
    now = ranges(name, name, "", 2)
    assert not mismatched_keys({key: each[0] for key, each in now.items()}, KNOWN[name]["right"])
    rows = re.findall(r"\n\| `(.*)` \| (.*) \|", SECTIONS[name])
    sentences = [sentence for sentence, _ in KNOWN[name]["wrong"]]
    assert [sentence for _, sentence in rows] == sentences[: len(rows)]
    for (line, _), (_, changes) in zip(rows[::5], KNOWN[name]["wrong"][::5], strict=False):
        made = ranges(name, name, line, 2)
        assert {key for key, each in changes.items() if each} <= set(made)
        assert {key for key, each in changes.items() if not each}.isdisjoint(made)


def test_every_mistake_changes_an_answer():
    for name in SECTIONS:
        for sentence, changes in KNOWN[name]["wrong"]:
            values = {key: each[0] for key, each in changes.items() if each}
            assert mismatched_keys(values, KNOWN[name]["right"]), sentence


def test_every_task_has_an_example_and_mistakes():
    assert list(KNOWN) == list(SECTIONS)
    assert set(KNOWN) == {task.name for task in TASKS}
    for each in KNOWN.values():
        assert len(each["example"]) > 80
        assert len(each["wrong"]) >= 5
