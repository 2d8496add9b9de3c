"""A schema → the Cypher that puts its rows into the graph. Texts only; nothing here talks to a database.

The graph must be stock Cartography's, so its own query builder writes the node statements, and only the way in which
values reach them is rewritten. Rows travel as lists, because parsing maps cost the server more than writing them.

    $rows    [[v0, v1, …, load, row, fingerprint], …]    values in the order of `schemas.fields`, numbers of the load
                                                         and of the row
    $keys    [[id, load, row, fingerprint, …], …]        the same without values, but for a few
    $loads   [{AWS_ID: …, Region: …, lastupdated: …}, …]    what stock passes as kwargs, for an account, region, run

Stock writes a node and its relationships in one statement, and a relationship whose other end is missing is silently
not made. Here each relationship has a statement of its own, which answers the rows for which both ends were there. So
has a matchlink, which is rows for a relationship alone.

Neo4j writes a property again even if its value stays the same, which costs five times as much as comparing. So nodes
that are as they should be only get their `lastupdated`, and a second sync writes little more than that. Which ones are,
a fingerprint tells that the node carries, or, where that may not be relied on, a comparison of all values.

`lastupdated` never goes back, so that overlapping runs of an account do not undo each other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache

from cartography.graph.querybuilder import (
    _get_module_from_schema,
    build_ingestion_query,
    build_matchlink_query,
)
from cartography.models.core.common import PropertyRef
from cartography.models.core.nodes import CartographyNodeSchema
from cartography.models.core.relationships import CartographyRelSchema, LinkDirection
from cartography.version import get_cartography_version

from cartoray import schemas
from cartoray.errors import UnreadableMessage
from cartoray.queries import Query
from cartoray.steps import ACCOUNT_LABEL
from ingestion.fingerprint import PROPERTY

# Labels that are one schema's own and another's extra label: two nodes that differ may carry it with the same id, so
# their ids are not constrained. A test compares this with all schemas of the release.
SHARED_LABELS = frozenset({"AWSIpRule", "AWSPrincipal", "CVE", "GCPBucketLabel", "SlackUser"})

# Labels that queries of Cartography's own merge by id, for several accounts at once.
MERGED_BY_QUERIES = frozenset({"AWSTag"})

# The node of an account tells which runs left nodes of it untouched, the newest last: "<update tag> <run id>". To a run
# that is older, these nodes look stale.
LAZY_RUNS = "_cartoray_lazy_runs"
BEGIN_LAZY = (
    f"MATCH (a:AWSAccount{{id: $AWS_ID}})\n"
    f"SET a.{LAZY_RUNS} = [run IN coalesce(a.{LAZY_RUNS}, []) WHERE run <> $run][-7..] + [$run]"
)
OTHER_LAZY_RUNS = (
    f"MATCH (a:AWSAccount{{id: $AWS_ID}}) UNWIND a.{LAZY_RUNS} AS run WITH split(run, ' ') AS run\n"
    "WHERE toInteger(run[0]) >= $UPDATE_TAG AND run[1] <> $RUN_ID RETURN count(*) > 0"
)

# As `merge_module_sync_metadata` of `cartography.util`, but that the time never goes back.
MARK_SYNCED = """\
MERGE (n:ModuleSyncMetadata{id: $GROUP + '_' + $ACCOUNT + '_' + $LABEL})
ON CREATE SET n:SyncMetadata, n.firstseen = timestamp()
SET n.syncedtype = $LABEL, n.grouptype = $GROUP, n.groupid = $ACCOUNT,
    n.lastupdated = CASE WHEN n.lastupdated > $UPDATE_TAG THEN n.lastupdated ELSE $UPDATE_TAG END"""

# string literals first, so that nothing inside of one is taken for a value
_TOKENS = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|\bitem\.(\w+(?:\.\w+)*)|\$(\w+)""")
_LAST_UPDATED = re.compile(r"\b(\w+)\.lastupdated = ([^\s,;]+)([,;]?)$", re.MULTILINE)
_ROWS = re.compile(r"UNWIND \$DictList (?:AS|as) item")
_SET = re.compile(r"\n\s*SET\s*\n")
_ASSIGNED = re.compile(r"^i\.(\w+) = (.+)$", re.DOTALL)
_INDEX = re.compile(r"^CREATE INDEX IF NOT EXISTS FOR (\(n:\w+\)|\(\)<?-\[r:\w+\]->?\(\)) ON \(([^)]+)\);$")
_UNBOUND = re.compile(r"MATCH \(n:(\w+)\)\s+MATCH \(n\)(<?-\[r:\w+\]->?)\(:(\w+)\)\s+WHERE ")
_OF_MATCHLINK = re.compile(r"MATCH \(from:(\w+)\)(<?-\[r:\w+\]->?)\(to:(\w+)\)\s+WHERE ")
_OF_PART = re.compile(r"MATCH \(n:(\w+)\)(<?-\[s:\w+\]->?)\(:(\w+)\{id: \$\w+\}\)\s+WHERE ")
_SUB_RESOURCE = re.compile(r"MATCH \(n:(\w+)\)(<?-\[s:\w+\]->?)\((:(\w+)\{(\w+): \$\w+\})\)\s+(WHERE )?")
ALL = "LIMIT 9223372036854775807"  # behind a limit, Neo4j's planner moves no predicate to before it
_OTHER_TAG = re.compile(r"(\blastupdated) <> (\$UPDATE_TAG\b)")
# a cleanup of nodes of the account, or of the relationships that make them so; no other pattern follows
_OF_NODES = re.compile(
    r"\s*(MATCH \(n\)(<-\[s:\w+\]-)\(sub:AWSAccount\{id: \$AWS_ID\}\)\s+USING INDEX SEEK [^\n]+\s+"
    r"WITH n, s LIMIT \d+ WHERE n:(\w+)\s+)"
    r"AND [ns]\.lastupdated "
)
_GUARD = "WITH DISTINCT "  # from here on, a guarded query does what is left to do once something was found
# each condition ends where the next one begins, else there are as many ways to read them as to leave some out
_CLEANUP = re.compile(
    r"(?P<var>\w)\.lastupdated <> \$UPDATE_TAG(?P<more>(?:\s+AND (?:(?!\sAND |\sWITH \w LIMIT)[^\n])++)*+)\s+"
    r"WITH (?P=var) LIMIT \$LIMIT_SIZE\s+(?P<detach>DETACH )?DELETE (?P=var);\s*$"
)


