"""What the package says of itself agrees with the tree: versions, dependencies, limits, files that it takes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from perchild import __version__, limits
from perchild.control.sites import PROGRAMS

ROOT = Path(__file__).resolve().parents[2]
DEBIAN = ROOT / "packaging/debian"
CONTROL = (DEBIAN / "control").read_text()
UNIT = (DEBIAN / "perchildd.service").read_text()


def field(name: str) -> set[str]:
    """Return the packages that a field of debian/control names."""
    value = re.search(rf"(?m)^{name}:((?: .*\n|\n)(?:[ ].*\n)*)", CONTROL)
    assert value is not None
    return {one.split()[0] for one in value[1].split(",") if one.strip()}


def run_packages() -> set[str]:
    """Return what packaging/lib.sh installs to build and run."""
    done = subprocess.run(["bash", "-c", ". packaging/lib.sh; echo ${run_packages[@]}"], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_package_depends_on_what_the_tree_needs() -> None:
    """A Python package that packaging/lib.sh installs is a dependency; what is for building is one of the build."""
    needed = run_packages()
    libraries = {one for one in needed if one.startswith("python3-")} - {"python3-dev", "python3-setuptools"}
    assert libraries <= field("Depends")
    built_with = {one for one in needed if one.endswith("-dev") and one != "libc6-dev"}
    assert built_with <= field("Build-Depends")


def test_version_and_limits_are_the_trees() -> None:
    """The changelog's version is the program's, the store has the size that the dispatcher counts on."""
    first = (DEBIAN / "changelog").read_text().splitlines()[0]
    assert first.startswith(f"perchildd ({__version__}-")
    assert f"FileDescriptorStoreMax={limits.value('MAX_STORED_FDS')}\n" in UNIT


def test_every_program_is_linked() -> None:
    """pc2ensite's siblings are links to it, and so are their pages and completions."""
    links = (DEBIAN / "perchildd.links").read_text()
    for program in set(PROGRAMS) - {"pc2ensite"}:
        for target in (f"usr/sbin/{program}", f"usr/share/man/man8/{program}.8", f"usr/share/bash-completion/completions/{program}"):
            assert f" {target}\n" in links


def test_unit_takes_nothing_that_tenants_need() -> None:
    """Each of these would break programs of tenants (security.md: mail, run-time compilers, homes)."""
    settings = dict(line.split("=", 1) for line in UNIT.splitlines() if "=" in line and not line.startswith("#"))
    for name in ("NoNewPrivileges", "RestrictSUIDSGID", "MemoryDenyWriteExecute", "ProtectHome", "PrivateTmp", "PrivateUsers"):
        assert name not in settings
    assert settings["ProtectSystem"] == "full"
