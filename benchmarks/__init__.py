"""asv suite. `common` comes first: it must choose numba's cache before numba is imported."""

from . import common  # noqa: F401