@dataclass(frozen=True)
class Index:
    """An index that stock makes; `unique`: made as a uniqueness constraint here, so that concurrent MERGEs agree."""

    label: str  # or the pattern of an index on relationships
    properties: tuple[str, ...]
    unique: bool
    query: str


@dataclass(frozen=True)
class Relationship:
    """One relationship of a schema. Its statement takes rows of its own (`relationship_rows`), answers one list:

    numbers of those rows for which both ends are in the graph, and the relationship therefore is as well.
    """

    number: int
    name: str  # for people: AWSEC2Instance-INSTANCE_PROFILE->AWSInstanceProfile
    target_label: str
    query: str
    per_load: bool  # the other end follows from the load alone: matched once per load, not per row
    id_at: int | None  # place of the node's id in the schema's fields; None: it is a constant of the load
    fields_at: tuple[int, ...]  # places of what else the statement reads, in its order
    needed_at: tuple[int, ...]  # of these, what the match needs: a row without one has no such relationship
    list_at: int | None  # place of the list of which each entry is a relationship (Cartography's one_to_many)
    needed_constants: tuple[str, ...]
    touched: bool  # by the statement that touches nodes


@dataclass(frozen=True)
class Comparison:
    """What finds out how nodes differ from their rows, and writes that alone.

    `query` takes $rows, $loads and $none, any value that no row can have. It sets `lastupdated` and the fingerprint of
    all nodes that are there, and answers for each [number of the row], or [number, [k, …], [value, …]]: of property
    `names[k]` the value should be that one, $none for null. `apply` takes $changes: [[id, {property: value}], …].
    """

    names: tuple[str, ...]
    query: str
    apply: str


