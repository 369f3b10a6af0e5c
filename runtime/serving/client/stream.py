"""The stream of a session: the calls between two resets, which may share state."""

import itertools
import threading
import uuid

from irsplit.base.errors import DeadlineError, RemoteError, SessionLostError
from irsplit.runtime.serving.client.retry import ExchangeFailed, RetryingClient
from irsplit.runtime.serving.protocol.messages import Code, Parameter, end_of_session

ENDING_S = 0.5
"""For telling the server that a stream is over."""


class Stream:
    """Where the calls of a stream run, and whether its state still exists.

    A stateful stream stays on the side that answered its first call, because the state of the
    model is there. Without state, each call may go either way.

    Args:
        model: The bundle's name at the server.
        stateful: Whether the model has state.

    Attributes:
        side: Where a stateful stream runs: "server" or "device"; "" before the first answer.
    """

    def __init__(self, model: str, stateful: bool) -> None:
        self._model = model
        self._stateful = stateful
        self._id = uuid.uuid4().hex
        self._steps = itertools.count()
        self._at_server = False
        """Whether the server may have a session of this stream."""
        self._lost = ""
        """Why the state is lost; empty as long as it is not."""
        self.side = ""

    def check(self) -> None:
        """Raise SessionLostError if the state of the stream is lost."""
        if self._lost:
            raise SessionLostError(
                f"the stream's state is lost ({self._lost}); call reset() and start it again"
            )

    def next_step(self) -> dict[str, Parameter]:
        """Return the parameters of a request for the next step of the stream."""
        step = next(self._steps)
        self._at_server = True
        return {
            "sequence_id": self._id,
            "sequence_step": step,
            "sequence_start": step == 0,
        }

    def answered(self, path: str) -> None:
        """Note on which path a call was answered."""
        if self._stateful:
            self.side = path

    def check_fallback(self, failure: ExchangeFailed, device_has_rest: bool) -> None:
        """Raise unless the device can finish a call that the server did not answer.

        It can if it has the segments and their state: the model has none, or the stream has just
        begun, or has run on the device all along.

        Args:
            failure: Why the server did not answer.
            device_has_rest: Whether the device has all segments that are still to run.

        Raises:
            SessionLostError: The state of the stream is lost.
            DeadlineError: The server did not answer in time.
            RemoteError: The server did not answer.
        """
        is_new = self.side == ""
        has_state = is_new or self.side == "device" or not self._stateful
        state_lost = failure.code is Code.SESSION_LOST
        if device_has_rest and has_state and not state_lost:
            return

        if self._stateful:
            self._lost = str(failure)
        if state_lost or (self._stateful and not is_new):
            raise SessionLostError(
                f"{self._model}: {failure}; call reset() and start the stream again"
            ) from failure
        kind = DeadlineError if failure.code is Code.DEADLINE else RemoteError
        raise kind(
            f"{self._model}: no answer after {failure.attempts} attempts ({failure}); "
            "a bundle compiled with --autonomous would finish on the device"
        ) from failure

    def end(self, client: RetryingClient) -> threading.Thread | None:
        """Let the server forget the stream.

        Args:
            client: Sends the request, on a thread because the link may be slow.

        Returns:
            The thread, None if the server never had a session of this stream.
        """
        if not self._at_server:
            return None
        self._at_server = False
        request = end_of_session(self._model, self._id, uuid.uuid4().hex)
        ending = threading.Thread(
            target=client.tell, args=(request, ENDING_S), name="irsplit-end", daemon=True
        )
        ending.start()
        return ending
