"""Networks of the papers as layer tables: shapes, parameters and multiply-adds, computed.

A layer here is what the paper plans over: a single operator, or a residual unit that stays
together.
"""

from dataclasses import dataclass

from irsplit.planner.cost import CostTable, CostTensor, StageCost, TransferOption
from irsplit.profiles import Device, Link

FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Shape:
    """Height, width, channels of an activation; a vector is 1 x 1 x n."""

    height: int
    width: int
    channels: int

    @property
    def elements(self) -> int:
        return self.height * self.width * self.channels


@dataclass(frozen=True, slots=True)
class Layer:
    """One step of a chain: its work by operator class, its parameters, its output activation."""

    name: str
    macs: dict[str, int]
    parameters: int
    moved_elements: int  # by operators without multiply-adds
    output: Shape

    @property
    def total_macs(self) -> int:
        return sum(self.macs.values())


@dataclass(frozen=True, slots=True)
class Network:
    name: str
    input: Shape
    layers: tuple[Layer, ...]

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    @property
    def macs(self) -> int:
        return sum(layer.total_macs for layer in self.layers)


class _Builder:
    """Adds layers one after the other, keeping the shape; `same` padding unless a size is given."""

    def __init__(self, name: str, height: int, width: int, channels: int) -> None:
        self.name = name
        self.input = self.shape = Shape(height, width, channels)
        self.layers: list[Layer] = []

    def conv(
        self,
        name: str,
        channels: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int | None = None,
        normalised: bool = False,
    ) -> None:
        """A convolution with a bias, or with a normalisation (scale and shift) in its place."""
        shape, pad = self.shape, (kernel - 1) // 2 if padding is None else padding
        out = Shape(
            (shape.height + 2 * pad - kernel) // stride + 1,
            (shape.width + 2 * pad - kernel) // stride + 1,
            channels,
        )
        weights = kernel * kernel * shape.channels * channels
        extra = 2 * channels if normalised else channels
        self._add(name, {"conv": out.height * out.width * weights}, weights + extra, 0, out)

    def up_conv(self, name: str, channels: int, kernel: int) -> None:
        """Transposed convolution that doubles both sides."""
        shape = self.shape
        out = Shape(shape.height * 2, shape.width * 2, channels)
        weights = kernel * kernel * shape.channels * channels
        self._add(name, {"conv": shape.height * shape.width * weights}, weights + channels, 0, out)

    def dense(self, name: str, units: int) -> None:
        weights = self.shape.elements * units
        self._add(name, {"matmul": weights}, weights + units, 0, Shape(1, 1, units))

    def pool(self, name: str, kernel: int, stride: int, *, padding: int = 0) -> None:
        shape = self.shape
        out = Shape(
            (shape.height + 2 * padding - kernel) // stride + 1,
            (shape.width + 2 * padding - kernel) // stride + 1,
            shape.channels,
        )
        self._add(name, {}, 0, shape.elements + out.elements, out)

    def pointwise(self, name: str) -> None:
        """An activation or a normalisation: reads and writes every element."""
        self._add(name, {}, 0, 2 * self.shape.elements, self.shape)

    def post_norm(self, name: str) -> None:
        """The normalisation and activation after the last unit of version 2."""
        self._add(name, {}, 2 * self.shape.channels, 2 * self.shape.elements, self.shape)

    def global_pool(self, name: str) -> None:
        out = Shape(1, 1, self.shape.channels)
        self._add(name, {}, 0, self.shape.elements + out.elements, out)

    def unit(self, name: str, depth: int, stride: int, *, pre_activation: bool) -> None:
        """A bottleneck unit: 1x1, 3x3 (with the stride), 1x1; projected where the shape changes."""
        shape, inner = self.shape, depth // 4
        out = Shape(-(-shape.height // stride), -(-shape.width // stride), depth)
        project = shape.channels != depth or stride != 1
        weights = shape.channels * inner + 9 * inner * inner + inner * depth
        macs = shape.height * shape.width * shape.channels * inner
        macs += out.height * out.width * (9 * inner * inner + inner * depth)
        # Version 2 normalises before the unit and after two convolutions; the others have biases.
        norms = shape.channels + 2 * inner if pre_activation else 2 * inner + depth
        biases = depth if pre_activation else 0
        if shape.channels != depth:
            weights += shape.channels * depth
            macs += out.height * out.width * shape.channels * depth
            norms += 0 if pre_activation else depth
            biases += depth if pre_activation else 0
        moved = 2 * (shape.elements + out.elements) if project else 3 * out.elements
        self._add(name, {"conv": macs}, weights + 2 * norms + biases, moved, out)

    def build(self) -> Network:
        return Network(self.name, self.input, tuple(self.layers))

    def _add(
        self, name: str, macs: dict[str, int], parameters: int, moved: int, out: Shape
    ) -> None:
        self.layers.append(Layer(name, macs, parameters, moved, out))
        self.shape = out


def alexnet() -> Network:
    """AlexNet without groups, 227 x 227: 62 378 344 parameters, as in CollabDNN."""
    b = _Builder("AlexNet", 227, 227, 3)
    b.conv("conv1", 96, 11, stride=4, padding=0)
    b.pointwise("relu1")
    b.pool("pool1", 3, 2)
    b.pointwise("norm1")
    b.conv("conv2", 256, 5)
    b.pointwise("relu2")
    b.pool("pool2", 3, 2)
    b.pointwise("norm2")
    b.conv("conv3", 384, 3)
    b.pointwise("relu3")
    b.conv("conv4", 384, 3)
    b.pointwise("relu4")
    b.conv("conv5", 256, 3)
    b.pointwise("relu5")
    b.pool("pool5", 3, 2)
    b.dense("fc6", 4096)
    b.pointwise("relu6")
    b.dense("fc7", 4096)
    b.pointwise("relu7")
    b.dense("fc8", 1000)
    b.pointwise("softmax")
    return b.build()


def vgg16() -> Network:
    b = _Builder("VGG-16", 224, 224, 3)
    for block, (count, channels) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), 1):
        for index in range(1, count + 1):
            b.conv(f"conv{block}_{index}", channels, 3)
            b.pointwise(f"relu{block}_{index}")
        b.pool(f"pool{block}", 2, 2)
    for name, units in (("fc6", 4096), ("fc7", 4096), ("fc8", 1000)):
        b.dense(name, units)
        b.pointwise(f"relu_{name}" if units == 4096 else "softmax")
    return b.build()