@dataclass(frozen=True)
class Recognition:
    """What recognises nodes that are as they should be, without the values of their rows.

    They take $keys, which end with the values of the fields at `fields_at`, $loads, and $none as the comparison does,
    and answer the numbers of the rows whose node carries their fingerprint, and has the relationships that are
    `touched`. With `query` all of these get their `lastupdated`. With `lazy` nothing is written; a cleanup then has to
    go by ids, so it finds no node that other accounts have as well, and there is none for a schema whose cleanup is
    not of one account's nodes.
    """

    query: str
    lazy: str | None
    fields_at: tuple[int, ...]


@dataclass(frozen=True)
class Statements:
    """What is run for one schema: of nodes with their relationships, or of a matchlink, which has no nodes."""

    path: str
    labels: frozenset[str]  # own, extra and conditional ones; of a matchlink those of its ends
    fields: tuple[str, ...]
    constants: tuple[str, ...]
    id_at: int | None
    nodes: str | None
    compare: Comparison | None
    relationships: tuple[Relationship, ...]
    indexes: tuple[Index, ...]


@lru_cache(maxsize=4096)
def statements(path: str) -> Statements:
    """The statements of the schema that `path` names. Raises UnreadableMessage: there is no such schema."""
    if schemas.is_matchlink(path):
        return _matchlink(path)
    schema = schemas.node_schema(path)
    fields = schemas.fields(path)
    id_ref: PropertyRef = schema.properties.id
    nodes = _nodes(schema, fields)
    relationships = tuple(
        _relationship(schema, relationship, number, fields)
        for number, relationship in enumerate(schemas.relationships(schema))
    )
    extra = schema.extra_node_labels.labels if schema.extra_node_labels else ()
    return Statements(
        path=path,
        labels=frozenset({schema.label, *(label.label for label in extra)}),
        fields=fields,
        constants=schemas.constants(path),
        id_at=None if id_ref.set_in_kwargs else fields.index(id_ref.name),
        nodes=nodes,
        compare=_comparison(nodes, schema.label, len(fields)),
        relationships=relationships,
        indexes=tuple(index(query, schema.label) for query in schemas.index_queries(path)),
    )


def _matchlink(path: str) -> Statements:
    schema, fields = schemas.matchlink_schema(path), schemas.fields(path)
    try:
        stock = build_matchlink_query(schema)
    except ValueError as error:
        raise UnreadableMessage(f"{path} stands for no rows: {error}") from None
    places = {field: f"item[{at}]" for at, field in enumerate(fields, start=1)}
    accounts, body = (rewritten(part, places).strip().rstrip(";") for part in around_rows(stock, path))
    refs = list(schemas.matched(schema))
    left, right = _arrow(schema)
    link = Relationship(
        number=0,
        name=f"{schema.source_node_label}{left}{schema.rel_label}{right}{schema.target_node_label}",
        target_label=schema.target_node_label,
        query=(
            f"UNWIND $loads AS load\n{accounts}\nUNWIND load.rows AS item\n{body}\n"
            f"RETURN collect(DISTINCT item[{len(fields) + 1}])"
        ),
        per_load=True,
        id_at=None,
        fields_at=tuple(range(len(fields))),
        needed_at=tuple(dict.fromkeys(fields.index(ref.name) for ref in refs if not ref.set_in_kwargs)),
        list_at=None,
        needed_constants=tuple(dict.fromkeys(ref.name for ref in refs if ref.set_in_kwargs)),
        touched=False,
    )
    return Statements(
        path=path,
        labels=frozenset({str(schema.source_node_label), schema.target_node_label}),
        fields=fields,
        constants=schemas.constants(path),
        id_at=None,
        nodes=None,
        compare=None,
        relationships=(link,),
        indexes=tuple(index(query) for query in schemas.index_queries(path)),
    )


def rewritten(text: str, places: Mapping[str, str], load: str = "load") -> str:
    """`text` of stock's builder with `item.<field>` read from `places` and `$<constant>` from the load.

    Raises ValueError for a field without a place: the builder's text is not what this release was written for.
    """

    def replace(found: re.Match[str]) -> str:
        literal, field, constant = found.groups()
        if literal is not None:
            return str(literal)
        if constant is not None:
            return f"{load}.{constant}"
        if field not in places:
            raise ValueError(f"Cartography's query reads item.{field}, which is not among the schema's fields.")
        return places[field]

    return never_back(_TOKENS.sub(replace, text))


