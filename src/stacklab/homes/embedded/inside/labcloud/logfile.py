"""One bounded log file a service: what it wrote last, and keeping it from filling the disk."""

import os
import re
import shutil

LIMIT = 8 << 20
# an exception's own line, with or without oslo.log's prefix; else anything logged as an error
_EXCEPTION = re.compile(r"(?:^|[ .])\w*(?:Error|Exception|Exit|NotFound|Failed|Timeout)\w*[:)] \S")
_TELLING = re.compile(r"\b(ERROR|CRITICAL)\b.*\S")


def last_meaningful_line(path, since=0):
    """The last line after byte `since` that names an exception, else an error, else the last; "" for none."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            file.seek(max(0, size - 65536, min(since, size)))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()][-60:]  # an error long ago explains nothing
    exceptions = [line for line in lines if _EXCEPTION.search(line)]
    telling = [line for line in lines if _TELLING.search(line)]
    return (exceptions or telling or lines or [""])[-1][:300]


def keep_bounded(path):
    """Move what is there to <name>.1 once it is too long; the service appends on, so the file is cut, not renamed."""
    try:
        if path.stat().st_size > LIMIT:
            shutil.copyfile(path, path.with_suffix(".log.1"))
            os.truncate(path, 0)
    except OSError:
        return  # a full disk is reported by those who must write; a log can wait
