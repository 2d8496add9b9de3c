"""`ray job submit -- cartoray serve`: the workers on a cluster that is there already."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import neo4j
import psutil
import pytest
from ray.job_submission import JobStatus, JobSubmissionClient
from ray.util.state import list_actors
from ray.util.state.common import ActorState
from support.commands import EC2, cartoray, environment, wait_for

from cartoray.settings import Settings
from cartoray.stack import ports
from cartoray.stack.simulated_aws import SimulatedAws

pytestmark = [pytest.mark.stack, pytest.mark.ray]

BIN = Path(sys.executable).parent
SECRETS = ("CARTORAY_NEO4J_PASSWORD", "AWS_SECRET_ACCESS_KEY")


@contextlib.contextmanager
def ray_cluster(variables: Mapping[str, str]) -> Iterator[str]:
    """A Ray head of its own, on loopback; answers the address of its dashboard."""
    port, dashboard = ports.any_free(), ports.any_free()
    command = [str(BIN / "ray"), "start", "--head", "--block", "--node-ip-address", "127.0.0.1", "--port", str(port)]
    command += ["--dashboard-port", str(dashboard), "--num-cpus", "6", "--object-store-memory", "80000000"]
    head = psutil.Popen(command, env=dict(variables), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{dashboard}"
    finally:
        family = [head, *head.children(recursive=True)]
        head.terminate()
        _, alive = psutil.wait_procs(family, timeout=30)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def connected(address: str) -> JobSubmissionClient:
    found: list[JobSubmissionClient] = []

    def connect() -> bool:
        with contextlib.suppress(ConnectionError):
            found.append(JobSubmissionClient(address))
        return bool(found)

    wait_for(connect, "Ray's dashboard", every_s=0.5)
    return found[0]


def alive(address: str) -> list[ActorState]:
    """Actors that live, without those by which Ray runs jobs."""
    found = list_actors(address, filters=[("state", "=", "ALIVE")])
    return [actor for actor in found if actor.class_name != "JobSupervisor"]


def submitted(client: JobSubmissionClient, entrypoint: str) -> str:
    """Its job, as soon as the head takes one: the agent that starts jobs is up some time after the dashboard."""
    jobs: list[str] = []

    def submit() -> bool:
        with contextlib.suppress(RuntimeError):
            jobs.append(client.submit_job(entrypoint=entrypoint, metadata={"job_name": "cartoray"}))
        return bool(jobs)

    wait_for(submit, "the head to take a job")
    return jobs[0]


def test_a_submitted_driver_joins_the_cluster_serves_and_drains_when_it_is_stopped(
    stack_settings: Settings, graph: neo4j.Driver, simulated_aws: SimulatedAws, tmp_path: Path
) -> None:
    kafka = stack_settings.kafka.model_copy(update={"topic_prefix": "ray-job."})
    variables = environment(stack_settings.model_copy(update={"kafka": kafka}), simulated_aws)
    # the workers' settings are those of the nodes; what the job's submitter has in its environment plays no part
    # and the head listens on loopback only, which Ray does by itself where it thinks of no cluster
    nodes = (
        variables
        | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "RAY_JOB_STOP_WAIT_TIME_S": "30"}
    )
    with ray_cluster(nodes) as address:
        client = connected(address)
        job = submitted(client, "cartoray serve --intel-actors 2 --ingestion-actors 2")
        wait_for(lambda: "Serving: 2 intel and 2 ingestion actors" in client.get_job_logs(job), "the driver to serve")
        done = cartoray(
            "sync", "--organization", "--scope", EC2, "--json", environment=variables, folder=tmp_path
        ).expect(0)
        assert done.result["jobs"]["landed"] == 21
        assert client.get_job_status(job) == JobStatus.RUNNING
        assert {actor.name.rpartition("-")[0]: actor.class_name for actor in alive(address)} == {
            "intel-000": "IntelActor",
            "intel-001": "IntelActor",
            "ingestion-000": "IngestionActor",
            "ingestion-001": "IngestionActor",
        }
        client.stop_job(job)
        wait_for(lambda: client.get_job_status(job).is_terminal(), "the driver to end")
        logs = client.get_job_logs(job)
        assert "Finishing what is under way" in logs
        assert not alive(address)
    with graph.session() as session:
        assert session.run("MATCH (i:AWSEC2Instance) RETURN count(i)").single(strict=True)[0] > 0
    assert not any(variables[name] in logs for name in SECRETS if len(variables[name]) > 8)
