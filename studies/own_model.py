"""A model of one's own for the search: a factory that returns a float network and its data.

    dse search --model studies.own_model:factory --formats int4,int8,e2m1,ternary --trials 60 --out results/own_model

Replace the two halves by your own: load weights in place of fitting, arrays in place of scikit-learn's.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from dse.data import Dataset, from_arrays

STEPS = 150


def data() -> Dataset:
    """Return the 569 tumours of the Wisconsin data set, 30 standardised features each, as benign or malignant."""
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    features = (bunch.data - bunch.data.mean(axis=0)) / bunch.data.std(axis=0)
    return from_arrays(
        name="tumours",
        classes=2,
        images=features.astype(np.float32),  # any shape of sample will do: (N, 30) here, (N, channels, height, width) for images
        labels=bunch.target.astype(np.int64),
        counts=(300, 60, 100, 109),  # train, calibration, validation, test
    )


def factory() -> tuple[nn.Module, Dataset]:
    """Return a small perceptron, fitted on the spot with a fixed seed, and its data."""
    dataset = data()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums split over threads would make the weights depend on their number
    try:
        return _fitted(dataset), dataset
    finally:
        torch.set_num_threads(threads)


def _fitted(dataset: Dataset) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(30, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    features, labels = torch.from_numpy(dataset.train.images), torch.from_numpy(dataset.train.labels)
    for _ in range(STEPS):
        optimizer.zero_grad()
        functional.cross_entropy(module(features), labels).backward()
        optimizer.step()
    return module