def never_back(text: str) -> str:
    """`x.lastupdated = new` that keeps the newer of the two."""
    return _LAST_UPDATED.sub(r"\1.lastupdated = CASE WHEN \1.lastupdated > \2 THEN \1.lastupdated ELSE \2 END\3", text)


def around_rows(stock: str, name: str) -> tuple[str, str]:
    """What stands before and behind the place where stock's query for `name` unwinds its rows. Raises ValueError."""
    parts = _ROWS.split(stock)
    if len(parts) != 2 or "$DictList" in "".join(parts):
        raise ValueError(f"Cartography's query for {name} does not begin as expected.")
    return parts[0], parts[1]


def _nodes(schema: CartographyNodeSchema, fields: Sequence[str]) -> str:
    stock = build_ingestion_query(schema, selected_relationships=set())
    places = {field: f"item[{at}]" for at, field in enumerate(fields)}
    _, body = around_rows(stock, schema.label)
    body = rewritten(body, places).strip()
    if len(_SET.findall(body)) != 1 or "i.lastupdated = " not in body:
        raise ValueError(f"Cartography's query for {schema.label} does not set what was expected.")
    body = _SET.sub(f"\nSET\n    i.{PROPERTY} = item[{len(fields) + 2}],\n", body)
    return f"UNWIND $rows AS item\nWITH item, $loads[item[{len(fields)}]] AS load\n{body}"


@lru_cache(maxsize=4096)
def recognition(path: str, volatile: frozenset[str]) -> Recognition | None:
    """None where labels depend on properties: others may set these labels too, so they are written with the node.

    `volatile` properties may be others than those that a fingerprint was made of. Their values are compared.
    """
    if schemas.is_matchlink(path):
        return None
    schema, made = schemas.node_schema(path), statements(path)
    if made.nodes is None or made.id_at is None or "FOREACH" in made.nodes:
        return None
    assigned = _assigned(made.nodes, schema.label)
    places: dict[str, int] = {}

    def place(found: re.Match[str]) -> str:
        return f"item[{4 + places.setdefault(found[1], len(places))}]"

    # where the graph is newer, what follows would take it back
    wanted = [f"i.{PROPERTY} = item[3]", "i.lastupdated <= load.lastupdated", *_carries(assigned.labels)]
    for name in sorted(volatile & assigned.properties.keys()):
        value = re.sub(r"\bitem\[(\d+)\]", place, assigned.properties[name])
        wanted.append(f"coalesce(i.{name}, $none) = coalesce({value}, $none)")
    lines = [
        "UNWIND $keys AS item",
        "WITH item, $loads[item[1]] AS load",
        f"MATCH (i:{schema.label}{{id: item[0]}})",
        f"USING INDEX SEEK i:{schema.label}(id)",  # planned for a graph that was small, it may begin at the account
        f"WHERE {' AND '.join(wanted)}",
    ]
    sets = ["SET i.lastupdated = load.lastupdated"]
    followed = [each for each in schemas.relationships(schema) if _is_touched(each)]
    for number, relationship in enumerate(followed):
        r, n = f"r{number}", f"n{number}"
        left, right = _arrow(relationship)
        ends = [
            f"{n}.id = {asdict(relationship.target_node_matcher)['id']}",
            f"{r}.lastupdated <= {relationship.properties.lastupdated}",
        ]
        ends += [f"{r}.{name} = {value}" for name, value in _written(relationship).items() if name != "lastupdated"]
        lines += [
            f"MATCH (i){left}[{r}:{relationship.rel_label}]{right}({n}:{relationship.target_node_label})",
            rewritten(f"WHERE {' AND '.join(ends)}", {}),
        ]
        sets.append(f"{r}.lastupdated = load.lastupdated")
    answer = "RETURN collect(DISTINCT item[2])"
    lazy = None
    if followed == [schema.sub_resource_relationship] and _cleans_by_id(path):
        left, right = _arrow(followed[0])
        alone = f"AND COUNT {{ (i){left}[:{followed[0].rel_label}]{right}() }} = 1"
        lazy = "\n".join((*lines, alone, answer))
    query = "\n".join((*lines, ",\n    ".join(sets), answer))
    return Recognition(query, lazy, tuple(int(at) for at in places))


