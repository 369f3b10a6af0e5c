"""Declare and read how engines run: their threads and accelerators."""

from argparse import ArgumentParser, Namespace

from irsplit.base.errors import EngineError
from irsplit.runtime.run.engines import Accelerator, EngineOptions


def add_engine(parser: ArgumentParser, threads: int = 1) -> None:
    """Declare --threads, --provider and --delegate.

    Args:
        parser: The parser of the command.
        threads: The default number of threads; 0 lets the engine choose.
    """
    chosen = str(threads) if threads else "what the engine chooses"
    parser.add_argument(
        "--threads", type=int, default=threads, help=f"threads of the engine; default {chosen}"
    )
    parser.add_argument(
        "--provider",
        action="append",
        default=[],
        metavar="NAME[,KEY=VALUE]",
        help="execution provider of onnxruntime, such as cuda,device_id=0; repeat it in order of "
        "preference; what none of them takes runs on the CPU; default: all runs on the CPU",
    )
    parser.add_argument(
        "--delegate",
        action="append",
        default=[],
        metavar="LIBRARY[,KEY=VALUE]",
        help="library of a LiteRT delegate, such as libedgetpu.so.1; repeat it as --provider",
    )


def engine_options(arguments: Namespace, format: str = "") -> EngineOptions:
    """Read the arguments of `add_engine`.

    Args:
        arguments: The parsed arguments.
        format: The format of the files to run, "onnx" or "tflite"; empty for both.

    Returns:
        The options of the engine.

    Raises:
        EngineError: No engine has such an option, or the engine of this format has not.
    """
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
