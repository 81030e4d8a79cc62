"""How uploads arrive: one request of bounded size, each file in a folder that nobody can guess; what is not fetched is deleted."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

__all__ = ["Intake"]

UPLOAD_ADDRESS = "/gradio_api/upload"
PROGRESS_ADDRESS = "/gradio_api/upload_progress"
MAX_FILES = 32  # of one request: a record has a header and a few signal files
UPLOAD_S = 300.0  # 20 MB arrive in it at half a megabit per second
LEFTOVER_S = 600.0  # a page fetches what it uploaded at once; what lies longer was given up
SWEEP_S = 30.0
ENVELOPE_BYTES = 64_000  # what a request has beside its files: boundaries, names, types
MAX_NAME = 120  # characters of a file's name that are kept, of its end

logger = logging.getLogger(__name__)


class _TooLargeError(Exception):
    """More bytes arrived than were allowed."""


class Intake:
    """The page's upload address, in the place of gradio's own, and the folder that it fills.

    Gradio's own address limits each file and not the request, and names a file's folder by its content: two visitors with the same file
    share one path, and the first to finish deletes it for both. Here each file has a folder of its own with a random name, a request
    leaves all its files or none, and all files that wait together are bounded.

    Args:
        folder: Where uploads arrive.
        max_megabytes: Largest request, of all its files together (1e6 bytes).
        max_waiting: So many requests of the largest size may wait in the folder.
    """

    def __init__(self, folder: str | Path, max_megabytes: float, max_waiting: int = 10) -> None:
        self.folder = Path(folder)
        self.max_bytes = int(max_megabytes * 1e6)
        self.max_waiting_bytes = max_waiting * self.max_bytes
        self._arriving = 0  # bytes promised to requests that are being read; the event loop alone changes it

    def routes(self) -> list[Route]:
        """The addresses; given to FastAPI before gradio adds its own, they are those that are found."""
        return [Route(UPLOAD_ADDRESS, self.receive, methods=["POST"]), Route(PROGRESS_ADDRESS, _progress)]

    async def receive(self, request: Request) -> Response:
        """Store the files of a request; answers with their paths, or with what is wrong in one sentence."""
        length = request.headers.get("content-length", "")
        promised = int(length) if length.isdecimal() else self.max_bytes
        if promised > self.max_bytes + ENVELOPE_BYTES:
            return self._too_large()
        if await run_in_threadpool(self.waiting_bytes) + self._arriving + promised > self.max_waiting_bytes:
            return PlainTextResponse("Too many uploads are waiting: try again in some minutes", 503)
        self._arriving += promised
        try:
            async with asyncio.timeout(UPLOAD_S):
                form = await MultiPartParser(
                    request.headers, self._bounded(request), max_files=MAX_FILES, max_fields=MAX_FILES
                ).parse()
                try:
                    files = [item for _, item in form.multi_items() if isinstance(item, UploadFile)]
                    if not files:
                        return PlainTextResponse("The request holds no file", 400)
                    return JSONResponse(await run_in_threadpool(self._store, files))
                finally:
                    await form.close()
        except _TooLargeError:
            return self._too_large()
        except TimeoutError:
            return PlainTextResponse(f"The upload took longer than {UPLOAD_S:g} s", 408)
        except ClientDisconnect:
            return PlainTextResponse("The upload was broken off", 400)
        except (MultiPartException, KeyError):  # KeyError: a type without a boundary
            return PlainTextResponse(f"The request is no form with at most {MAX_FILES} files", 400)
        except OSError as error:
            logger.exception("an upload could not be stored")
            return PlainTextResponse(f"The upload could not be stored: {error.strerror}", 507)
        finally:
            self._arriving -= promised

    def waiting_bytes(self) -> int:
        """Size of all files in the folder (bytes)."""
        return sum(status.st_size for _, status in self._files())

    def sweep(self, age_s: float = LEFTOVER_S) -> None:
        """Delete every file, and every folder left empty, that has lain for ``age_s`` seconds; what cannot be deleted is passed over."""
        oldest = time.time() - age_s
        for path, status in self._files():
            if status.st_mtime < oldest:
                with suppress(OSError):
                    path.unlink()
        for parent, _, _ in os.walk(self.folder, topdown=False):
            with suppress(OSError):  # not empty, or gone
                if Path(parent) != self.folder and Path(parent).stat().st_mtime < oldest:
                    Path(parent).rmdir()

    @contextmanager
    def sweeping(self, every_s: float = SWEEP_S, age_s: float = LEFTOVER_S) -> Iterator[None]:
        """Sweep now and then, in a thread of its own that no visitor's files can stop."""
        ended = threading.Event()

        def run() -> None:
            """Until the page ends."""
            while not ended.wait(every_s):
                try:
                    self.sweep(age_s)
                except Exception:
                    logger.exception("left-over uploads could not be deleted; tried again in %g s", every_s)

        thread = threading.Thread(target=run, name="sweep-uploads", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Every file with its status; those that go meanwhile are left out."""
        for parent, _, names in os.walk(self.folder):
            for name in names:
                path = Path(parent, name)
                with suppress(OSError):
                    yield path, path.lstat()

    async def _bounded(self, request: Request) -> AsyncGenerator[bytes, None]:
        """The request's bytes, as long as they are few enough: a length may be missing or wrong."""
        arrived = 0
        async for piece in request.stream():
            arrived += len(piece)
            if arrived > self.max_bytes + ENVELOPE_BYTES:
                raise _TooLargeError
            yield piece

    def _store(self, files: list[UploadFile]) -> list[str]:
        """Write files, each into a folder of its own; all or none."""
        made: list[Path] = []
        try:
            paths = []
            for file in files:
                made.append(Path(tempfile.mkdtemp(dir=self.folder)))
                paths.append(made[-1] / _safe_name(file.filename or ""))
                with paths[-1].open("wb") as stored:
                    shutil.copyfileobj(file.file, stored)
        except BaseException:
            for folder in made:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        return [str(path) for path in paths]

    def _too_large(self) -> Response:
        return PlainTextResponse(f"At most {self.max_bytes / 1e6:g} MB are taken, of all files together", 413)


async def _progress(request: Request) -> Response:
    """Ends the browser's waiting for news of an upload: gradio's own address knows nothing of those that arrive here."""
    return Response('data: {"msg": "done"}\n\n', media_type="text/event-stream")


def _safe_name(name: str) -> str:
    r"""A file's name without folders and control characters, not longer than `MAX_NAME`; its end, which says what it is, stays.

    Example:
        >>> _safe_name("../a\\b\n.dat"), _safe_name("..")
        ('b.dat', 'file')
    """
    last = PurePosixPath(name.replace("\\", "/")).name
    plain = "".join(letter for letter in last if letter.isprintable() and letter not in '<>:"|?*').strip()
    return plain[-MAX_NAME:] if plain.strip(".") else "file"
