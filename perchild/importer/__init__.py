"""Another server's configuration, read and written anew for perchildd. Runs as: whoever calls perchildctl."""
