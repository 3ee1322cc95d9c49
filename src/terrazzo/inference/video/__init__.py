"""Videos, streams and cameras: frames in, painted frames and class maps out."""
