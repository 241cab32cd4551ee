"""`python3 -m perchild`: perchildd.

Runs as: whoever calls it.
"""

import sys

from perchild.cli import main

sys.exit(main())
