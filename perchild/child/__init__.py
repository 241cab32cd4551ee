"""The child: RUNS AS THE IDENTITY, and in Python only once a request asks for it."""
