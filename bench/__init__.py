"""Side-by-side runs of perchildd, nginx, httpd event and httpd mpm-itk on one machine.

Runs as: root, by hand (`sudo bench/run`); no part of the server.
"""
