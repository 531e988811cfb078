"""Training a network of the zoo: seeded, resumable after any epoch."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from dse.data import Dataset, Split
from formats import BitatlasError
from hwmodels.files import replaced


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one network is trained: one-cycle AdamW with random shifts and, where mirror images keep their class, flips."""

    epochs: int
    peak_learning_rate: float
    weight_decay: float = 0.05
    batch: int = 128
    shift: int = 2
    flip: bool = True
    label_smoothing: float = 0.0
    bfloat16: bool = True
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """Figures after one epoch: mean training loss in nats, accuracy on the validation split."""

    number: int
    loss: float
    validation_accuracy: float


def augment(images: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Shift every image by up to ``recipe.shift`` pixels in zeros and flip half of them, each by its own draw."""
    count, _, height, width = images.shape
    reach = recipe.shift
    padded = functional.pad(images, (reach,) * 4)
    top, left = torch.randint(0, 2 * reach + 1, (2, count, 1), generator=generator)
    rows = top + torch.arange(height)
    columns = left + torch.arange(width)
    if recipe.flip:
        mirrored = torch.randint(0, 2, (count, 1), generator=generator).bool()
        columns = torch.where(mirrored, columns.flip(1), columns)
    sample = torch.arange(count)[:, None, None]
    return padded[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@torch.inference_mode()
def accuracy(module: nn.Module, split: Split, batch: int = 500) -> float:
    """Share of samples of ``split`` whose largest logit is at their label."""
    module.eval()
    right = 0
    for start in range(0, len(split), batch):
        logits = module(torch.from_numpy(split.images[start : start + batch]))
        right += int((logits.argmax(1).numpy() == split.labels[start : start + batch]).sum())
    return right / len(split)


def train(
    module: nn.Module,
    dataset: Dataset,
    recipe: Recipe,
    checkpoint: Path,
    report: Callable[[Epoch], None] = lambda epoch: None,
) -> list[Epoch]:
    """Train ``module`` in place and return the figures of every epoch.

    After each epoch everything needed to go on is written to ``checkpoint``; a run that finds one there, made by the same
    recipe, continues it and ends as an uninterrupted run would.
    """
    if recipe.bfloat16:
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps = len(dataset.train) // recipe.batch
    optimizer = torch.optim.AdamW(module.parameters(), lr=recipe.peak_learning_rate, weight_decay=recipe.weight_decay)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.peak_learning_rate, total_steps=steps * recipe.epochs)
    history = _resume(checkpoint, recipe, module, optimizer, scheduler)
    for number in range(len(history), recipe.epochs):
        loss = _epoch(module, dataset.train, recipe, number, optimizer, scheduler)
        history.append(Epoch(number=number + 1, loss=loss, validation_accuracy=accuracy(module, dataset.validation)))
        _save(checkpoint, recipe, module, optimizer, scheduler, history)
        report(history[-1])
    module.eval()
    return history


def _epoch(
    module: nn.Module,
    split: Split,
    recipe: Recipe,
    number: int,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
) -> float:
    seed = recipe.seed * 1000 + number  # an epoch's draws depend on its number alone, so a resumed run repeats them
    order = np.random.default_rng(seed).permutation(len(split))
    generator = torch.Generator().manual_seed(seed)
    module.train()
    steps = len(split) // recipe.batch
    total = 0.0
    for step in tqdm(range(steps), desc=f"epoch {number + 1}/{recipe.epochs}", leave=False, mininterval=1.0):
        chosen = order[step * recipe.batch : (step + 1) * recipe.batch]
        images = augment(torch.from_numpy(split.images[chosen]), recipe, generator)
        if recipe.bfloat16:
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
            logits = module(images)
        labels = torch.from_numpy(split.labels[chosen])
        loss = functional.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        scheduler.step()
        total += float(loss.detach())
    return total / steps


def _save(
    checkpoint: Path,
    recipe: Recipe,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    history: list[Epoch],
) -> None:
    state = {
        "recipe": asdict(recipe),
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "history": [asdict(epoch) for epoch in history],
    }
    with replaced(checkpoint) as temporary:
        torch.save(state, temporary)


def _resume(
    checkpoint: Path,
    recipe: Recipe,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
) -> list[Epoch]:
    if not checkpoint.exists():
        return []
    try:
        state = torch.load(checkpoint, weights_only=True)
        same = state["recipe"] == asdict(recipe)
    except Exception as error:  # torch.load fails with many types on what is no checkpoint
        raise BitatlasError(
            f"checkpoint must be whole, not a corrupt one ({type(error).__name__}): {checkpoint}; remove it"
        ) from None
    if not same:
        return []  # another recipe's run: begin afresh and overwrite it
    module.load_state_dict(state["module"])
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    return [Epoch(**epoch) for epoch in state["history"]]
