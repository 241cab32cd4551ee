"""The version, and how the server names itself.

Runs as: any role (pure).
"""

from __future__ import annotations

from perchild import __version__

SERVER = f"perchildd/{__version__}"
HTTPD = "Apache/2.4.63"  # the httpd whose configuration language this is (config/modules.py HTTPD_VERSION)
