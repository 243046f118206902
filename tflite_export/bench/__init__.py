"""Files measured on real runtimes: one module a target, one result for all. Needs no TensorFlow."""
