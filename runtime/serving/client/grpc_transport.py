"""Send requests over gRPC."""

import threading
from typing import Any
from urllib.parse import SplitResult

import grpc
from google.protobuf.message import DecodeError

from irsplit.runtime.serving.client.transport import Credentials, TransportError, hinted
from irsplit.runtime.serving.protocol import protobuf
from irsplit.runtime.serving.protocol.messages import Code, InferRequest, InferResponse

_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),  # our own retries know which requests may run twice
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 10000),  # also how long a connection may take to come up
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 10000),
    ("grpc.keepalive_timeout_ms", 5000),
    ("grpc.use_local_subchannel_pool", 1),
]

# Our server sends these codes with a trailer that names them. Without the trailer, their gRPC
# statuses (INTERNAL, UNKNOWN) mean that the bytes were damaged.
_NAMED_BY_TRAILER = (Code.DRAINING, Code.INTERNAL, Code.MALFORMED)
_CODES = {
    getattr(grpc.StatusCode, code.grpc): code for code in Code if code not in _NAMED_BY_TRAILER
}

_Response = protobuf.message("ModelInferResponse")


class GrpcTransport:
    """Sends requests over one channel, which is replaced after a failure.

    A new channel makes sure that a half-open connection is not waited for twice.

    Args:
        url: Address of the server; the scheme grpcs means TLS.
        credentials: Token, certificates and the name of the application.
    """

    def __init__(self, url: SplitResult, credentials: Credentials) -> None:
        self._address = url.netloc
        self._tls: Any = None
        if url.scheme == "grpcs":
            trusted = credentials.trusted
            self._tls = grpc.ssl_channel_credentials(
                None if trusted is None else trusted.read_bytes()
            )

        headers: list[tuple[str, str]] = []
        if credentials.token:
            headers.append(("authorization", f"Bearer {credentials.token}"))
        if credentials.application:
            headers.append(("application", credentials.application))
        self._metadata = tuple(headers)

        largest = ("grpc.max_receive_message_length", credentials.answer_bytes)
        self._options = [*_OPTIONS, largest]
        self._lock = threading.Lock()
        self._channel: Any = None
        self._call: Any = None
        self._closed = False

    def infer(self, request: InferRequest, timeout_s: float) -> InferResponse:
        """As `Transport.infer`."""
        call = self._connected()
        try:
            message = protobuf.request_to_message(request)
            answer = call(message, timeout=timeout_s, metadata=self._metadata)
            if answer is None:  # gRPC's result of a call that ends well but brings no message
                raise TransportError(None, "the answer is damaged")
            return protobuf.response_from_message(_Response.FromString(answer))
        except grpc.RpcError as error:
            raise self._failed(call, error) from error
        except DecodeError as error:
            raise TransportError(None, "the answer is damaged") from error
        except ValueError as error:
            # Another thread closed the channel after a failure, or the contents do not match.
            raise TransportError(None, str(error)) from error

    def ready(self, timeout_s: float) -> bool:
        """As `Transport.ready`."""
        with self._lock:
            self._channel = self._call = None
        self._connected()
        answer = self._ask("ServerReady", timeout_s)
        return answer is not None and answer.ready

    def ping(self, timeout_s: float) -> bool:
        """As `Transport.ping`."""
        try:
            self._connected()
        except TransportError:
            return False
        return self._ask("ServerLive", timeout_s) is not None

    def _ask(self, method: str, timeout_s: float) -> Any:
        """The answer to an empty request, None if there is none."""
        with self._lock:
            channel = self._channel
        if channel is None:
            return None

        ask = channel.unary_unary(f"/{protobuf.SERVICE}/{method}", request_serializer=_serialized)
        request = protobuf.message(f"{method}Request")()
        try:
            answer = ask(request, timeout=timeout_s, metadata=self._metadata)
            if answer is None:
                return None
            return protobuf.message(f"{method}Response").FromString(answer)
        except (grpc.RpcError, DecodeError, ValueError):
            return None

    def close(self) -> None:
        """As `Transport.close`."""
        self._closed = True
        with self._lock:
            channel, self._channel, self._call = self._channel, None, None
        if channel is not None:
            channel.close()

    def _connected(self) -> Any:
        """The method ModelInfer of the channel, which is opened if there is none."""
        with self._lock:
            if self._closed:
                raise TransportError(None, "the session is closed")

            if self._channel is None:
                self._channel = self._open()
                # Without a deserializer, answers are bytes that this module parses: gRPC would
                # log a trace for one that does not parse.
                self._call = self._channel.unary_unary(
                    f"/{protobuf.SERVICE}/ModelInfer", request_serializer=_serialized
                )
            return self._call

    def _open(self) -> Any:
        if self._tls is None:
            return grpc.insecure_channel(self._address, self._options)
        return grpc.secure_channel(self._address, self._tls, self._options)

    def _failed(self, call: Any, error: Any) -> TransportError:
        """The error of a request that failed; the next request gets a new channel."""
        named = dict(error.trailing_metadata() or ()).get("irsplit-code")
        text = str(error.details())

        # gRPC itself refuses a message that is too large, with the status for too many requests.
        otherwise = Code.TOO_LARGE if "larger than max" in text else _CODES.get(error.code())
        code = next((code for code in Code if code.value[0] == named), otherwise)

        with self._lock:
            if named is None and call is self._call:
                # The old channel is not closed: other threads may still get their answers over
                # it, and the last of them lets go of it.
                self._channel = self._call = None
        return TransportError(code, hinted(f"{error.code().name}: {text}"))


def _serialized(message: Any) -> bytes:
    return message.SerializeToString()
