"""What `tfcompress demo` does: a network trained, compressed four ways, and measured on the real runtime."""
