"""Build the extension in place: `python3 native/build.py` makes perchild/_native*.so from native/*.c.

Debian: python3-cffi, python3-dev, gcc, libpcre2-dev, libseccomp-dev, libssl-dev, libnghttp2-dev.  Runs as: whoever builds.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import cffi

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
FLAGS = ["-std=gnu17", "-D_GNU_SOURCE", "-O2", "-g", "-fno-strict-aliasing", "-fvisibility=hidden", "-fstack-protector-strong",
         "-D_FORTIFY_SOURCE=2", "-fPIC", "-pthread",
         "-idirafter", str(HERE)]  # -I would put our limits.h before the system's
LIBRARIES = ["pcre2-8", "seccomp", "ssl", "crypto", "nghttp2"]


def make_ffi() -> cffi.FFI:
    """Return the builder: declarations from cdef.h, our sources compiled with our warnings, cffi's glue without them."""
    ffi = cffi.FFI()
    ffi.cdef((HERE / "cdef.h").read_text())
    ffi.set_source(
        "perchild._native",
        "".join(f'#include "{name}.h"\n' for name in ("certcheck", "child", "nursery", "runexec", "runner")),
        libraries=LIBRARIES,
        extra_compile_args=[*FLAGS, "-Werror=implicit-function-declaration"],
        extra_link_args=["-pthread", "-Wl,-z,relro,-z,now"],
    )
    return ffi


def compile_objects(directory: Path) -> list[str]:
    """Compile each native/*.c with every warning an error; return the object files. Two at a time, as there are cores."""
    from concurrent.futures import ThreadPoolExecutor
    from subprocess import run

    sources = sorted(HERE.glob("*.c"))
    compiler = os.environ.get("CC", "cc")

    ours = os.environ.get("CFLAGS", "").split()  # a package's: hardening, paths that say nothing of where it was built

    def one(source: Path) -> str:
        target = directory / f"{source.stem}.o"
        run([compiler, *ours, *FLAGS, *WARNINGS, "-c", str(source), "-o", str(target)], check=True)
        return str(target)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(pool.map(one, sources))


def is_fresh(target: Path | None) -> bool:
    """Whether the extension is newer than everything it is made from."""
    if target is None:
        return False
    parts = [*HERE.glob("*.[ch]"), Path(__file__)]
    return target.stat().st_mtime > max(part.stat().st_mtime for part in parts)


def main() -> None:
    """Build if anything changed."""
    existing = next(iter(sorted((ROOT / "perchild").glob("_native.*.so"))), None)
    if is_fresh(existing) and "--force" not in sys.argv:
        return
    with tempfile.TemporaryDirectory(prefix="perchild-build.") as name:
        directory = Path(name)
        ffi = make_ffi()
        module_name, source, options, keywords = ffi._assigned_source  # noqa: SLF001 - objects are only known now
        keywords["extra_objects"] = compile_objects(directory)
        ffi._assigned_source = (module_name, source, options, keywords)  # noqa: SLF001
        built = Path(ffi.compile(tmpdir=str(directory), verbose=False))
        for old in (ROOT / "perchild").glob("_native.*.so"):
            old.unlink()
        target = ROOT / "perchild" / built.name
        temporary = target.with_suffix(".new")
        temporary.write_bytes(built.read_bytes())
        temporary.chmod(0o755)
        temporary.rename(target)
        print(f"built {target.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
