"""From a fingerprint of the data and the speed of this machine to a config."""
