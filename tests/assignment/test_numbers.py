"""The right answers, computed another way, and the mistakes that they are compared with."""

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from assignment import TASKS, known, mistakes
from assignment.answers import explain, wrong_parts
from assignment.inputs import ask

FUNCTIONS = [task.name for task in TASKS if task.file]


@pytest.mark.parametrize("seed", [1, 2])
def test_values_equal_torch_distributions(seed):
    x = ask("kl_normal", seed)
    posterior = Normal(x["m"], x["v"].sqrt())
    expected = {
        "kl_normal": kl_divergence(posterior, Normal(x["other m"], x["other v"].sqrt())).sum(-1),
        "log_normal": posterior.log_prob(x["other m"]).sum(-1),
        "log_bernoulli_with_logits": Bernoulli(logits=x["logits of bits"])
        .log_prob(x["bits"])
        .sum(-1),
    }
    for name, values in expected.items():
        found = torch.tensor(mistakes.answers(name, seed)["result"]["result"].values)
        torch.testing.assert_close(found.float(), values, rtol=1e-5, atol=1e-5)
    x = ask("negative_elbo_bound", seed)
    kl = kl_divergence(Normal(x["m"], x["v"].sqrt()), Normal(torch.zeros(2), torch.ones(2)))
    rec = -Bernoulli(logits=x["logits"]).log_prob(x["x"]).sum(-1)
    shown = mistakes.answers("negative_elbo_bound", seed)["shown"]
    assert shown["KL"].values[0] == pytest.approx(kl.sum(-1).mean().item(), rel=1e-5)
    assert shown["REC"].values[0] == pytest.approx(rec.mean().item(), rel=1e-5)
    assert (rec[:, None] - rec).abs().fill_diagonal_(200).min() > 104  # exp of it is 0.


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if "iwae" not in name])
def test_our_solution_is_right_for_other_noise(name):
    for _ in range(3):
        assert not wrong_parts(mistakes.answers.__wrapped__(name, 3), mistakes.answers(name, 3))


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_mistake_changes_an_answer_and_is_told_apart(name):
    rows, right = mistakes.table()[name], mistakes.answers(name, 5)
    made = [each for each in mistakes.mistakes(name, 5) if each.function == name]
    assert {sentence for _, sentence in rows} == {each.sentence for each in made}
    for mistake in made:
        told, unexplained = explain(name, right | mistake.parts, right, made)
        assert [each.sentence for each in told] == [mistake.sentence]
        assert not unexplained


@pytest.mark.parametrize("name", [task.name for task in TASKS])
def test_the_file_of_a_hand_out_is_up_to_date(name):
    numbers = known.numbers()[name]
    assert not wrong_parts(mistakes.answers(name, 0), known.unpacked(numbers["right"]))
    sentences = {sentence for sentence, *_ in numbers["wrong"]}
    assert {sentence for _, sentence in mistakes.table()[name]} <= sentences
