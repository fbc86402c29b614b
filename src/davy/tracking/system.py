"""What the machine is busy with while a run is open, under the names that MLflow gives them.

From Linux's /proc and NVIDIA's own library; elsewhere what the standard library knows. Nothing here ever fails a run.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from davy.errors import DavyError, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PREFIX = "system/"
SECONDS, FEWEST_SECONDS = 10.0, 0.1
_MEGA = 1e6
_SECTOR = 512


class SystemMetrics:
    """Logs a sample now and then on a thread of its own, the first after one interval.

    Args:
        seconds: between two samples (default: ten).
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = SECONDS if seconds is None else seconds
        if isinstance(self._seconds, bool) or not isinstance(self._seconds, (int, float)) or not self._seconds >= FEWEST_SECONDS:
            raise InvalidInput(f"system_metrics={seconds!r} came.", f"It is true, false, or a number of seconds of at least {FEWEST_SECONDS}.",
                               "Write system_metrics=30 for one sample every 30 s.")
        self._stop = threading.Event()

    def start(self, log: Callable[[Mapping[str, float]], object]) -> None:
        """Have samples logged until `stop`."""
        thread = threading.Thread(target=self._work, args=(log,), name="davy-system", daemon=True)
        with suppress(RuntimeError):  # the interpreter is ending
            thread.start()

    def stop(self) -> None:
        """Take no more samples."""
        self._stop.set()

    def _work(self, log: Callable[[Mapping[str, float]], object]) -> None:
        if self._stop.wait(min(self._seconds, 1.0)):  # short runs pay for nothing
            return
        machine = Machine()
        while not self._stop.wait(self._seconds):
            with suppress(DavyError):  # the run has ended meanwhile, or its store is told to be full by whoever logs
                log({PREFIX + name: value for name, value in machine.sample().items()})


class Machine:
    """This machine and process; rates are since the last sample, traffic since this was made."""

    def __init__(self) -> None:
        self._cpu, self._process, self._time = _cpu(), time.process_time(), time.monotonic()
        self._network, self._disks = _network(), _disks()
        self._gpus = Gpus.find()

    def sample(self) -> dict[str, float]:
        """The metrics by name; what this platform does not tell is left out."""
        found = self._busy()
        with suppress(OSError, ValueError, KeyError):
            total, available = _memory()
            found["system_memory_usage_megabytes"] = (total - available) / _MEGA
            found["system_memory_usage_percentage"] = 100 * (total - available) / total
        with suppress(OSError, ValueError, IndexError):
            found["process_memory_megabytes"] = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / _MEGA
        with suppress(OSError, ZeroDivisionError):
            disk = shutil.disk_usage(os.sep)
            found["disk_usage_percentage"] = 100 * disk.used / (disk.used + disk.free)
            found["disk_usage_megabytes"] = disk.used / _MEGA
            found["disk_available_megabytes"] = disk.free / _MEGA
        for (read, written), now, before in ((("network_receive", "network_transmit"), _network(), self._network),
                                             (("disk_read", "disk_write"), _disks(), self._disks)):
            if now is not None and before is not None:
                found[f"{read}_megabytes"], found[f"{written}_megabytes"] = (now[0] - before[0]) / _MEGA, (now[1] - before[1]) / _MEGA
        if self._gpus is not None:
            found |= self._gpus.sample()
        return {name: round(value, 3) for name, value in found.items()}

    def _busy(self) -> dict[str, float]:
        cpu, process, now = _cpu(), time.process_time(), time.monotonic()
        found = {"process_cpu_percentage": 100 * (process - self._process) / max(now - self._time, 1e-9)}
        if cpu is not None and self._cpu is not None and cpu[1] > self._cpu[1]:
            found["cpu_utilization_percentage"] = 100 * (cpu[0] - self._cpu[0]) / (cpu[1] - self._cpu[1])
        self._cpu, self._process, self._time = cpu, process, now
        return found


def _cpu() -> tuple[int, int] | None:
    """(busy, all) ticks of all processors since the machine was started."""
    try:
        with open("/proc/stat") as file:
            ticks = [int(word) for word in file.readline().split()[1:9]]  # guests are counted in the first two already
        return sum(ticks) - ticks[3] - ticks[4], sum(ticks)
    except (OSError, ValueError, IndexError):
        return None


def _memory() -> tuple[int, int]:
    """(total, available) bytes."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    found = {words[0]: int(words[1]) * 1024 for words in lines if words[0] in ("MemTotal:", "MemAvailable:")}
    return found["MemTotal:"], found["MemAvailable:"]


def _network() -> tuple[int, int] | None:
    """(received, sent) bytes of all interfaces since the machine was started."""
    try:
        rows = [line.rpartition(":")[2].split() for line in Path("/proc/net/dev").read_text().splitlines()[2:]]
        return sum(int(row[0]) for row in rows), sum(int(row[8]) for row in rows)
    except (OSError, ValueError, IndexError):
        return None


def _disks() -> tuple[int, int] | None:
    """(read, written) bytes of all whole disks since the machine was started."""
    try:
        whole = {name for name in os.listdir("/sys/block") if not name.startswith(("loop", "ram", "dm-", "md", "zram"))}
        rows = [words for line in Path("/proc/diskstats").read_text().splitlines() if (words := line.split())[2] in whole]
        return sum(int(row[5]) for row in rows) * _SECTOR, sum(int(row[9]) for row in rows) * _SECTOR
    except (OSError, ValueError, IndexError):
        return None


class Gpus:
    """NVIDIA's processors, through the library that comes with their driver."""

    def __init__(self, library: Any, handles: list[Any]) -> None:
        self._library, self._handles = library, handles

    @staticmethod
    def find(name: str | None = None) -> Gpus | None:
        """The processors of this machine, None where there are none."""
        import ctypes

        try:
            library = ctypes.CDLL(name or ("nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"))
            count = ctypes.c_uint()
            if library.nvmlInit_v2() or library.nvmlDeviceGetCount_v2(ctypes.byref(count)):
                return None
            handles = [ctypes.c_void_p() for _ in range(count.value)]
            handles = [handle for index, handle in enumerate(handles) if not library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle))]
        except (OSError, AttributeError):
            return None
        return Gpus(library, handles) if handles else None

    def sample(self) -> dict[str, float]:
        """The metrics by name; what a processor does not tell is left out."""
        import ctypes

        found: dict[str, float] = {}
        for index, handle in enumerate(self._handles):
            memory, busy = (ctypes.c_ulonglong * 3)(), (ctypes.c_uint * 2)()  # total, free, used; processor, memory
            watts, most = ctypes.c_uint(), ctypes.c_uint()
            if not self._library.nvmlDeviceGetMemoryInfo(handle, memory) and memory[0]:
                found[f"gpu_{index}_memory_usage_percentage"] = 100 * memory[2] / memory[0]
                found[f"gpu_{index}_memory_usage_megabytes"] = memory[2] / _MEGA
            if not self._library.nvmlDeviceGetUtilizationRates(handle, busy):
                found[f"gpu_{index}_utilization_percentage"] = busy[0]
            if not self._library.nvmlDeviceGetPowerUsage(handle, ctypes.byref(watts)):
                found[f"gpu_{index}_power_usage_watts"] = watts.value / 1000
                if not self._library.nvmlDeviceGetEnforcedPowerLimit(handle, ctypes.byref(most)) and most.value:
                    found[f"gpu_{index}_power_usage_percentage"] = 100 * watts.value / most.value
        return found
