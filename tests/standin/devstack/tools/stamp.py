#!/usr/bin/env python3
"""Print each line that comes in with the time (UTC) before it, and append it to the file that is named."""

import sys
import time
from pathlib import Path


def now() -> bytes:
    seconds, milliseconds = divmod(time.time_ns() // 1_000_000, 1000)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(seconds))}.{milliseconds:03} | ".encode()


with Path(sys.argv[1]).open("ab", buffering=0) as log:
    for line in sys.stdin.buffer:
        stamped = now() + line
        sys.stdout.buffer.write(stamped)
        sys.stdout.buffer.flush()
        log.write(stamped)
