"""The right answers, computed another way, and the mistakes that they are compared with."""

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from assignment import TASKS, mistakes
from assignment.answers import explain, known_mistakes, right_answers, wrong_parts
from assignment.describe import describe
from assignment.inputs import Encoder, ask
from assignment.judging import SEED
from assignment.probe import probe
from codebase.utils import gaussian_parameters

FUNCTIONS = [task.name for task in TASKS if task.file]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_values_equal_torch_distributions(seed):
    x = ask("kl_normal", seed)
    posterior, bits = Normal(x["m"], x["v"].sqrt()), Bernoulli(logits=x["logits of bits"])
    expected = {
        "kl_normal": kl_divergence(posterior, Normal(x["other m"], x["other v"].sqrt())).sum(-1),
        "log_normal": posterior.log_prob(x["other m"]).sum(-1),
        "log_bernoulli_with_logits": bits.log_prob(x["bits"]).sum(-1),
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


def test_inputs_are_new_where_our_solution_can_answer_them():
    """Answers that are copied from the file of a hand-out get no points."""
    new, old = (ask("kl_normal", seed)["m"] for seed in (SEED, 0))
    assert not torch.equal(new, old)


def test_the_layers_of_the_encoder_alone_give_its_posteriors():
    inputs = ask("negative_elbo_bound", 1)
    enc = Encoder(inputs)
    torch.testing.assert_close(gaussian_parameters(enc.net(inputs["x"])), enc.encode(inputs["x"]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sample_gaussian", "negative_elbo_bound", "sample_x"])
def test_our_solution_is_right_for_other_noise(name):
    inputs, right = ask(name, 3), mistakes.answers(name, 3)
    for _ in range(3):
        sent = describe(name, inputs, probe(name, mistakes.solution(name, "", ""), inputs))
        assert not wrong_parts(sent, right)
    # The tolerance is a multiple of the error in the right answer. A student's has to be as small.
    for key, quantity in sent.get("z", {}).items():
        assert quantity.errors == pytest.approx(right["z"][key].errors, rel=0.4)


def test_gradients_that_cancel_are_told_apart_from_none():
    task, inputs = "negative_elbo_bound", ask("negative_elbo_bound", 3)
    of_logits = inputs["logits"].sigmoid() - inputs["x"]
    inputs["slopes"] = -(torch.linalg.pinv(of_logits) @ inputs["m"]).T  # REC's at m is minus KL's.
    lines = ("", "", "return (kl + rec).detach(), kl, rec")
    records = [probe(task, mistakes.solution(task, task, line), inputs) for line in lines]
    right, same, detached = (describe(task, inputs, record) for record in records)
    assert not wrong_parts(same, right) and wrong_parts(detached, right)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_mistake_is_told_apart(name):
    right, own = right_answers(name, 0), [x for x in known_mistakes(name) if x.function == name]
    assert {sentence for _, sentence in mistakes.table()[name]} == {each.sentence for each in own}
    for mistake in own:
        told = explain(name, right | mistake.parts, right, own)
        assert [each.sentence for each in told] == [mistake.sentence]


@pytest.mark.slow
@pytest.mark.parametrize("name", [task.name for task in TASKS])
def test_the_file_of_a_hand_out_is_up_to_date(name):
    """Of the mistakes, which take long, only some are compared."""
    assert not wrong_parts(mistakes.answers(name, 0), right_answers(name, 0))
    stored = known_mistakes(name)
    for line, sentence in mistakes.table()[name][1::12]:
        found = mistakes.answers(name, 0, name, line)
        assert min(each.distance(found) for each in stored if each.sentence == sentence) <= 1
