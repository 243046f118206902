"""Sparsity: zeros held by projections while a plain model trains, and channels taken out for good."""
