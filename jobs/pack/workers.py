"""Pieces of work on several processes, their results in order.

Each worker is a fresh interpreter with pickles on its pipes: it starts without the caller's `__main__`, and ends
by itself when the caller is killed, because its input ends.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from itertools import islice
from queue import SimpleQueue
from types import TracebackType
from typing import IO, Any, Protocol

from poolscore.engine.errors import StoppedError
from poolscore.jobs.pack.contract import Packed, Piece

Work = Callable[[Any], Packed]

_START = "import sys; sys.path[:] = {path!r}; from poolscore.jobs.pack.workers import serve; serve()"
_PIPE_BYTES = 1 << 20


class Workers(Protocol):
    """Who does the work; `ahead` is how many pieces are worth having under way."""

    ahead: int

    def begin(self, piece: Piece) -> Future[Packed]: ...


def workers(count: int, work: Work) -> AbstractContextManager[Workers]:
    """`count` processes; one does the work in this process."""
    return nullcontext(Here(work)) if count == 1 else Processes(count, work)


def in_order(pieces: Iterator[Piece], workers: Workers) -> Iterator[Packed]:
    """The results of all pieces in their order, with at most `ahead` under way before the first that is not taken.

    What a worker leaves of a piece comes next, cut as small as what it did, so that large rows go to several workers.
    """
    waiting: deque[_Slot] = deque()
    while True:
        waiting.extend(_Slot(piece) for piece in islice(pieces, max(0, workers.ahead - len(waiting))))
        if not waiting:
            return
        for slot in islice(waiting, workers.ahead):
            slot.future = slot.future or workers.begin(slot.piece)
        head = waiting.popleft()
        assert head.future is not None
        packed = head.future.result()
        rest, size = head.piece[packed.done :], packed.done
        cuts = [rest[start : start + size] for start in range(0, len(rest), size)]
        waiting.extendleft(_Slot(cut) for cut in reversed(cuts))
        yield packed


@dataclass
class _Slot:
    piece: Piece
    future: Future[Packed] | None = None


class Here:
    """The work in this process, piece after piece."""

    ahead = 1

    def __init__(self, work: Work) -> None:
        self._work = work

    def begin(self, piece: Piece) -> Future[Packed]:
        """Does the work at once."""
        future: Future[Packed] = Future()
        future.set_result(self._work(piece))
        return future


class Processes:
    """Worker processes, each driven by a thread. Use as a context."""

    def __init__(self, count: int, work: Work) -> None:
        self.ahead = 2 * count
        self._hello = pickle.dumps(work, protocol=5)
        self._count = count
        self._all: list[subprocess.Popen[bytes]] = []
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        self._threads = ThreadPoolExecutor(count)

    def __enter__(self) -> Processes:
        for _ in range(self._count):
            process = subprocess.Popen(
                [sys.executable, "-c", _START.format(path=sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pipesize=_PIPE_BYTES,
                start_new_session=True,  # Ctrl-C is for the caller, who ends us
            )
            self._all.append(process)
            self._idle.put(process)
        for process in self._all:
            with suppress(BrokenPipeError):  # it is told of when it should answer
                _input(process).write(self._hello)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._all:
            process.kill()
        self._threads.shutdown()
        for process in self._all:
            process.wait()
            for stream in (process.stdin, process.stdout):
                with suppress(BrokenPipeError):  # what was not flushed
                    if stream is not None:
                        stream.close()

    def begin(self, piece: Piece) -> Future[Packed]:
        """Hands the piece to the next idle worker."""
        return self._threads.submit(self._do, piece)

    def _do(self, piece: Piece) -> Packed:
        process = self._idle.get()
        try:
            stream = _input(process)
            pickle.dump(piece, stream, protocol=5)
            stream.flush()
            answer = pickle.load(process.stdout)  # type: ignore[arg-type]
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            code = process.wait()
            raise StoppedError(
                f"a worker of pack ended (exit code {code}; -9 is often too little memory): the same command goes on; "
                "give fewer --workers if it happens again"
            ) from error
        finally:
            self._idle.put(process)
        if isinstance(answer, BaseException):
            raise answer
        assert isinstance(answer, Packed)
        return answer


def serve() -> None:
    """A worker: takes the work, then pieces, and answers each, until its input ends."""
    pieces, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # nothing but answers goes there
    work = pickle.load(pieces)
    while True:
        try:
            piece = pickle.load(pieces)
        except EOFError:
            return
        try:
            answer: Packed | Exception = work(piece)
        except Exception as error:
            answer = error
        pickle.dump(answer, answers, protocol=5)
        answers.flush()


def _input(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdin is not None
    return process.stdin
