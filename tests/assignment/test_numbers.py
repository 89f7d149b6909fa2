"""The numbers that solutions are judged by, computed another way, and the table of mistakes."""

import json
import math
import re

import pytest
import torch
from make_numbers import SECTIONS, expected, known
from torch.distributions import Bernoulli, Normal, kl_divergence

from assignment import TASKS
from assignment.answers import BITS, LOGITS, OTHER, M, V, X
from assignment.check import NUMBERS, differing

KNOWN = json.loads(NUMBERS.read_text())
POSTERIOR, PRIOR = Normal(M, V.sqrt()), Normal(torch.zeros(2), torch.ones(2))
KL = kl_divergence(POSTERIOR, PRIOR).sum(-1)
REC = -Bernoulli(logits=LOGITS).log_prob(X).sum(-1)


def right(name, words):
    (values, errors) = KNOWN[name]["right"][words]
    return torch.tensor(values), torch.tensor(errors)


@pytest.mark.parametrize(
    ("name", "words", "values"),
    [
        (
            "kl_normal",
            "result (2)",
            kl_divergence(POSTERIOR, Normal(OTHER[0], OTHER[1].sqrt())).sum(-1),
        ),
        ("log_normal", "result (2)", POSTERIOR.log_prob(OTHER[0]).sum(-1)),
        (
            "log_bernoulli_with_logits",
            "result (2)",
            Bernoulli(logits=BITS[1]).log_prob(BITS[0]).sum(-1),
        ),
        ("negative_elbo_bound", "KL", KL.mean()),
        ("negative_elbo_bound", "REC", REC.mean()),
        ("negative_elbo_bound", "NELBO", (KL + REC).mean()),
        ("negative_iwae_bound", "KL", KL.mean()),
        ("negative_iwae_bound", "REC", REC.mean()),
        ("train", "NELBO", torch.tensor(100.0)),
    ],
)
def test_values_are_those_of_torch_distributions(name, words, values):
    torch.testing.assert_close(right(name, words)[0], values.view(-1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["sample_gaussian", "negative_elbo_bound"])
def test_moments_are_those_of_the_posterior_with_five_standard_errors(name):
    word, n = {"sample_gaussian": ("result", 8_000)}.get(name, ("z", 2_000))
    moments = {
        "mean": (M, (V / n).sqrt()),
        "variance": (V, V * math.sqrt(2 / n)),
        "mean absolute deviation": (
            (V * 2 / math.pi).sqrt(),
            (V * (1 - 2 / math.pi) / n).sqrt(),
        ),
    }
    for moment, (values, error) in moments.items():
        mean, five = right(name, f"{moment} of {word}")
        assert ((mean - values.flatten()).abs() < five / 5).all()
        assert (five / (5 * error.flatten()) - 1).abs().max() < 0.5


def test_the_importance_weighted_bound_is_between_its_limits():
    value, error = right("negative_iwae_bound", "NIWAE")
    assert REC.mean() + error < value < (KL + REC).mean() - error


@pytest.mark.slow
@pytest.mark.parametrize("name", [task.name for task in TASKS])
def test_the_file_is_up_to_date(name):
    """As far as few draws show. What writes the file is `make_numbers`."""
    now = expected(name, name, "", 2)
    assert not differing({words: each[0] for words, each in now.items()}, KNOWN[name]["right"])
    rows = re.findall(r"\n\| `(.*)` \| (.*) \|", SECTIONS[name])
    sentences = [sentence for sentence, _ in KNOWN[name]["wrong"]]
    assert [sentence for _, sentence in rows] == sentences[: len(rows)]
    for (line, _), (_, changes) in zip(rows[::5], KNOWN[name]["wrong"][::5], strict=False):
        made = expected(name, name, line, 2)
        assert {words for words, each in changes.items() if each} <= set(made)
        assert {words for words, each in changes.items() if not each}.isdisjoint(made)


def test_every_mistake_is_another_number_than_what_is_right():
    for name in SECTIONS:
        for sentence, changes in KNOWN[name]["wrong"]:
            values = {words: each[0] for words, each in changes.items() if each}
            assert differing(values, KNOWN[name]["right"]), sentence


def test_every_task_has_an_example_and_mistakes():
    assert list(KNOWN) == list(SECTIONS)
    assert set(KNOWN) == {task.name for task in TASKS}
    assert known.__doc__
    for each in KNOWN.values():
        assert len(each["example"]) > 80
        assert len(each["wrong"]) >= 5
