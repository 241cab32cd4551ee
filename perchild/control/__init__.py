"""The control socket: requests and answers, perchildctl. Runs as: root, or the uid the server was started by."""
