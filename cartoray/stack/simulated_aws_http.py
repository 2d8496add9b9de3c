"""The simulated AWS as an HTTP server: one event loop for connections and waiting, one thread for moto.

A call goes this way; the order is AWS's, and what is slept never keeps another call waiting:

    1 held, if it is to hang
    2 refused, if its key, its region or its permission says so, or its token bucket, or chance
    3 answered here (DescribeRegions), from memory, or by moto in its thread
    4 delayed until the latency has passed since its arrival

Importing this module loads moto, about a second and a half; `cartoray.stack.simulated_aws` does not.
"""

import asyncio
import json
import random
import re
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import ClassVar, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from cartoray.stack.simulated_aws_faults import (
    Faults,
    TokenBucket,
    chance_problem,
    regions_not_enabled,
    standing_problem,
)
from cartoray.stack.simulated_aws_inventory import Plan, fill
from cartoray.stack.simulated_aws_moto import AnswerCache, HttpRequest, Moto, named, query_call, with_expiration
from cartoray.stack.simulated_aws_mutation import mutate
from cartoray.stack.simulated_aws_protocol import (
    MANAGEMENT_ACCOUNT,
    ROLE_NAME,
    Answer,
    Call,
    Problem,
    error,
    parse_call,
    regions_answer,
)

T = TypeVar("T")

CACHE_BYTES_MAX = 256 * 1024 * 1024  # 1,000 accounts × 2 regions × 6 calls of 20 KB
_ROLE_ARN = re.compile(r"arn:aws:iam::(\d{12}):role/(?:.*/)?([^/]+)")


class Warming(BaseModel):
    """The body of `POST /_cartoray/warm`: the EC2 operations to render, and the parameters that callers will send."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    operations: tuple[str, ...] = (
        "DescribeInstances",
        "DescribeNetworkInterfaces",
        "DescribeSecurityGroups",
        "DescribeSubnets",
        "DescribeVolumes",
        "DescribeVpcs",
    )
    parameters: dict[str, str] = {}


class Mutation(BaseModel):
    """The body of `POST /_cartoray/mutate`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int


@dataclass
class Calls:
    """How often what was called, with which outcome, and how many calls were under way at most."""

    counts: Counter[tuple[str, str, str, str]]
    in_flight: int = 0
    in_flight_max: int = 0

    def report(self) -> dict[str, object]:
        """As `GET /_cartoray/calls` shows it: one entry for each account, region, action and outcome."""
        names = ("account", "region", "action", "outcome")
        entries = [dict(zip(names, key, strict=True)) | {"count": count} for key, count in sorted(self.counts.items())]
        return {"total": self.counts.total(), "in_flight_max": self.in_flight_max, "calls": entries}


