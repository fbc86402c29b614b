"""What the machine is busy with, under MLflow's names."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from davy.errors import InvalidInput
from davy.tracking import run as start_run
from davy.tracking import runs
from davy.tracking.history import metric_history
from davy.tracking.system import Gpus, Machine

if TYPE_CHECKING:
    from pathlib import Path

    from davy.home import Home

ANYWHERE = {"disk_usage_percentage", "disk_usage_megabytes", "disk_available_megabytes", "process_cpu_percentage"}
ON_LINUX = {*ANYWHERE, "cpu_utilization_percentage", "system_memory_usage_megabytes", "system_memory_usage_percentage", "process_memory_megabytes",
            "network_receive_megabytes", "network_transmit_megabytes"}
# A driver's library as NVIDIA's own: two processors, of which the second does not tell its power.
DRIVER = """
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) { *handle = (void *)(long)(index + 1); return 0; }
int nvmlDeviceGetMemoryInfo(void *handle, unsigned long long *memory) { memory[0] = 16000000000; memory[1] = 12000000000; memory[2] = 4000000000; return 0; }
int nvmlDeviceGetUtilizationRates(void *handle, unsigned *busy) { busy[0] = 10 * (unsigned)(long)handle; busy[1] = 5; return 0; }
int nvmlDeviceGetPowerUsage(void *handle, unsigned *power) { *power = 75000; return (long)handle == 2 ? 3 : 0; }
int nvmlDeviceGetEnforcedPowerLimit(void *handle, unsigned *power) { *power = 300000; return 0; }
"""


def test_a_sample_is_what_the_machine_says() -> None:
    machine = Machine()
    begin = time.process_time()
    while time.process_time() - begin < 0.05:
        sum(range(1000))
    found = machine.sample()
    assert (ON_LINUX if sys.platform == "linux" else ANYWHERE) <= found.keys()
    for name, value in found.items():
        assert value >= 0, name
        assert not name.endswith("percentage") or name == "process_cpu_percentage" or value <= 100, name
    assert found["process_cpu_percentage"] > 0
    disk = shutil.disk_usage("/")
    assert found["disk_usage_megabytes"] + found["disk_available_megabytes"] == pytest.approx((disk.used + disk.free) / 1e6, rel=0.01)


def test_processors_are_asked_through_their_drivers_library(tmp_path: Path) -> None:
    assert Gpus.find(str(tmp_path / "none.so")) is None
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to build a driver's library with")
    (tmp_path / "driver.c").write_text(DRIVER)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(tmp_path / "driver.so"), str(tmp_path / "driver.c")], check=True)
    gpus = Gpus.find(str(tmp_path / "driver.so"))
    assert gpus is not None
    assert gpus.sample() == {
        "gpu_0_memory_usage_percentage": 25, "gpu_0_memory_usage_megabytes": 4000, "gpu_0_utilization_percentage": 10, "gpu_0_power_usage_watts": 75,
        "gpu_0_power_usage_percentage": 25, "gpu_1_memory_usage_percentage": 25, "gpu_1_memory_usage_megabytes": 4000, "gpu_1_utilization_percentage": 20}


def test_a_run_logs_samples_as_metrics_while_it_is_open(home: Home) -> None:
    run = start_run(home=home, system_metrics=0.1)
    deadline = time.monotonic() + 30
    count = 0
    while count < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
        with home.database.read() as connection:
            count = metric_history(connection, run.id, "system/process_cpu_percentage").total
    run.finish()
    with home.database.read() as connection:
        found = runs.get_run(connection, run.id)
        steps = metric_history(connection, run.id, "system/disk_usage_percentage").steps
    assert all(key.startswith("system/") for key in found.metrics)
    assert steps == list(range(len(steps)))


def test_a_short_run_has_none_and_a_wrong_interval_is_refused(home: Home) -> None:
    with start_run(home=home) as run, start_run(home=home, system_metrics=False):
        run.log(loss=1.0)
    with home.database.read() as connection:
        assert runs.get_run(connection, run.id).metrics == {"loss": 1.0}
    wrong: list[Any] = [0.0001, -1, "10", float("nan")]
    for seconds in wrong:
        with pytest.raises(InvalidInput, match="system_metrics"):
            start_run(home=home, system_metrics=seconds)
