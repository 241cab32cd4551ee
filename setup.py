"""What pyproject.toml cannot say: the extension is built in place by native/build.py, and goes into the wheel as it is."""

import subprocess
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent


class BuildNative(build_py):
    """Build perchild/_native*.so before the package is copied."""

    def run(self) -> None:
        """Build, then copy."""
        subprocess.run([sys.executable, str(HERE / "native" / "build.py")], check=True)
        super().run()


class PlatformDistribution(Distribution):
    """The wheel is for one platform, though setuptools sees no extension module."""

    def has_ext_modules(self) -> bool:
        """Say that it has."""
        return True


setup(cmdclass={"build_py": BuildNative}, distclass=PlatformDistribution)
