"""Renew the lock files of this folder from the bounds in pyproject.toml.

    python requirements/lock.py [--upgrade] [--torch-index URL]

Pins that still satisfy the bounds stay as they are; --upgrade takes the newest releases instead. The CPU lock needs
the metadata of a CPU build of torch: where the package indexes hold only CUDA builds, name one with CPU builds.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

FOLDER = Path(__file__).resolve().parent
EXTRAS = {"cpu-test.txt": ("cpu", "test"), "gpu.txt": ("gpu",), "docs.txt": ("docs",)}
WITHOUT_THE_PROJECT = ("docs.txt",)
"""Locks of environments in which rlsync itself is not installed, so that they do not hold its dependencies."""
CPU_EXCLUDES = ("torchvision", "torchaudio", "torchcodec")
"""vLLM's CPU wheel asks for these, but their PyPI builds are for CUDA and break `import transformers` beside a CPU
build of torch. Text models need none of them."""
CPU_ADDITIONS = ("intel-cmplr-lib-ur==2024.2.1 ; platform_machine == 'x86_64'",)
"""A dependency of intel-openmp's Linux wheel that uv does not see, because it reads the Windows wheel's metadata."""
MACHINES = [
    {
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": processor,
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{python}.9",
        "python_version": python,
        "sys_platform": "linux",
    }
    for processor in ("x86_64", "aarch64")
    for python in ("3.11", "3.12", "3.13")
]
"""A lock holds what some of these need, with a marker only where they differ."""


def pin(line: str) -> str | None:
    """A line of uv's output as the lock has it, or None if no supported machine installs it."""
    requirement = Requirement(line)
    marker = requirement.marker
    needed = [marker is None or marker.evaluate(machine) for machine in MACHINES]
    if not any(needed):
        return None
    (version,) = (specifier.version for specifier in requirement.specifier)
    version = version.partition("+")[0]  # torch 2.13.0+cpu and 2.13.0 are one release from different indexes
    return f"{requirement.name}=={version}" + ("" if all(needed) else f" ; {marker}")


def resolve(name: str, options: argparse.Namespace, scratch: Path) -> list[str]:
    """The pins of one lock file."""
    output = scratch / name
    if (FOLDER / name).is_file():
        shutil.copy(FOLDER / name, output)  # uv keeps the versions that it finds in its output file
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"]
    command += ["--no-header", "--no-annotate", "--index-strategy", "unsafe-best-match"]
    if "cpu" in EXTRAS[name]:
        excludes = scratch / "excludes.txt"
        excludes.write_text("\n".join(CPU_EXCLUDES))
        additions = scratch / "additions.in"
        additions.write_text("\n".join(CPU_ADDITIONS))
        command += ["--excludes", str(excludes), str(additions)]
        command += ["--extra-index-url", options.torch_index] if options.torch_index else []
        for folder in os.environ.get("PIP_FIND_LINKS", "").split():  # pip reads this variable, uv does not
            command += ["--find-links", folder]
    command += ["--upgrade"] if options.upgrade else []
    subprocess.run([*command, "--output-file", str(output), *asked(name, scratch)], check=True)
    pins = [pin(line) for line in output.read_text().splitlines() if line]
    return [one for one in pins if one]


def asked(name: str, scratch: Path) -> list[str]:
    """The arguments that tell uv what the packages of a lock file are asked for by."""
    project = FOLDER.parent / "pyproject.toml"
    if name not in WITHOUT_THE_PROJECT:
        return [*(word for extra in EXTRAS[name] for word in ("--extra", extra)), str(project)]
    optional = tomllib.loads(project.read_text())["project"]["optional-dependencies"]
    wanted = scratch / f"{name}.in"
    wanted.write_text("\n".join(line for extra in EXTRAS[name] for line in optional[extra]))
    return [str(wanted)]


def header(name: str) -> str:
    """The first line of a lock file."""
    extras = ", ".join(EXTRAS[name])
    only_extras = name in WITHOUT_THE_PROJECT
    what = f"The extra {extras} of pyproject.toml" if only_extras else f"pyproject.toml with the extras {extras}"
    return f"# {what}; made by `make lock`. Install with --no-deps."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upgrade", action="store_true", help="take the newest releases")
    parser.add_argument("--torch-index", default="", help="a package index with CPU builds of torch")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for name in EXTRAS:
            pins = resolve(name, options, Path(scratch))
            (FOLDER / name).write_text("\n".join([header(name), *pins]) + "\n")


if __name__ == "__main__":
    main()