def _cleans_by_id(path: str) -> bool:
    try:
        return bool(cleanups(path).by_id)
    except UnreadableMessage:
        return False


def _is_touched(relationship: CartographyRelSchema) -> bool:
    """Whether it follows from the load alone, and there can be only one other end."""
    matcher = asdict(relationship.target_node_matcher)
    refs = (*matcher.values(), *asdict(relationship.properties).values())
    return list(matcher) == ["id"] and all(ref.set_in_kwargs for ref in refs)


def _written(relationship: CartographyRelSchema) -> dict[str, str]:
    """Values of its properties, as stock's builder writes them down."""
    return {
        "_module_name": f'"{_get_module_from_schema(relationship)}"',
        "_module_version": f'"{get_cartography_version()}"',
        **{name: str(ref) for name, ref in asdict(relationship.properties).items()},
    }


@dataclass(frozen=True)
class _Assigned:
    """What a node statement sets: properties but for these two, with the expressions for their values; labels."""

    properties: Mapping[str, str]
    labels: Sequence[str]
    last_updated: str
    fingerprint: str


def _assigned(nodes: str, label: str) -> _Assigned:
    """Raises ValueError for a statement that sets something else, or what it sets where that depends on something."""
    properties: dict[str, str] = {}
    labels: list[str] = []
    for part in _parts(_SET.split(nodes)[1]):
        if assigned := _ASSIGNED.match(part):
            properties[assigned[1]] = assigned[2]
        elif re.fullmatch(r"i(:\w+)+", part):
            labels += part.split(":")[1:]
        else:
            raise ValueError(f"Cartography's query for {label} sets something unknown: {part}")
    last_updated, fingerprint = properties.pop("lastupdated"), properties.pop(PROPERTY)
    return _Assigned(properties, labels, last_updated, fingerprint)


def _carries(labels: Sequence[str]) -> tuple[str, ...]:
    return (f"i:{'&'.join(labels)}",) if labels else ()


def _comparison(nodes: str, label: str, load_at: int) -> Comparison | None:
    """From the node statement, the one that compares instead of writing.

    None where labels depend on properties: they are looked at whenever the node is written. A whole number and the
    same number with a fraction of 0 count as equal, as they do for Neo4j. $none stands for null, of which Cypher does
    not say that it equals itself. Ways that were tried, and what they cost: docs/ingestion.md.
    """
    match = re.search(r"MERGE \((i:\w+\{id: [^}]+\})\)", nodes)
    if match is None or "FOREACH" in nodes:
        return None
    assigned = _assigned(nodes, label)
    where = "".join(f" WHERE {each}" for each in _carries(assigned.labels))
    has = ", ".join(f"coalesce(node.{name}, $none)" for name in assigned.properties)
    wants = ", ".join(f"coalesce({value}, $none)" for value in assigned.properties.values())
    query = (
        f"UNWIND $rows AS item\nWITH item, $loads[item[{load_at}]] AS load\n"
        f"MATCH ({match[1]}){where}\n"
        f"WITH i, item, load, properties(i) AS node\n"
        f"WITH i, item, load, [{has}] AS has,\n    [{wants}] AS wants\n"
        f"SET i.lastupdated = {assigned.last_updated}, i.{PROPERTY} = {assigned.fingerprint}\n"
        f"WITH item[{load_at + 1}] AS row, has, wants, CASE WHEN has = wants THEN []\n"
        f"    ELSE [k IN range(0, {len(assigned.properties) - 1}) WHERE NOT coalesce(has[k] = wants[k], false)] END\n"
        f"    AS other\n"
        f"RETURN collect(CASE other WHEN [] THEN [row] ELSE [row, other, [k IN other | wants[k]]] END)"
    )
    apply = f"UNWIND $changes AS change\nMATCH (i:{label}{{id: change[0]}})\nSET i += change[1]"
    return Comparison(tuple(assigned.properties), query, apply)


def _parts(text: str) -> list[str]:
    """What stands between the commas of a SET clause, but for those inside of brackets and string literals."""
    parts, depth = [""], 0
    for piece in re.findall(r"""\"(?:[^"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|.""", text, re.DOTALL):
        depth += (piece in "([{") - (piece in ")]}")
        if piece == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += piece
    return [stripped for part in parts if (stripped := part.strip())]


