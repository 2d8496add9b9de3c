"""Lambda functions, and their aliases, event source mappings and layers.

Source: lambda:ListFunctions, and of each function GetPolicy, ListAliases, ListEventSourceMappings and, if it is a
container image, GetFunction. Stock: `cartography.intel.aws.lambda_function.sync`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from cartography.models.aws.lambda_function.alias import AWSLambdaFunctionAliasSchema
from cartography.models.aws.lambda_function.event_source_mapping import AWSLambdaEventSourceMappingSchema
from cartography.models.aws.lambda_function.lambda_function import AWSLambdaSchema
from cartography.models.aws.lambda_function.layer import AWSLambdaLayerSchema

from actors.modules import Api, Call, Cleanup, Item, NativeModule, Place, Shaped, Table
from actors.transforms import Transform

parse_policy = Transform("aws.lambda_function:parse_policy")
transform_lambda_functions = Transform("aws.lambda_function:transform_lambda_functions")
transform_lambda_aliases = Transform("aws.lambda_function:transform_lambda_aliases")
transform_lambda_layers = Transform("aws.lambda_function:transform_lambda_layers")

# a function without a policy; or one that was deleted since it was listed, at which stock's sync may end
_ABSENT = ("ResourceNotFoundException",)

LIST_FUNCTIONS = Call("lambda", "list_functions", "Functions", page_size=0)  # 50, whatever is asked for
GET_POLICY = Call("lambda", "get_policy", "Policy", absent=_ABSENT)
GET_FUNCTION = Call("lambda", "get_function", "Code", absent=_ABSENT)
LIST_ALIASES = Call("lambda", "list_aliases", "Aliases", page_size=0, absent=_ABSENT)
LIST_MAPPINGS = Call("lambda", "list_event_source_mappings", "EventSourceMappings", page_size=0, absent=_ABSENT)


@dataclass(frozen=True)
class _Function:
    listed: Item
    policy: str | None
    code: Item
    aliases: list[Item]
    mappings: list[Item]


async def _gather(api: Api) -> list[_Function]:
    async def ask(listed: Item) -> _Function:
        name = listed["FunctionName"]
        # stock goes on without what is denied of a function, here too, but then nothing is cleaned up
        policy, code, aliases, mappings = await asyncio.gather(
            api.tolerate(api.one(GET_POLICY, FunctionName=name), None),
            _code(api, listed),
            api.tolerate(api.items(LIST_ALIASES, FunctionName=name), []),
            api.tolerate(api.items(LIST_MAPPINGS, FunctionName=name), []),
        )
        return _Function(listed, policy, code, aliases, mappings)

    return await api.each(ask, await api.items(LIST_FUNCTIONS))


async def _code(api: Api, listed: Item) -> Item:
    """Where the image is; of what is no image, nothing: only of these the listing lacks something."""
    if listed.get("PackageType") != "Image":
        return {}
    return await api.tolerate(api.one(GET_FUNCTION, FunctionName=listed["FunctionArn"]), None) or {}


def _shape(functions: list[_Function], place: Place) -> Shaped:
    by_arn = {function.listed["FunctionArn"]: function for function in functions}
    permissions = {arn: _permissions(arn, function.policy) for arn, function in by_arn.items()}
    codes = {arn: function.code for arn, function in by_arn.items()}
    return {
        AWSLambdaSchema: transform_lambda_functions(
            [function.listed for function in functions], permissions, codes, place.region
        ),
        AWSLambdaFunctionAliasSchema: [
            alias for arn, function in by_arn.items() for alias in transform_lambda_aliases(function.aliases, arn)
        ],
        AWSLambdaEventSourceMappingSchema: [mapping for function in functions for mapping in function.mappings],
        AWSLambdaLayerSchema: [
            layer
            for arn, function in by_arn.items()
            for layer in transform_lambda_layers(function.listed.get("Layers", []), arn)
        ],
    }


def _permissions(arn: str, policy: str | None) -> Item:
    if not policy:
        return {"AnonymousAccess": None, "AnonymousActions": None}
    parsed: Item = parse_policy(arn, policy)
    # stock takes these from a set: sorted, an unchanged function gives the same row in every process
    return {**parsed, "AnonymousActions": sorted(parsed["AnonymousActions"])}


MODULE = NativeModule(
    name="lambda_function",
    permissions=(
        "lambda:ListFunctions",
        "lambda:GetPolicy",
        "lambda:GetFunction",
        "lambda:ListAliases",
        "lambda:ListEventSourceMappings",
        "ec2:DescribeRegions",
    ),
    fetch=_gather,
    shape=_shape,
    tables=(
        Table(AWSLambdaSchema),
        Table(AWSLambdaFunctionAliasSchema),
        Table(AWSLambdaEventSourceMappingSchema),
        Table(AWSLambdaLayerSchema),
    ),
    cleanup=(
        Cleanup(AWSLambdaFunctionAliasSchema),
        Cleanup(AWSLambdaEventSourceMappingSchema),
        Cleanup(AWSLambdaLayerSchema),
        Cleanup(AWSLambdaSchema),
    ),
)
