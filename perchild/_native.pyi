# The extension that native/build.py makes; perchild/native.py gives it types.

from typing import Any

ffi: Any
lib: Any
