"""Analysis jobs of Cartography that stock runs within a module: queries over what the account has in the graph.

The table is closed: a message can only name an entry of it.
"""

from __future__ import annotations

import importlib
from functools import lru_cache

from cartoray.errors import UnreadableMessage
from cartoray.queries import Query

_JOBS = frozenset({"cartography.analysis.aws.s3.analysis:AWS_S3ACL_ANALYSIS"})


@lru_cache(maxsize=16)
def analysis(path: str) -> tuple[Query, ...]:
    """Stock's queries in their order, of which each takes $AWS_ID and $UPDATE_TAG. Raises UnreadableMessage."""
    if path not in _JOBS:
        raise UnreadableMessage(f"{path!r} is not among the analysis jobs that cartoray runs.")
    from cartography.graph.analysisbuilder import to_graph_job  # noqa: PLC0415 - takes a second

    module, _, name = path.partition(":")
    job = to_graph_job(getattr(importlib.import_module(module), name))
    return tuple(Query(each.query, each.parameters, repeat=each.iterative) for each in job.statements)
