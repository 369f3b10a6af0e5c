"""How engines run a model's nodes: their threads and accelerators."""

from argparse import ArgumentParser, Namespace

from irsplit.base.errors import EngineError
from irsplit.runtime.run.engines import Accelerator, EngineOptions


def add_engine(parser: ArgumentParser, threads: int = 1) -> None:
    chosen = str(threads) if threads else "what the engine chooses"
    parser.add_argument(
        "--threads", type=int, default=threads, help=f"engine threads of a call; default {chosen}"
    )
    parser.add_argument(
        "--provider",
        action="append",
        default=[],
        metavar="NAME[,KEY=VALUE]",
        help="execution provider of onnxruntime, such as cuda,device_id=0; several in order of preference; what none "
        "of them takes runs on the CPU, as everything does by default",
    )
    parser.add_argument(
        "--delegate",
        action="append",
        default=[],
        metavar="LIBRARY[,KEY=VALUE]",
        help="the same for LiteRT: a delegate's library, such as libedgetpu.so.1",
    )


def engine_options(arguments: Namespace, format: str = "") -> EngineOptions:
    """For files of one format, or of any. Raises EngineError for options that no engine has, or not that one."""
    if arguments.threads < 0:
        raise EngineError(
            f"{arguments.threads} threads: give at least 1, or 0 to let the engine choose"
        )
    providers = tuple(Accelerator.parse(text) for text in arguments.provider)
    delegates = tuple(Accelerator.parse(text) for text in arguments.delegate)
    if format == "onnx" and delegates:
        raise EngineError(
            f"--delegate {delegates[0]} is for LiteRT, and this runs on onnxruntime; see --provider"
        )
    if format == "tflite" and providers:
        raise EngineError(
            f"--provider {providers[0]} is for onnxruntime, and this runs on LiteRT; see --delegate"
        )
    return EngineOptions(threads=arguments.threads, providers=providers, delegates=delegates)
