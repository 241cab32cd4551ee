"""`python3 -m perchild.control`: perchildctl.

Runs as: root, or the uid the server was started by.
"""

import sys

from perchild.control.command import main

sys.exit(main(sys.argv[1:]))
