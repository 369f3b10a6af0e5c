"""Requests over gRPC."""

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
    ("grpc.enable_retries", 0),  # retries are ours: they know what may be run twice
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 10000),  # also how long a connection may take to come up
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 10000),
    ("grpc.keepalive_timeout_ms", 5000),
    ("grpc.use_local_subchannel_pool", 1),
]

# INTERNAL and UNKNOWN come from a server of ours with a trailer that says more; without it the bytes were damaged.
_TOLD = (Code.DRAINING, Code.INTERNAL, Code.MALFORMED)
_CODES = {getattr(grpc.StatusCode, code.grpc): code for code in Code if code not in _TOLD}

_Response = protobuf.message("ModelInferResponse")


class GrpcTransport:
    """One channel, replaced after a failure: a half-open connection must not be waited for twice."""

    def __init__(self, url: SplitResult, access: Credentials) -> None:
        self._address = url.netloc
        self._credentials = None
        if url.scheme == "grpcs":
            trusted = None if access.trusted is None else access.trusted.read_bytes()
            self._credentials = grpc.ssl_channel_credentials(trusted)
        given = {
            "authorization": access.token and f"Bearer {access.token}",
            "application": access.application,
        }
        self._metadata = tuple((key, value) for key, value in given.items() if value)
        self._options = [*_OPTIONS, ("grpc.max_receive_message_length", access.answer_bytes)]
        self._lock = threading.Lock()
        self._channel: Any = None
        self._call: Any = None
        self._closed = False

    def infer(self, request: InferRequest, timeout_s: float) -> InferResponse:
        call = self._connected()
        try:
            answer = call(
                protobuf.request_to_message(request), timeout=timeout_s, metadata=self._metadata
            )
            if answer is None:  # what gRPC gives for a call that ends well, and brought nothing
                raise TransportError(None, "the answer is damaged")
            return protobuf.response_from_message(_Response.FromString(answer))
        except grpc.RpcError as error:
            raise self._failed(call, error) from error
        except DecodeError as error:
            raise TransportError(None, "the answer is damaged") from error
        except (
            ValueError
        ) as error:  # closed by another thread whose request failed, or contents that do not match
            raise TransportError(None, str(error)) from error

    def ready(self, timeout_s: float) -> bool:
        with self._lock:
            self._channel = self._call = None
        self._connected()
        answer = self._ask("ServerReady", timeout_s)
        return answer is not None and answer.ready

    def ping(self, timeout_s: float) -> bool:
        try:
            self._connected()
        except TransportError:
            return False
        return self._ask("ServerLive", timeout_s) is not None

    def _ask(self, method: str, timeout_s: float) -> Any:
        """The answer to an empty request, None without one."""
        with self._lock:
            channel = self._channel
        if channel is None:
            return None
        ask = channel.unary_unary(
            f"/{protobuf.SERVICE}/{method}",
            request_serializer=_serialized,
        )
        try:
            answer = ask(
                protobuf.message(f"{method}Request")(), timeout=timeout_s, metadata=self._metadata
            )
            return (
                None if answer is None else protobuf.message(f"{method}Response").FromString(answer)
            )
        except (grpc.RpcError, DecodeError, ValueError):
            return None

    def close(self) -> None:
        self._closed = True
        with self._lock:
            channel, self._channel, self._call = self._channel, None, None
        if channel is not None:
            channel.close()

    def _connected(self) -> Any:
        with self._lock:
            if self._closed:
                raise TransportError(None, "the session is closed")
            if self._channel is None:
                if self._credentials is None:
                    self._channel = grpc.insecure_channel(self._address, self._options)
                else:
                    self._channel = grpc.secure_channel(
                        self._address, self._credentials, self._options
                    )
                self._call = self._channel.unary_unary(
                    f"/{protobuf.SERVICE}/ModelInfer",
                    request_serializer=_serialized,  # answers are parsed here: gRPC logs a trace for one that is none
                )
            return self._call

    def _failed(self, call: Any, error: Any) -> TransportError:
        told = dict(error.trailing_metadata() or ()).get("irsplit-code")
        text = str(error.details())
        # gRPC itself refuses a message that is too large, with the status that otherwise means too many.
        otherwise = Code.TOO_LARGE if "larger than max" in text else _CODES.get(error.code())
        code = next((code for code in Code if code.value[0] == told), otherwise)
        failure = TransportError(code, hinted(f"{error.code().name}: {text}"))
        with self._lock:
            if told is None and call is self._call:
                # Not closed: other threads may still get their answers over it; it goes with the last of them.
                self._channel = self._call = None
        return failure


def _serialized(message: Any) -> bytes:
    return message.SerializeToString()
