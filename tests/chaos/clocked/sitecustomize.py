"""For processes whose clock jumps: libfaketime 0.9.10 takes the moment until which Python sleeps, which is one of the
clock that only rises, for one of the clock that jumps, and refuses it (EINVAL). A wait for nothing takes no moment."""

import select
import time
from typing import Any


def sleep(seconds: Any) -> None:
    select.select([], [], [], seconds)


time.sleep = sleep
