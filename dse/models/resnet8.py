"""ResNet-8: a stem and three residual blocks (He et al., arXiv 1512.03385), as deep as MLPerf Tiny's."""

import torch
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut, which is a 1 x 1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """Build the block for ``inputs`` channels in and ``outputs`` channels out."""
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet8(nn.Module):
    """Stem, three residual blocks of ``width``, 2 ``width`` and 4 ``width`` channels, global average, classifier."""

    def __init__(self, *, channels: int, classes: int, width: int) -> None:
        """Build the network for images of ``channels`` channels."""
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.stem_bn = nn.BatchNorm2d(width)
        self.block1 = ResidualBlock(width, width, 1)
        self.block2 = ResidualBlock(width, 2 * width, 2)
        self.block3 = ResidualBlock(2 * width, 4 * width, 2)
        self.classifier = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, channels, H, W) to logits (N, classes)."""
        x = torch.relu(self.stem_bn(self.stem(x)))
        x = self.block3(self.block2(self.block1(x)))
        logits: Tensor = self.classifier(x.mean(dim=(2, 3)))
        return logits


def build(sample_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Build the network for one sample shape: 16 channels wide for images of 16 pixels and more, else 12."""
    channels, height, _ = sample_shape
    return ResNet8(channels=channels, classes=classes, width=16 if height >= 16 else 12)