def _relationship(
    schema: CartographyNodeSchema, relationship: CartographyRelSchema, number: int, fields: Sequence[str]
) -> Relationship:
    matcher: dict[str, PropertyRef] = asdict(relationship.target_node_matcher)
    properties: dict[str, PropertyRef] = asdict(relationship.properties)
    written = _written(relationship)
    matched = [ref for ref in matcher.values() if not ref.set_in_kwargs]
    lists = [ref.name for ref in matched if ref.one_to_many]
    if len(lists) > 1:
        raise ValueError(f"{schema.label} {relationship.rel_label}: two lists in one matcher.")
    read = dict.fromkeys(ref.name for ref in (*matched, *properties.values()) if not ref.set_in_kwargs)
    id_ref: PropertyRef = schema.properties.id
    places = {name: f"item[{at}]" for at, name in enumerate(read, start=1)}
    if not id_ref.set_in_kwargs:
        places[id_ref.name] = "item[0]"
    entry_at = 1 + len(read)
    row_at = entry_at + bool(lists)
    conditions = " AND ".join(_condition(key, ref, f"item[{entry_at}]") for key, ref in matcher.items())
    target = rewritten(f"MATCH (n:{relationship.target_node_label}) WHERE {conditions}", places)
    node = rewritten(f"MATCH (i:{schema.label}{{id: {id_ref}}})", places)
    sets = rewritten(",\n    ".join(f"r.{name} = {value}" for name, value in written.items()), places)
    if matched:
        head = f"UNWIND $rows AS item\nWITH item, $loads[item[{row_at + 1}]] AS load\n{node}\n{target}"
    else:
        head = f"UNWIND $loads AS load\n{target}\nUNWIND load.rows AS item\n{node}"
    left, right = _arrow(relationship)
    query = (
        f"{head}\n"
        f"MERGE (i){left}[r:{relationship.rel_label}]{right}(n)\n"
        f"ON CREATE SET r.firstseen = timestamp()\n"
        f"SET {sets}\n"
        f"RETURN collect(DISTINCT item[{row_at}])"
    )
    return Relationship(
        number=number,
        name=f"{schema.label}{left}{relationship.rel_label}{right}{relationship.target_node_label}",
        target_label=relationship.target_node_label,
        query=query,
        per_load=not matched,
        id_at=None if id_ref.set_in_kwargs else fields.index(id_ref.name),
        fields_at=tuple(fields.index(name) for name in read),
        needed_at=tuple(fields.index(ref.name) for ref in matched),
        list_at=fields.index(lists[0]) if lists else None,
        needed_constants=tuple(ref.name for ref in matcher.values() if ref.set_in_kwargs),
        touched=_is_touched(relationship),
    )


def _arrow(relationship: CartographyRelSchema) -> tuple[str, str]:
    """What stands before and behind it, from the node of its schema to the other end."""
    return ("<-", "-") if relationship.direction == LinkDirection.INWARD else ("-", "->")


def _condition(key: str, ref: PropertyRef, entry: str) -> str:
    """As stock's `_build_where_clause_for_rel_match`, but for a list that was unwound before it was sent."""
    if ref.ignore_case:
        return f"toLower(n.{key}) = toLower({ref})"
    if ref.fuzzy_and_ignore_case:
        return f"toLower(n.{key}) CONTAINS toLower({ref})"
    return f"n.{key} = {entry if ref.one_to_many else ref}"


def index(query: str, own_label: str = "") -> Index:
    """What stock's CREATE INDEX makes. Raises ValueError for a text of another form."""
    found = _INDEX.match(query)
    if found is None:
        raise ValueError(f"Cartography makes an index of an unknown form: {query}")
    pattern, listed = found.groups()
    label = pattern[3:-1] if pattern.startswith("(n:") else pattern
    properties = tuple(part.strip().partition(".")[2] for part in listed.split(","))
    unique = label == own_label and properties == ("id",) and label not in SHARED_LABELS
    return Index(label=label, properties=properties, unique=unique, query=query)


