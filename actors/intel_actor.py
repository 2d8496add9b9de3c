"""The intel pool's member. `ray.remote` is applied by the driver, so this file does not load Ray."""

from __future__ import annotations

from actors.aws.clients import AwsCloud
from actors.worker import Worker
from cartoray.member import Member
from cartoray.settings import Settings, as_pool


class IntelActor(Member):
    """Takes jobs, calls the cloud's APIs, publishes rows."""

    def make(self, settings: Settings, name: str) -> Worker:
        return Worker(as_pool(settings, "intel"), name, AwsCloud(settings.aws, settings.intel.calls_per_actor))
