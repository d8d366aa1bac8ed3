"""One of the processes that a launcher starts to run a stage's body together; see `tasks.launch`."""

import os
import signal
import socket
import threading
from multiprocessing.connection import Connection

from tasks.isolated import end_with_parent, perform
from tasks.launch import DOOR
from tasks.stage import StageContext, StageOutput, body_of

_HANG_UP_SECONDS = 60.0


def main() -> None:
    """Join the other ranks, run the body, and tell the run's process: rank 0 everything, the others how it ended."""
    end_with_parent()  # a launcher may start ranks in sessions of their own
    port, word = os.environ.pop(DOOR).split()
    rank = int(os.environ["RANK"])
    connection = Connection(socket.create_connection(("127.0.0.1", int(port))).detach())
    connection.send_bytes(f"{word} {rank}".encode())
    stage, context = connection.recv()
    threading.Thread(target=_end_with_run, args=(connection,), daemon=True).start()

    def act(given: StageContext) -> StageOutput:
        from r1kit import parallel

        parallel.join()
        output = body_of(stage).run(given)
        parallel.leave()
        return output

    if not perform(act, context, connection, quiet=rank > 0):
        # Were this process to end now, the others would fail too, and perhaps be heard first.
        threading.Event().wait(_HANG_UP_SECONDS)
        os._exit(1)


def _end_with_run(connection: Connection) -> None:
    """Die when the run's process does, whatever the launcher makes of it: it never says more than the context."""
    connection.poll(None)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
