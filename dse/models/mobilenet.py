"""A small MobileNetV2: inverted residual blocks around depthwise convolutions (Sandler et al., arXiv 1801.04381)."""

from dataclasses import dataclass

from torch import Tensor, nn


class ConvBnRelu6(nn.Sequential):
    """A convolution, its batch norm and ReLU6."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        """Build the three with "same" padding."""
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU6(),
        )


class InvertedResidual(nn.Module):
    """Expand by 1 x 1, filter each channel by 3 x 3, project by 1 x 1 without activation; add the input where shapes agree."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, expansion: int) -> None:
        """Build the block; with ``expansion`` 1 the first convolution is left out."""
        super().__init__()
        hidden = inputs * expansion
        self.expand = ConvBnRelu6(inputs, hidden, 1) if expansion != 1 else nn.Identity()
        self.depthwise = ConvBnRelu6(hidden, hidden, 3, stride=stride, groups=hidden)
        self.project = nn.Sequential(nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One inverted residual block: output channels, stride, expansion."""

    outputs: int
    stride: int = 1
    expansion: int = 4


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Widths of the whole network."""

    stem: int
    stem_stride: int
    stages: tuple[Stage, ...]
    head: int


LARGE = Shape(
    stem=16,
    stem_stride=2,
    stages=(
        Stage(outputs=16, expansion=1),
        Stage(outputs=24),
        Stage(outputs=24),
        Stage(outputs=40, stride=2),
        Stage(outputs=40),
        Stage(outputs=40),
        Stage(outputs=64),
    ),
    head=128,
)
SMALL = Shape(
    stem=16,
    stem_stride=1,
    stages=(Stage(outputs=16, expansion=1), Stage(outputs=24, stride=2), Stage(outputs=24), Stage(outputs=32, stride=2)),
    head=64,
)


class MobileNet(nn.Module):
    """Stem, inverted residual blocks, 1 x 1 head, global average, classifier."""

    def __init__(self, *, channels: int, classes: int, shape: Shape) -> None:
        """Build the network for images of ``channels`` channels."""
        super().__init__()
        self.stem = ConvBnRelu6(channels, shape.stem, 3, stride=shape.stem_stride)
        width = shape.stem
        blocks = []
        for stage in shape.stages:
            blocks.append(InvertedResidual(width, stage.outputs, stride=stage.stride, expansion=stage.expansion))
            width = stage.outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = ConvBnRelu6(width, shape.head, 1)
        self.classifier = nn.Linear(shape.head, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, channels, H, W) to logits (N, classes)."""
        logits: Tensor = self.classifier(self.head(self.blocks(self.stem(x))).mean(dim=(2, 3)))
        return logits


def build(sample_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Build the network for one sample shape: the larger one for images of 16 pixels and more."""
    channels, height, _ = sample_shape
    return MobileNet(channels=channels, classes=classes, shape=LARGE if height >= 16 else SMALL)
