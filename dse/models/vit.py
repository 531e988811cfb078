"""A small vision transformer (Dosovitskiy et al., arXiv 2010.11929) that averages its tokens instead of adding a class token."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, dim: int, heads: int) -> None:
        """Build the projections for ``heads`` heads of ``dim // heads`` features."""
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (N, T, dim) to tokens of the same shape."""
        batch, tokens, dim = x.shape

        def split(y: Tensor) -> Tensor:
            return y.reshape(batch, tokens, self.heads, dim // self.heads).transpose(1, 2)

        query, key, value = split(self.query(x)), split(self.key(x)), split(self.value(x))
        mixed = functional.scaled_dot_product_attention(query, key, value)
        result: Tensor = self.output(mixed.transpose(1, 2).reshape(batch, tokens, dim))
        return result


class Block(nn.Module):
    """Attention and a two-layer perceptron, each behind a layer norm and beside a shortcut."""

    def __init__(self, dim: int, heads: int) -> None:
        """Build the block; the perceptron is twice as wide as the tokens."""
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, 2 * dim)
        self.down = nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (N, T, dim) to tokens of the same shape."""
        x = x + self.attention(self.norm1(x))
        result: Tensor = x + self.down(functional.gelu(self.up(self.norm2(x))))
        return result


class VisionTransformer(nn.Module):
    """Patch embedding with learned positions, ``depth`` blocks, mean over tokens, classifier."""

    def __init__(self, *, sample_shape: tuple[int, ...], classes: int, patch: int, dim: int, depth: int, heads: int) -> None:
        """Build the network for images whose sides are multiples of ``patch``."""
        super().__init__()
        channels, height, width = sample_shape
        self.embed = nn.Conv2d(channels, dim, patch, patch)
        self.positions = nn.Parameter(0.02 * torch.randn(1, (height // patch) * (width // patch), dim))
        self.blocks = nn.Sequential(*(Block(dim, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.classifier = nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, channels, H, W) to logits (N, classes)."""
        tokens = self.embed(x).flatten(2).transpose(1, 2) + self.positions
        logits: Tensor = self.classifier(self.norm(self.blocks(tokens)).mean(dim=1))
        return logits


def build(sample_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Build the network for one sample shape: patches of 4 for images of 16 pixels and more, else of 2."""
    if sample_shape[1] >= 16:
        return VisionTransformer(sample_shape=sample_shape, classes=classes, patch=4, dim=64, depth=4, heads=4)
    return VisionTransformer(sample_shape=sample_shape, classes=classes, patch=2, dim=32, depth=3, heads=4)