_OF_ACCOUNT = f"""\
MATCH (sub:AWSAccount{{id: $AWS_ID}})
USING INDEX SEEK sub:AWSAccount(id)
MATCH (sub)-[:RESOURCE]->(part) WITH part {ALL} WHERE part:"""
_CARRIED = {"AWS_ID", "UPDATE_TAG", "LIMIT_SIZE", "_sub_resource_label", "_sub_resource_id"}


@dataclass(frozen=True)
class Cleanups:
    """Statements that delete what is older than $UPDATE_TAG in the account $AWS_ID, $LIMIT_SIZE at a time.

    Those of a matchlink take the account as $_sub_resource_id, and $_sub_resource_label.

    Each answers how many it looked at; fewer than the limit means that it is through. `probe` answers whether there is
    anything at all for them: it is one statement instead of many, and what is to be deleted is the exception.

    Where nodes that did not change are not touched, being old does not make them stale. Then `older` answers the ids of
    all that may be so, the first statements are run as `by_id` of those $IDS that are, and of the others `rest` is the
    probe.
    """

    probe: str
    queries: tuple[str, ...]
    older: str
    by_id: tuple[str, ...]
    rest: str


@lru_cache(maxsize=4096)
def cleanups(path: str, of: str = ACCOUNT_LABEL) -> Cleanups:
    """`of`: what stock cleans up for, one by one, see `actors.modules.Cleanup`. Raises UnreadableMessage."""
    stock = tuple(of_all_parts(query, of) for query in schemas.cleanup(path))
    for query in stock:
        if unknown := set(re.findall(r"\$(\w+)", query)) - _CARRIED:
            raise UnreadableMessage(
                f"The cleanup of {path} needs ${', $'.join(sorted(unknown))}, which no step carries."
            )
    queries = tuple(guarded(bound(query)) for query in stock)
    own = [(query, found) for query in queries if (found := _OF_NODES.match(query))]
    if [query for query, _ in own] != list(queries[: len(own)]):
        raise ValueError(f"Cartography's cleanups of {path} do not begin with those of its nodes.")
    start, arrow, label = own[0][1].groups() if own else ("", "", "")
    older = f"{start}AND (n.lastupdated < $UPDATE_TAG OR s.lastupdated < $UPDATE_TAG)\nRETURN n.id"
    at_ids = (
        f"UNWIND $IDS AS id\nMATCH (n:{label}{{id: id}}){arrow}(:AWSAccount{{id: $AWS_ID}})\n"
        f"USING INDEX SEEK n:{label}(id)\nWITH n, s WHERE n:{label} "
    )
    by_id = tuple(query.replace(start, at_ids, 1) for query, _ in own)
    return Cleanups(probe(queries), queries, older if own else "", by_id, probe(queries[len(own) :]))


def of_all_parts(query: str, of: str) -> str:
    """Stock's cleanup query of what it cleans for one `of` after the other, for all that the account has at once.

    Such are its policies, of their statements; of a matchlink, one of the two kinds of nodes that it links.
    Raises UnreadableMessage for a query of another kind.
    """
    if of == ACCOUNT_LABEL:
        return query
    nodes, link = _OF_PART.search(query), _OF_MATCHLINK.search(query)
    if nodes is not None and nodes[3] == of:
        links = f"MATCH (n){nodes[2]}(part) WITH n, s {ALL}"
        return f"{_OF_ACCOUNT}{of}\n{links} WHERE n:{nodes[1]} AND {query[nodes.end() :]}"
    # `of` comes from a message, and may be any text: only what stock's own query says becomes a part of ours
    if link is None or of not in (link[1], link[3]) or "$_sub_resource_id" not in query:
        raise UnreadableMessage(f"This cleanup is not one for each {of!r:.80}: {' '.join(query.split())}")
    start = f"{_OF_ACCOUNT}{of}\nMATCH (part){link[2].strip('<>')}()\nWHERE "
    return start + query[link.end() :].replace("$_sub_resource_id", "part.id")


def is_guarded(query: str) -> bool:
    """Whether `guarded` made it."""
    return _GUARD in query


def probe(queries: Sequence[str]) -> str:
    """Answers whether any of these queries, which are `guarded`, would find something to delete; of none, no query."""
    sought = (query[: query.index(_GUARD)] for query in queries)
    return "RETURN " + " OR ".join(f"EXISTS {{\n{text}RETURN 1 AS found\n}}" for text in sought) if queries else ""


