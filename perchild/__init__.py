"""perchildd: a web server in which every virtual host is served under its own uid."""

__version__ = "0.1.0"
