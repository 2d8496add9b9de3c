"""What kills its worker each time is stopped: the run goes on, and ends with that job failed, and no cleanup of it."""

from __future__ import annotations

import os
from pathlib import Path

import neo4j
import pytest
from support.commands import cartoray, environment, serving
from support.databases import run

from cartoray.settings import Settings
from cartoray.stack.simulated_aws import SimulatedAws

pytestmark = [pytest.mark.stack, pytest.mark.ray, pytest.mark.long]

POISON = Path(__file__).parents[1] / "support" / "poison"
SCOPE = "ec2:vpc,ec2:subnet,ec2:volumes"
DEATHS_MAX = 2
_STALE = """
UNWIND $accounts AS account
MERGE (a:AWSAccount{id: account})
CREATE (a)-[:RESOURCE{lastupdated: 1}]->(:AWSEC2Subnet{id: 'subnet-gone-' + a.id, lastupdated: 1})
CREATE (a)-[:RESOURCE{lastupdated: 1}]->(:AWSEBSVolume{id: 'volume-gone-' + a.id, lastupdated: 1})
"""


@pytest.mark.timeout(420)
def test_a_job_and_a_message_that_kill_their_process_are_stopped_and_nothing_else_is(
    stack_settings: Settings, graph: neo4j.Driver, simulated_aws: SimulatedAws, tmp_path: Path
) -> None:
    kafka = stack_settings.kafka.model_copy(update={"topic_prefix": "poison."})
    settings = stack_settings.model_copy(update={"kafka": kafka})
    one, two, _ = simulated_aws.accounts
    variables = environment(
        settings,
        simulated_aws,
        CARTORAY_INTEL_DEATHS_MAX=str(DEATHS_MAX),
        CARTORAY_INGESTION_DEATHS_MAX=str(DEATHS_MAX),
    )
    poisoned = variables | {
        "POISON_JOB": f"/{one}/ec2:subnet",
        "POISON_MESSAGE": f"/{two}/ec2:volumes",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(POISON), os.environ.get("PYTHONPATH")])),
    }
    assert run(graph, _STALE, accounts=list(simulated_aws.accounts))
    region = simulated_aws.regions[0]  # one: a job is one message then, and each costs its deaths
    with serving(poisoned, tmp_path) as workers:
        command = ("sync", "--organization", "--scope", SCOPE, "--region", region, "--json")
        done = cartoray(*command, environment=variables, folder=tmp_path)
        print(workers.log.read_text())
        assert workers.stop() == 0
    result = done.expect(3).result
    assert result["state"] == "complete with failed jobs"
    assert result["jobs"]["landed"] == result["jobs"]["total"] - 2
    reasons = {failure["job"].split("/", 1)[1]: failure["reason"] for failure in result["failures"]}
    assert reasons.keys() == {f"{one}/ec2:subnet", f"{two}/ec2:volumes"}
    assert f"died {DEATHS_MAX} times" in reasons[f"{one}/ec2:subnet"]
    assert "CARTORAY_INTEL_DEATHS_MAX" in reasons[f"{one}/ec2:subnet"]
    assert "CARTORAY_INGESTION_DEATHS_MAX" in reasons[f"{two}/ec2:volumes"]
    for pool in ("intel", "ingestion"):
        assert workers.log.read_text().count(f"member_died pool={pool}") == DEATHS_MAX

    letters = cartoray("dlq", "list", "--json", environment=variables, folder=tmp_path).expect(0).result
    assert {letter["topic"] for letter in letters} == {"poison.intel_jobs", "poison.graph_data"}

    with graph.session() as session:
        left = session.run("MATCH (n) WHERE n.id CONTAINS '-gone-' RETURN n.id").value()
    assert set(left) == {f"subnet-gone-{one}", f"volume-gone-{two}"}
