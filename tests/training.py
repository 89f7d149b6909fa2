"""Short training runs, and a signal in the middle of one."""

import os

from codebase import step, train


def short_run(images, folder, iter_save=1000, resume=False, **settings):
    settings = step.Settings(
        **dict(z=4, run=0, iter_max=30, lr=1e-3, lr_schedule="constant", dataset="synthetic")
        | settings
    )
    model = step.new_model(settings.z, settings.run)
    train.train(model, images, folder, settings, iter_save=iter_save, resume=resume)
    return model


class Signal:
    """Sends this process a signal at the k-th training step."""

    def __init__(self, monkeypatch, number, k):
        self.number, self.left, self.binarize = number, k, step.binarize
        monkeypatch.setattr(step, "binarize", self)

    def __call__(self, *arguments):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)
        return self.binarize(*arguments)
