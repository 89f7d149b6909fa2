"""Wrong solutions as students write them, none of them a line of the table in mistakes.md.

Each is a task, a part of the solution `randn_like_v`, the text in its place, and words of the
sentence that the check has to print.
"""

RIGHT = {
    "sample_gaussian": """\
    eps = torch.randn_like(v)
    std = torch.sqrt(v)
    return m + std * eps
""",
    "kl_normal": """\
    dim = qm.shape[1]
    trace = (qv / pv).sum(dim=1)
    mahalanobis = ((pm - qm) * (pm - qm) / pv).sum(dim=1)
    log_det = torch.log(pv).sum(dim=1) - torch.log(qv).sum(dim=1)
    return 0.5 * (log_det + trace + mahalanobis - dim)
""",
    "log_bernoulli_with_logits": """\
    return -F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(dim=1)
""",
    "negative_elbo_bound": """\
        z = ut.sample_gaussian(m, v)
        logits = self.dec.decode(z)
        # the prior is (1,), so it has to be expanded to (batch, z_dim)
        pm = self.z_prior_m.expand(batch, self.z_dim)
        pv = self.z_prior_v.expand(batch, self.z_dim)
        kl = torch.mean(ut.kl_normal(m, v, pm, pv))
        rec = -torch.mean(ut.log_bernoulli_with_logits(x, logits))
        nelbo = rec + kl
        return nelbo, kl, rec
""",
    "visualize_samples": "    x = model.sample_x(num_samples)\n",
    "negative_iwae_bound": "        niwae = -torch.mean(ut.log_mean_exp(log_weight, dim=0))\n",
}
SG, KL, LB, EL, VS, IW = RIGHT
CROSS_ENTROPY = 'F.binary_cross_entropy_with_logits(logits, x, reduction="none")'
LOGARITHMS = "(-x * torch.log(p := torch.sigmoid(logits)) - (1 - x) * torch.log(1 - p))"
DETACHED = "torch.distributions.Normal(m, std).sample()"
NUMPY = "torch.tensor(__import__('numpy').random.normal(m.tolist(), std.tolist())).float()"
DIVERGENCE = "ut.kl_normal(m, v, pm, pv)"
SAMPLED = "ut.log_normal(z, m, v) - ut.log_normal(z, pm, pv)"
DIVERGENCES = "torch.distributions.kl_divergence(*(torch.distributions.Normal(m, v.sqrt())"
DIVERGENCES += " for m, v in ((qm, qv), (pm, pv)))).sum(1)"
UNIFORM = "model.sample_x_given(model.sample_z(200).uniform_())"
WRONG = {
    "the variance as the deviation": (SG, "= torch.sqrt(v)", "= v", "used as the deviation"),
    ".sample()": (SG, "m + std * eps", DETACHED, "no gradient passes"),
    "torch.normal": (SG, "m + std * eps", "torch.normal(m, std)", "no gradient passes"),
    "numpy's noise": (SG, "m + std * eps", NUMPY, "no gradient passes"),
    "one noise": (SG, "randn_like(v)", "randn(1, v.shape[1])", "serves the whole batch"),
    "no scale": (SG, "std * eps", "eps", "no scale"),
    "a logarithm": (SG, "torch.sqrt(v)", "torch.exp(0.5 * v)", "logarithm of the variance"),
    "uniform noise": (SG, "torch.randn_like(v)", "torch.rand_like(v)", "uniform"),
    "a seed inside": (SG, "eps = ", "torch.manual_seed(1); eps = ", "set no seed"),
    "no return": (SG, "return m", "z = m", "nothing is returned"),
    "exchanged": (KL, "dim = qm", "qm, qv, pm, pv = pm, pv, qm, qv; dim = qm", "compute KL(q, p)"),
    "a missing -1": (KL, " - dim)", ")", "-1 of each dimension is missing"),
    "-1 once": (KL, "- dim)", "- 1)", "has its -1 once"),
    "a column": (KL, "- dim)", "- dim)[:, None]", "a dimension too many"),
    "deviations": (KL, "dim = qm", "qv, pv = qv.sqrt(), pv.sqrt(); dim = qm", "deviations stand"),
    "averaged over pixels": (LB, "sum(dim=1)", "mean(dim=1)", "averaged over the pixels"),
    "a squared error": (LB, CROSS_ENTROPY, "((x - logits.sigmoid()) ** 2)", "a squared error"),
    "probabilities": (LB, CROSS_ENTROPY, LOGARITHMS, "rounded"),
    "the mean decoded": (EL, "ut.sample_gaussian(m, v)", "m", "the mean is decoded"),
    "detached": (EL, "decode(z)", "decode(z.detach())", "no gradient passes through z"),
    "a prior's z": (EL, "ut.sample_gaussian(m, v)", "torch.randn_like(m)", "from the prior"),
    "a root too many": (EL, "gaussian(m, v)", "gaussian(m, v**0.5)", "a root"),
    "KL of the sample": (EL, DIVERGENCE, SAMPLED, "right on average"),
    "KL by hand": (EL, DIVERGENCE, "-0.5 * (1 + v - m**2 - v.exp()).sum(-1)", "logarithm of the"),
    "both summed": (EL, "torch.mean", "torch.sum", "KL and REC are summed"),
    "nothing averaged": (EL, "torch.mean", "", "a number for each image"),
    "REC of a pixel": (EL, "(x, logits))", "(x, logits)) / 784", "averaged over the pixels"),
    "REC - KL": (EL, "rec + kl", "rec - kl", "NELBO is REC - KL"),
    "no KL": (EL, "rec + kl", "rec", "the KL is missing in NELBO"),
    "another order": (EL, "return nelbo, kl, rec", "return nelbo, rec, kl", "the order is"),
    "numbers": (EL, "nelbo, kl, rec", "float(nelbo), float(kl), float(rec)", "numbers"),
    "NELBO alone": (EL, "return nelbo, kl, rec", "return nelbo", "only NELBO"),
    "grey pixels": (VS, "sample_x", "sample_sigmoid", "are grey"),
    "uniform latents": (VS, "model.sample_x(num_samples)", UNIFORM, "z is uniform"),
}
# A right solution.
BY_DISTRIBUTIONS = SG, "m + std * eps", "torch.distributions.Normal(m, std).rsample()"
# Mistakes without a sentence.
UNKNOWN = {
    "a weight": (EL, "rec + kl", "rec + 3 * kl"),
    "a shift": (KL, "- dim)", "- dim) + 0.3"),
    "another distribution": (SG, "torch.randn_like(v)", "torch.randn_like(v) ** 3"),
}
