"""What the core costs to install and to start, beside starting Python itself: packages, megabytes, `import davy`, `davy --help`.

    python benchmarks/install.py [--tries 15]

Makes a fresh virtual environment from requirements/core.txt (no extras), with Davy itself as a wheel.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=15)
    tries = parser.parse_args().tries
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "venv"
        began = time.perf_counter()
        python = install(place)
        took = time.perf_counter() - began
        site = next(place.glob("lib/python*/site-packages"))
        packages = sorted(path.name.split("-")[0] for path in site.glob("*.dist-info"))
        size = sum(path.stat().st_blocks * 512 for path in site.rglob("*") if path.is_file())
        bare, imported, helped = (typical(command, tries) for command in (
            [python, "-c", "pass"], [python, "-c", "import davy"], [str(place / "bin" / "davy"), "--help"]))
    print(f"installation     {took:7.1f} s")
    print(f"packages         {len(packages):7}     at most 35")
    print(f"size             {size / 1e6:7.0f} MB  at most 720")
    print(f"python -c pass   {bare:7.1f} ms")
    print(f"import davy      {imported:7.1f} ms  at most 150; {imported / bare:.1f} times starting Python")
    print(f"davy --help      {helped:7.1f} ms  at most 300; {helped / bare:.1f} times starting Python")
    print("\n" + ", ".join(packages))


def install(place: Path) -> str:
    """Make the environment; returns its Python. What builds the wheel is taken out again, and so is pip."""
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    python = str(place / "bin" / "python")
    pip = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps"]
    locks = ROOT / "requirements"
    subprocess.run([*pip, "--require-hashes", "-r", str(locks / "build.txt")], check=True)
    built = subprocess.run([python, "-m", "pip", "list", "--format=freeze"], check=True, capture_output=True, text=True).stdout.split()
    subprocess.run([*pip, "--no-build-isolation", str(ROOT)], check=True)
    names = [line.partition("==")[0] for line in built if not line.startswith("pip==")]
    subprocess.run([python, "-m", "pip", "uninstall", "-qq", "-y", *names], check=True)
    subprocess.run([*pip, "--require-hashes", "-r", str(locks / "core.txt")], check=True)
    subprocess.run([python, "-m", "pip", "uninstall", "-qq", "-y", "pip"], check=True)
    return python


def typical(command: list[str], tries: int) -> float:
    """The median in milliseconds; the first two runs fill caches and don't count."""
    took = []
    for _ in range(tries + 2):
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        took.append((time.perf_counter() - began) * 1000)
    return median(took[2:])


if __name__ == "__main__":
    main()
