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
}
SG, KL, LB, EL, VS = RIGHT
WRONG = {
    "the variance as the deviation": (
        SG,
        "std = torch.sqrt(v)",
        "std = v",
        "used as the deviation",
    ),
    "a distribution of the variance": (
        SG,
        "return m + std * eps",
        "return torch.distributions.Normal(m, v).rsample()",
        "used as the deviation",
    ),
    ".sample()": (
        SG,
        "return m + std * eps",
        "return torch.distributions.Normal(m, std).sample()",
        "no gradient passes",
    ),
    "torch.normal": (SG, "m + std * eps", "torch.normal(m, std)", "no gradient passes"),
    "numpy's noise": (
        SG,
        "m + std * eps",
        "torch.tensor(__import__('numpy').random.normal(m.tolist(), std.tolist())).float()",
        "no gradient passes",
    ),
    "one noise of the batch": (
        SG,
        "randn_like(v)",
        "randn(1, v.shape[1])",
        "serves the whole batch",
    ),
    "one noise of an image": (SG, "randn_like(v)", "randn(v.shape[0])[:, None]", "all dimensions"),
    "no scale": (SG, "std * eps", "eps", "no scale"),
    "a logarithm": (SG, "torch.sqrt(v)", "torch.exp(0.5 * v)", "logarithm of the variance"),
    "nothing drawn": (SG, "torch.randn_like(v)", "torch.zeros_like(v)", "without noise"),
    "uniform noise": (SG, "torch.randn_like(v)", "torch.rand_like(v)", "uniform"),
    "a seed inside": (SG, "eps = ", "torch.manual_seed(1); eps = ", "set no seed"),
    "no return": (SG, "return m", "z = m", "nothing is returned"),
    "exchanged": (KL, "dim = qm", "qm, qv, pm, pv = pm, pv, qm, qv; dim = qm", "compute KL(q, p)"),
    "averaged over dimensions": (KL, "- dim)", "- dim) / dim", "averaged over the dimensions"),
    "averaged over the batch": (KL, "- dim)", "- dim).mean()", "averaged over the batch too early"),
    "a missing half": (KL, "0.5 * (log_det", "(log_det", "the half is missing"),
    "a missing -1": (KL, " - dim)", ")", "-1 of each dimension is missing"),
    "-1 once": (KL, "- dim)", "- 1)", "has its -1 once"),
    "the logarithm's sign": (
        KL,
        "(log_det +",
        "(-log_det +",
        "logarithms in the KL have the wrong",
    ),
    "deviations": (KL, "dim = qm", "qv, pv = qv.sqrt(), pv.sqrt(); dim = qm", "deviations stand"),
    "not divided": (KL, "(pm - qm) / pv", "(pm - qm)", "not divided by the variance of p"),
    "averaged over pixels": (LB, "sum(dim=1)", "mean(dim=1)", "averaged over the pixels"),
    "a sigmoid": (LB, "(logits, x", "(logits.sigmoid(), x", "a sigmoid stands before"),
    "the cross entropy": (LB, "-F", "F", "wrong sign"),
    "a squared error": (
        LB,
        'F.binary_cross_entropy_with_logits(logits, x, reduction="none")',
        "((x - torch.sigmoid(logits)) ** 2)",
        "a squared error",
    ),
    "probabilities": (
        LB,
        'F.binary_cross_entropy_with_logits(logits, x, reduction="none")',
        "(-x * torch.log(p := torch.sigmoid(logits)) - (1 - x) * torch.log(1 - p))",
        "rounded",
    ),
    "the mean decoded": (EL, "ut.sample_gaussian(m, v)", "m", "the mean is decoded"),
    "detached": (EL, "decode(z)", "decode(z.detach())", "no gradient passes through z"),
    "a prior's z": (EL, "ut.sample_gaussian(m, v)", "torch.randn_like(m)", "from the prior"),
    "a root too many": (EL, "ut.sample_gaussian(m, v)", "ut.sample_gaussian(m, v**0.5)", "a root"),
    "KL(p, q)": (EL, "(m, v, pm, pv)", "(pm, pv, m, v)", "compute KL(q, p)"),
    "KL of the sample": (
        EL,
        "ut.kl_normal(m, v, pm, pv)",
        "ut.log_normal(z, m, v) - ut.log_normal(z, pm, pv)",
        "right on average",
    ),
    "KL by hand, averaged": (
        EL,
        "torch.mean(ut.kl_normal(m, v, pm, pv))",
        "-0.5 * torch.mean(1 + v.log() - m**2 - v)",
        "averaged over",
    ),
    "KL by hand of a logarithm": (
        EL,
        "ut.kl_normal(m, v, pm, pv)",
        "-0.5 * (1 + v - m**2 - v.exp()).sum(-1)",
        "logarithm of the variance in the KL",
    ),
    "KL summed": (EL, "kl = torch.mean", "kl = torch.sum", "the KL is summed over the batch"),
    "REC summed": (EL, "-torch.mean", "-torch.sum", "REC is summed over the batch"),
    "both summed": (EL, "torch.mean", "torch.sum", "KL and REC are summed"),
    "nothing averaged": (EL, "torch.mean", "", "a number for each image"),
    "REC's sign": (EL, "rec = -", "rec = ", "REC has the wrong sign"),
    "log p(x | z) for REC": (
        EL,
        "nelbo = rec + kl",
        "rec = -rec; nelbo = kl - rec",
        "REC has the wrong sign, though",
    ),
    "REC of a pixel": (EL, "(x, logits))", "(x, logits)) / 784", "averaged over the pixels"),
    "logits of probabilities": (EL, "(x, logits))", "(x, torch.sigmoid(logits)))", "a sigmoid"),
    "REC - KL": (EL, "rec + kl", "rec - kl", "NELBO is REC - KL"),
    "the bound": (EL, "rec + kl", "-(rec + kl)", "return the negative bound"),
    "no KL": (EL, "rec + kl", "rec", "the KL is missing in NELBO"),
    "another order": (EL, "return nelbo, kl, rec", "return nelbo, rec, kl", "the order is"),
    "a third order": (EL, "return nelbo, kl, rec", "return rec, kl, nelbo", "the order is"),
    "numbers": (
        EL,
        "return nelbo, kl, rec",
        "return float(nelbo), float(kl), float(rec)",
        "numbers",
    ),
    "NELBO alone": (EL, "return nelbo, kl, rec", "return nelbo", "only NELBO"),
    "grey pixels": (VS, "sample_x", "sample_sigmoid", "are grey"),
    "rounded": (VS, "model.sample_x(num_samples)", "model.sample_sigmoid(200).round()", "rounded"),
    "a hundred": (VS, "num_samples", "100", "show 200"),
    "uniform latents": (
        VS,
        "model.sample_x(num_samples)",
        "model.sample_x_given(model.sample_z(200).uniform_())",
        "z is uniform",
    ),
}
# Mistakes without a sentence.
UNKNOWN = {
    "a weight": (EL, "rec + kl", "rec + 3 * kl"),
    "a shift": (KL, "- dim)", "- dim) + 0.3"),
    "another distribution": (SG, "torch.randn_like(v)", "torch.randn_like(v) ** 3"),
}
