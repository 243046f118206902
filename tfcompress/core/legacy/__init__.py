"""tf_keras: everything that Keras 3 does differently. Its sibling `keras3` has the same public names."""

from tfcompress.core.legacy.calls import *  # noqa: F403
from tfcompress.core.legacy.copies import *  # noqa: F403
from tfcompress.core.legacy.graph import *  # noqa: F403
from tfcompress.core.legacy.variables import *  # noqa: F403
