"""Keras 3: everything that tf_keras does differently. Its sibling `legacy` has the same public names."""

from tfcompress.core.keras3.calls import *  # noqa: F403
from tfcompress.core.keras3.copies import *  # noqa: F403
from tfcompress.core.keras3.graph import *  # noqa: F403
from tfcompress.core.keras3.variables import *  # noqa: F403
