"""The network as ONNX: NCHW, symbolic batch, convolution and activation as nodes of their own."""

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper

from network import (
    CLASSES,
    FINAL_SIZE,
    IMAGE_SIZE,
    KERNEL,
    LAYERS,
    Conv,
    Dense,
    Layer,
    Parameters,
    Residual,
    same_padding,
    weighted_layers,
    weights_shape,
)

IR_VERSION = 8
OPSET = 17


def onnx_bytes(parameters: Parameters) -> bytes:
    """The model file; the same parameters give the same bytes."""
    constants = {
        name: np.ascontiguousarray(value) for name, value in _onnx_layout(parameters).items()
    }
    graph = helper.make_graph(
        _nodes(),
        "digits",
        [
            helper.make_tensor_value_info(
                "image", TensorProto.FLOAT, ["batch", 1, IMAGE_SIZE, IMAGE_SIZE]
            )
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(
        graph,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="irsplit examples/digits",
    )
    checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def parameters_of(model: ModelProto) -> Parameters:
    """The parameters that `onnx_bytes` wrote, in the layout of `network`."""
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return {name: np.ascontiguousarray(value) for name, value in _network_layout(stored).items()}


def _nodes() -> list[NodeProto]:
    nodes: list[NodeProto] = []
    size, tensor = IMAGE_SIZE, "image"
    for layer in LAYERS:
        new_nodes, tensor, size = _layer_nodes(layer, tensor, size)
        nodes.extend(new_nodes)
    return nodes


def _layer_nodes(layer: Layer, tensor: str, size: int) -> tuple[list[NodeProto], str, int]:
    """The nodes of a layer that reads `tensor`, the tensor they end in, its height and width."""
    match layer:
        case Conv():
            nodes, result = _conv_nodes(layer, tensor, size)
            return nodes, result, size // layer.stride
        case Residual():
            first, second = layer.convolutions
            first_nodes, hidden = _conv_nodes(first, tensor, size)
            second_nodes, branch = _conv_nodes(second, hidden, size)
            join = [
                helper.make_node(
                    "Add", [tensor, branch], [f"{layer.name}/add"], f"{layer.name}/add"
                ),
                helper.make_node("Relu", [f"{layer.name}/add"], [layer.result], layer.result),
            ]
            return [*first_nodes, *second_nodes, *join], layer.result, size
        case Dense():
            weights, bias = f"{layer.name}/weights", f"{layer.name}/bias"
            nodes = [
                helper.make_node("Flatten", [tensor], ["flatten"], "flatten"),
                helper.make_node(
                    "Gemm", ["flatten", weights, bias], ["logits"], layer.name, transB=1
                ),
            ]
            return nodes, "logits", 1


def _conv_nodes(layer: Conv, tensor: str, size: int) -> tuple[list[NodeProto], str]:
    before, after = same_padding(size, layer.stride)
    convolution = helper.make_node(
        "Conv",
        [tensor, f"{layer.name}/weights", f"{layer.name}/bias"],
        [f"{layer.name}/conv"],
        f"{layer.name}/conv",
        kernel_shape=[KERNEL, KERNEL],
        strides=[layer.stride, layer.stride],
        pads=[before, before, after, after],
    )
    if not layer.relu:
        return [convolution], layer.result
    relu = helper.make_node("Relu", [f"{layer.name}/conv"], [layer.result], layer.result)
    return [convolution, relu], layer.result


def _onnx_layout(parameters: Parameters) -> Parameters:
    """Kernels OHWI -> OIHW; the columns of the dense layer from (H, W, C) to (C, H, W) order."""
    converted = dict(parameters)
    for layer in weighted_layers():
        name = f"{layer.name}/weights"
        channels_last = parameters[name].reshape(layer.outputs, *_kernel_size(layer), -1)
        converted[name] = channels_last.transpose(0, 3, 1, 2).reshape(_stored_shape(layer))
    return converted


def _network_layout(stored: Parameters) -> Parameters:
    """The inverse of `_onnx_layout`."""
    converted = dict(stored)
    for layer in weighted_layers():
        name = f"{layer.name}/weights"
        channels_first = stored[name].reshape(layer.outputs, -1, *_kernel_size(layer))
        converted[name] = channels_first.transpose(0, 2, 3, 1).reshape(weights_shape(layer))
    return converted


def _kernel_size(layer: Conv | Dense) -> tuple[int, int]:
    """Height and width that a row of weights spans; a dense layer sees the whole activation."""
    return (FINAL_SIZE, FINAL_SIZE) if isinstance(layer, Dense) else (KERNEL, KERNEL)


def _stored_shape(layer: Conv | Dense) -> tuple[int, ...]:
    return (
        weights_shape(layer)
        if isinstance(layer, Dense)
        else (layer.outputs, layer.inputs, KERNEL, KERNEL)
    )
