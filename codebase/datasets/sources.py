"""The data sets in files that --dataset names, and what their files are called."""

from collections.abc import Mapping
from typing import NamedTuple


class Source(NamedTuple):
    """A data set of images of 28 x 28 pixels. Its training images may be in several files.

    Attributes:
        folder: the folder of its files, and the class of torchvision that downloads them.
        train, test, labels: names of files; the labels are those of the test images, if any.
        md5: sums of the unpacked files, where they are known.
        transposed: whether the files hold the columns of an image as its rows.
        options: arguments of torchvision's class.
        origin: the address of the files, if torchvision cannot download them.
    """

    title: str
    folder: str
    train: tuple[str, ...]
    test: str
    labels: str = ""
    md5: Mapping[str, str] = {}
    transposed: bool = False
    options: Mapping[str, str] = {}
    origin: str = ""

    @property
    def files(self) -> tuple[str, ...]:
        """The names of all files."""
        return (*self.train, self.test, *filter(None, [self.labels]))


# Three data sets give their files the same names.
NAMES = ("train-images-idx3-ubyte",), "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
# Another data set only needs an entry here.
SOURCES = {
    "mnist": Source(
        "MNIST",
        "MNIST",
        *NAMES,
        md5={
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        },
    ),
    "fashion": Source("Fashion-MNIST", "FashionMNIST", *NAMES),
    "kmnist": Source("KMNIST", "KMNIST", *NAMES),
    "qmnist": Source(
        "QMNIST",
        "QMNIST",
        ("qmnist-train-images-idx3-ubyte",),
        "qmnist-test-images-idx3-ubyte",
        "qmnist-test-labels-idx2-int",
    ),
    "emnist": Source(
        "EMNIST digits",
        "EMNIST",
        ("emnist-digits-train-images-idx3-ubyte",),
        "emnist-digits-test-images-idx3-ubyte",
        "emnist-digits-test-labels-idx1-ubyte",
        transposed=True,
        options={"split": "digits"},
    ),
    "binarized": Source(
        "binarized MNIST",
        "BinarizedMNIST",
        ("binarized_mnist_train.amat", "binarized_mnist_valid.amat"),
        "binarized_mnist_test.amat",
        origin="http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/",
    ),
}