def keeping_newer(query: Query, *, alone: bool) -> Query:
    """A query that deletes what its run did not refresh: what a newer run has written stays. Any other as it is.

    Rows never set `lastupdated` back, so a run that is overtaken would else delete what both have seen. Stock's cleanup
    queries are `guarded`, too; and, unless they stand `alone`, `bound`: where accounts are synced one after the other,
    one may delete what another refreshes later, but here that may be at it right now, or fail.
    """
    if "DELETE" not in query.text or _OTHER_TAG.search(query.text) is None:
        return query
    if _CLEANUP.search(query.text) is None:
        return replace(query, text=_OTHER_TAG.sub(r"\1 < \2", query.text))
    unbound = "AWS_ID" in query.parameters and "$AWS_ID" not in query.text and _UNBOUND.search(query.text)
    return replace(query, text=guarded(bound(query.text) if unbound and not alone else query.text))


def bound(query: str) -> str:
    """Stock's cleanup query, bound to the account if it is not: to relationships of which one end is the account's.

    Of schemas without a sub resource, stock cleans relationships of all accounts at once, after each of them. Here
    another account's may not have landed yet, or have failed. Of a matchlink, it looks through all relationships of the
    type; these are bound to where they begin or end, too. Raises UnreadableMessage for a text of another form.
    """
    if "$AWS_ID" in query:
        return query
    pattern, account = (_OF_MATCHLINK, "_sub_resource_id") if "$_sub_resource_id" in query else (_UNBOUND, "AWS_ID")
    named, times = pattern.subn(
        rf"""MATCH (sub:AWSAccount{{id: ${account}}})
        USING INDEX SEEK sub:AWSAccount(id)
        CALL (sub) {{
            MATCH (sub)-[:RESOURCE]->(n) WITH n {ALL} WHERE n:\1 MATCH (n)\2(:\3) RETURN r
            UNION MATCH (sub)-[:RESOURCE]->(m) WITH m {ALL} WHERE m:\3 MATCH (:\1)\2(m) RETURN r
        }}
        WITH r WHERE """,
        query,
    )
    if times != 1:
        raise UnreadableMessage(f"This cleanup would delete what is other accounts': {' '.join(query.split())}")
    return named


def guarded(query: str) -> str:
    """Stock's cleanup query, deleting only what is older than its run, even when another transaction refreshes it now.

    Between the MATCH that saw an old `lastupdated` and the DELETE, the writer of another account may refresh a shared
    node. So its lock is taken first, by writing a property, which waits for that writer; then it is looked at again.

    And it begins at the account, or what stands for it elsewhere. By itself, and even with the hint, Neo4j may begin at
    the label or the index of `lastupdated`, where most nodes of all other accounts are older while a run is under way;
    behind a limit it cannot.

    Raises ValueError for a text of another form than stock's.
    """
    found = _CLEANUP.search(query)
    if found is None:
        raise ValueError(f"Cartography's cleanup query has an unknown form: {query}")
    var, more, delete = found["var"], found["more"], f"{found['detach'] or ''}DELETE {found['var']}"
    before = _SUB_RESOURCE.sub(
        lambda start: (
            f"MATCH (n){start[2]}(sub{start[3]})\n        USING INDEX SEEK sub:{start[4]}({start[5]})\n"
            f"        WITH n, s {ALL} WHERE n:{start[1]}\n        {'AND ' if start[6] else ''}"
        ),
        query[: found.start()],
        count=1,
    )
    return before + (
        f"{var}.lastupdated < $UPDATE_TAG{more}\n"
        f"{_GUARD}{var} LIMIT $LIMIT_SIZE\n"
        f"SET {var}._cartoray_lock = true\n"
        f"WITH {var}, {var}.lastupdated < $UPDATE_TAG AS stale\n"
        f"FOREACH (_ IN CASE WHEN stale THEN [1] ELSE [] END | {delete})\n"
        f"FOREACH (_ IN CASE WHEN stale THEN [] ELSE [1] END | REMOVE {var}._cartoray_lock)\n"
        f"RETURN count(*)"
    )