def resnet50() -> Network:
    """ResNet-50, version 1, by residual units."""
    b = _Builder("ResNet-50", 224, 224, 3)
    b.conv("conv1", 64, 7, stride=2, padding=3, normalised=True)
    b.pool("pool1", 3, 2, padding=1)
    for block, (count, depth) in enumerate(((3, 256), (4, 512), (6, 1024), (3, 2048)), 2):
        for index in range(1, count + 1):
            b.unit(
                f"conv{block}_{index}",
                depth,
                2 if index == 1 and block > 2 else 1,
                pre_activation=False,
            )
    b.global_pool("pool5")
    b.dense("fc", 1000)
    b.pointwise("softmax")
    return b.build()


RESNET101_BLOCKS = ((3, 256), (4, 512), (23, 1024), (3, 2048))


def resnet101_v2() -> Network:
    """ResNet-v2-101, 224 x 224, by residual units; a block's first has the stride (He 2016)."""
    b = _Builder("ResNet-v2-101", 224, 224, 3)
    b.conv("conv1", 64, 7, stride=2, padding=3)
    b.pool("pool1", 3, 2, padding=1)
    for block, (count, depth) in enumerate(RESNET101_BLOCKS, 2):
        for index in range(1, count + 1):
            b.unit(
                f"conv{block}_{index}",
                depth,
                2 if index == 1 and block > 2 else 1,
                pre_activation=True,
            )
    b.post_norm("postnorm")
    b.global_pool("pool5")
    b.dense("logits", 1000)
    return b.build()


def autoencoder() -> Network:
    """A convolutional autoencoder, 224 x 224: input and output are large, its middle is small."""
    b = _Builder("autoencoder", 224, 224, 3)
    for index, channels in enumerate((32, 64, 128, 256), 1):
        b.conv(f"down{index}", channels, 3, stride=2)
        b.pointwise(f"relu_down{index}")
    b.conv("code", 16, 1)
    for index, channels in enumerate((256, 128, 64, 32), 1):
        b.up_conv(f"up{index}", channels, 3)
        b.pointwise(f"relu_up{index}")
    b.conv("image", 3, 3)
    return b.build()


def cost_table(
    network: Network,
    device: Device,
    server: Device,
    link: Link,
    *,
    input_bytes_per_element: int = 1,
) -> CostTable:
    """The chain of a network's layers, timed by two device profiles; activations are float32."""
    groups: list[StageCost] = []
    sizes = [network.input.elements * input_bytes_per_element]
    for layer in network.layers:
        times = [_time(place, layer) for place in (device, server)]
        weight_bytes = FLOAT_BYTES * layer.parameters
        working = FLOAT_BYTES * (
            layer.output.elements + (sizes[-1] // FLOAT_BYTES if groups else network.input.elements)
        )
        groups.append(
            StageCost(
                layer.name, times[0], times[1], device.energy_nj(times[0]), weight_bytes, working
            )
        )
        sizes.append(FLOAT_BYTES * layer.output.elements)
    tensors = [CostTensor("input", None, (0,), (TransferOption("raw", sizes[0]),), ())]
    last = len(groups) - 1
    for index, layer in enumerate(network.layers):
        ways = (TransferOption("raw", sizes[index + 1]),)
        tensors.append(
            CostTensor(
                layer.name, index, () if index == last else (index + 1,), ways, ways, index == last
            )
        )
    return CostTable(
        network.name, tuple(groups), tuple(tensors), link, device.active_uw, device.idle_uw
    )


def network_time(network: Network, device: Device) -> list[int]:
    """Nanoseconds of every layer on a device."""
    return [_time(device, layer) for layer in network.layers]


def _time(device: Device, layer: Layer) -> int:
    parts = [device.time_ns(kind, macs, 0) for kind, macs in layer.macs.items()]
    if layer.moved_elements:
        parts.append(device.time_ns("other", 0, FLOAT_BYTES * layer.moved_elements))
    return sum(parts)
