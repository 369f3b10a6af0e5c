"""How engines run a model's nodes: their threads and accelerators."""

from argparse import ArgumentParser, Namespace

from irsplit.errors import EngineError
from irsplit.runtime.engines import Accelerator, EngineOptions


def add_engine(parser: ArgumentParser, threads: int = 1) -> None:
    chosen = str(threads) if threads else "what the engine chooses"
    parser.add_argument("--threads", type=int, default=threads, help=f"engine threads of a call; default {chosen}")
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


def engine_options(arguments: Namespace) -> EngineOptions:
    """Raises EngineError for options that no engine can have."""
    if arguments.threads < 0:
        raise EngineError(f"{arguments.threads} threads: give at least 1, or 0 to let the engine choose")
    return EngineOptions(
        threads=arguments.threads,
        providers=tuple(_accelerator(text) for text in arguments.provider),
        delegates=tuple(_accelerator(text) for text in arguments.delegate),
    )


def _accelerator(text: str) -> Accelerator:
    name, *words = text.split(",")
    pairs = [tuple(word.split("=", 1)) for word in words]
    options = tuple((pair[0], pair[1]) for pair in pairs if len(pair) == 2 and pair[0])
    if not name or len(options) < len(words):
        raise EngineError(f"accelerator '{text}': give NAME, or NAME,KEY=VALUE")
    return Accelerator(name, options)
