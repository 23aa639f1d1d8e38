"""Bytes on their way from a file, a URL or a compressed stream to the cloud, without a copy on disk."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from stacklab.errors import DownloadFailed, MissingProgram
from stacklab.kinds.narration import Upload


@contextmanager
def opened(upload: Upload) -> Iterator[IO[bytes]]:
    """The bytes of `upload`. Raises DownloadFailed if a command of its pipeline failed, MissingProgram if one is missing."""
    if upload.file:
        try:
            file = upload.file.open("rb")
        except OSError as error:
            raise DownloadFailed(f"cannot read {upload.file}: {error.strerror}") from error
        with file:
            yield file
        return
    with piped(upload.pipeline) as output:
        yield output


@contextmanager
def piped(pipeline: tuple[tuple[str, ...], ...]) -> Iterator[IO[bytes]]:
    """What a pipeline of commands prints, while they run."""
    started: list[subprocess.Popen[bytes]] = []
    source: IO[bytes] | int = subprocess.DEVNULL
    try:
        for argv in pipeline:
            started.append(subprocess.Popen(argv, stdin=source, stdout=subprocess.PIPE))
            if not isinstance(source, int):
                source.close()  # the child has it; ours would keep the earlier command from noticing that nobody reads
            output = started[-1].stdout
            assert output is not None  # noqa: S101 -- stdout=PIPE
            source = output
        assert not isinstance(source, int)  # noqa: S101 -- a pipeline has at least one command
        yield source
        source.close()
        for process, argv in zip(started, pipeline, strict=True):
            if process.wait() != 0:
                raise DownloadFailed(f"'{' '.join(argv)}' ended with status {process.returncode}")
    except FileNotFoundError as error:
        raise MissingProgram(
            f"{error.filename} is not installed", advice="install it and run the step again"
        ) from error
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
            process.wait()
