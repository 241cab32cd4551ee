"""What all tests start from: the limit of descriptors as high as it may be, as a service manager sets it for a server."""

import resource

_, _HARD = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(_HARD, 20_000), _HARD))