class Server:
    """Holds what outlives a call: faults, counts, sessions, buckets, remembered answers, and moto's thread."""

    def __init__(self, plan: Plan, faults: Faults) -> None:
        self._plan = plan
        self._faults = faults
        self._faults_changed = asyncio.Event()
        self._calls = Calls(Counter())
        self._expires: dict[str, datetime] = {}
        self._buckets: defaultdict[tuple[str, str, str], TokenBucket] = defaultdict(self._full_bucket)
        self._random = random.Random(plan.seed)
        self._mutated: set[int] = set()
        self._cache = AnswerCache(CACHE_BYTES_MAX)
        self._moto = Moto()
        self._moto_thread = ThreadPoolExecutor(1, "moto")

    async def fill(self) -> None:
        """Makes the inventory."""
        await self._in_moto_thread(lambda: fill(self._plan))

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """One HTTP request: a call, or one of the control paths below `/_cartoray/`."""
        arrived_s = time.monotonic()
        http = HttpRequest(request.method, request.raw_path, request.headers, await request.read())
        control = self._control.get((http.method, http.path))
        if control is not None:
            return await control(self, http)
        self._calls.in_flight += 1
        self._calls.in_flight_max = max(self._calls.in_flight_max, self._calls.in_flight)
        try:
            answer = await self._answer(http)
            await asyncio.sleep(arrived_s + self._faults.latency_ms / 1000 - time.monotonic())
        finally:
            self._calls.in_flight -= 1
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body)

    async def _answer(self, http: HttpRequest) -> Answer:
        call = named(parse_call(http.method, http.path, http.headers, http.body), http)
        while any(selector.selects(call) for selector in self._faults.hang):
            await self._faults_changed.wait()
        problem = self._problem(call)
        self._calls.counts[call.account, call.region, call.action, problem.value if problem else "answered"] += 1
        if problem is not None:
            return error(call, problem)
        if call.action == "ec2:DescribeRegions":
            disabled = regions_not_enabled(self._faults, call.account, self._plan.regions)
            enabled = tuple(region for region in self._plan.regions if region not in disabled)
            return regions_answer(call, enabled, disabled)
        answer = self._cache.get(call, http)
        if answer is None:
            answer = await self._rendered(call, http)
        if call.action == "sts:AssumeRole" and answer.status == 200:
            expires = datetime.fromtimestamp(int(time.time()) + self._faults.session_s, UTC)
            answer, key = with_expiration(answer, expires)
            self._expires[key] = expires
        return answer

    async def _rendered(self, call: Call, http: HttpRequest) -> Answer:
        """moto's answer, remembered. Not if a change came in between: the key was taken before the call."""
        place = self._cache.place(call, http)
        answer = await self._in_moto_thread(lambda: self._moto.answer(call, http))
        self._cache.put(call, place, answer)
        return answer

    def _problem(self, call: Call) -> Problem | None:
        if call.access_key.startswith("ASIA"):
            expires = self._expires.get(call.access_key)
            if expires is None:
                return Problem.UNKNOWN_KEY
            if expires.timestamp() < time.time():
                return Problem.EXPIRED
        standing = standing_problem(self._faults, call, self._plan.regions)
        if standing is None and call.action == "sts:AssumeRole" and not self._may_assume(call):
            standing = Problem.DENIED
        if standing is not None:
            return standing
        if self._faults.bucket_capacity:
            bucket = self._buckets[call.account, call.region, call.action]
            if not bucket.take(time.monotonic()):
                return Problem.THROTTLED
        return chance_problem(self._faults, self._random.random())

    def _may_assume(self, call: Call) -> bool:
        """Each account's role trusts the management account alone."""
        role = _ROLE_ARN.fullmatch(call.parameters.get("RoleArn", ""))
        if role is None or call.account != MANAGEMENT_ACCOUNT:
            return False
        return role.group(1) in self._plan.accounts and role.group(2) == ROLE_NAME

    def _full_bucket(self) -> TokenBucket:
        capacity = float(self._faults.bucket_capacity)
        return TokenBucket(capacity, self._faults.bucket_refill_per_s, capacity, time.monotonic())

    async def _in_moto_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._moto_thread, work)

    async def _health(self, _: HttpRequest) -> web.Response:
        return web.json_response(
            {
                "accounts": self._plan.accounts,
                "regions": self._plan.regions,
                "management_account": MANAGEMENT_ACCOUNT,
                "role_name": ROLE_NAME,
            }
        )

    async def _show_calls(self, _: HttpRequest) -> web.Response:
        return web.json_response(self._calls.report())

    async def _forget_calls(self, _: HttpRequest) -> web.Response:
        self._calls.counts.clear()
        self._calls.in_flight_max = self._calls.in_flight
        return web.json_response(self._calls.report())

    async def _show_faults(self, _: HttpRequest) -> web.Response:
        return web.json_response(self._faults.model_dump(mode="json"))

    async def _change_faults(self, http: HttpRequest) -> web.Response:
        try:
            changed = json.loads(http.body)
            faults = Faults.model_validate(self._faults.model_dump() | changed)
        except (ValidationError, ValueError, TypeError) as failure:
            return web.Response(status=400, text=str(failure))
        self._faults = faults
        self._buckets.clear()
        self._faults_changed.set()
        self._faults_changed = asyncio.Event()
        return await self._show_faults(http)

    async def _expire(self, _: HttpRequest) -> web.Response:
        now = datetime.fromtimestamp(time.time(), UTC)
        living = [key for key, expires in self._expires.items() if expires > now]
        self._expires |= dict.fromkeys(living, now)
        return web.json_response({"sessions": len(living)})

    async def _warm(self, http: HttpRequest) -> web.Response:
        """Renders what is about to be asked for, so that a benchmark does not wait for moto, which AWS is not."""
        try:
            warming = Warming.model_validate_json(http.body or b"{}")
        except ValidationError as failure:
            return web.Response(status=400, text=str(failure))
        for account in self._plan.accounts:
            for region in self._plan.regions:
                for operation in warming.operations:
                    call, request = query_call(account, region, "ec2", operation, warming.parameters)
                    if self._cache.get(call, request) is None:
                        await self._rendered(call, request)
        return web.json_response({"answers": len(self._cache)})

    async def _mutate(self, http: HttpRequest) -> web.Response:
        try:
            mutation = Mutation.model_validate_json(http.body)
        except ValidationError as failure:
            return web.Response(status=400, text=str(failure))
        if mutation.seed in self._mutated:
            return web.Response(status=409, text=f"seed {mutation.seed} has served already; take another")
        self._mutated.add(mutation.seed)
        changes = await self._in_moto_thread(lambda: mutate(self._plan, mutation.seed))
        for account in self._plan.accounts:
            self._cache.forget(account)
        return web.json_response({"changes": [asdict(change) for change in changes]})

    _control: ClassVar[dict[tuple[str, str], Callable[["Server", HttpRequest], Awaitable[web.Response]]]] = {
        ("GET", "/_cartoray/health"): _health,
        ("GET", "/_cartoray/calls"): _show_calls,
        ("DELETE", "/_cartoray/calls"): _forget_calls,
        ("GET", "/_cartoray/faults"): _show_faults,
        ("POST", "/_cartoray/faults"): _change_faults,
        ("POST", "/_cartoray/expire"): _expire,
        ("POST", "/_cartoray/mutate"): _mutate,
        ("POST", "/_cartoray/warm"): _warm,
    }


async def serve(host: str, port: int, plan: Plan, faults: Faults, *, until_input_ends: bool) -> None:
    """Makes the inventory, then answers until SIGTERM or SIGINT; port 0 takes a free one.

    Prints one line of JSON, `{"endpoint_url": …}`, once it answers. With `until_input_ends` it also stops when its
    standard input, a pipe, is closed, which happens however its parent dies.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if until_input_ends:
        loop.add_reader(sys.stdin.fileno(), stop.set)  # nobody writes to it: readable means closed
    server = Server(plan, faults)
    await server.fill()
    runner = web.ServerRunner(web.Server(server.handle, access_log=None), shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    bound = runner.addresses[0][1]
    sys.stdout.write(json.dumps({"endpoint_url": f"http://{host}:{bound}"}) + "\n")
    sys.stdout.flush()
    await stop.wait()
    await runner.cleanup()
