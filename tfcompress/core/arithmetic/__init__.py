"""The exact integer arithmetic of LiteRT's kernel sets, in TensorFlow: what a phone or a microcontroller computes."""
