"""A board, added up and shown: for status pages, metrics and perchildctl. Pure. Runs as: children, perchildctl."""
