"""What must have landed before one of Cartography's AWS modules may start, and why. Data only.

Cartography runs the modules of an account one after the other, in the order of its `RESOURCE_FUNCTIONS`, with
`permission_relationships` and `resourcegroupstaggingapi` last. Here all run that need not wait. Waiting costs time, so
a need is listed for one of these reasons only; the word stands beside it:

    declared   its authors say so: `module_dependencies` in `intel/aws/__init__.py`, comments in `resources.py`
    reads      its own Cypher reads what the other writes, to know what to ask for or what to write
    links      a matchlink relates nodes of the other, or a relationship finds them by a name that is not unique:
               ingestion defers a relationship that found nobody, not one that found too few
    cleans     a cleanup of the one deletes what the other writes too: who comes first decides what is left
    overwrites both write the same properties of the same nodes: the later wins

A relationship of a node schema to nodes of another module is no reason: it is deferred, and settled when all have
landed. Every need is a module that stock runs earlier. Where stock reads what a later module left in the run before,
it has no need here either. What other needs imply is listed again where it has a reason of its own, because a run may
leave out the module between.
"""

from __future__ import annotations

from collections.abc import Mapping

NEEDS: Mapping[str, tuple[str, ...]] = {
    "iam": (),
    "iaminstanceprofiles": (
        "iam",  # reads, one module on: ec2:instance follows ASSOCIATED_WITH to roles, so it must not be deferred
    ),
    "kms": (),
    "s3": ("kms",),  # declared
    "dynamodb": ("kms",),  # declared
    "ec2:launch_templates": (),
    "ec2:instance": (
        "iam",  # reads the roles of the instances' profiles, links instances to them (ASSUMES)
        "iaminstanceprofiles",  # reads which profile has which role
    ),
    "ec2:images": (
        "ec2:launch_templates",  # reads which images their versions use
        "ec2:instance",  # declared; reads which images they run
    ),
    "ec2:security_group": (
        "ec2:instance",  # cleans groups and MEMBER_OF_EC2_SECURITY_GROUP of its instances
    ),
    "ec2:subnet": (
        "ec2:instance",  # cleans subnets and PART_OF_SUBNET of its instances
    ),
    "ec2:load_balancer": (
        "ec2:instance",  # declared
        "ec2:security_group",  # declared; links SOURCE_SECURITY_GROUP by the group's name
        "ec2:subnet",  # declared
    ),
    "ec2:load_balancer_v2": (
        "ec2:instance",  # declared; links targets (EXPOSE)
        "ec2:security_group",  # declared
        "ec2:subnet",  # declared
    ),
    "ec2:network_acls": (),
    "ec2:network_interface": (
        "ec2:instance",  # overwrites interfaces, cleans them and their relationships
        "ec2:security_group",  # declared; it cleans groups that are also written here
        "ec2:subnet",  # it cleans subnets, and PART_OF_SUBNET of instances, that are also written here
        "ec2:load_balancer",  # links an interface to its load balancer by name
    ),
    "ec2:tgw": (),
    "ec2:tgw_route_table": (),
    "ec2:vpc": (),
    "ec2:vpc_endpoint": (
        "ec2:instance",  # cleans: all subnets and security groups of the account, whoever wrote them
        "ec2:security_group",  # cleans; is cleaned by it
        "ec2:subnet",  # cleans; is cleaned by it
        "ec2:network_interface",  # cleans
    ),
    "ec2:route_table": ("ec2:vpc_endpoint",),  # declared
    "ec2:vpc_peering": (
        "ec2:vpc",  # overwrites the peers' VPCs, most properties with null; it cleans VPCs that are written here
    ),
    "ec2:internet_gateway": (),
    "ec2:reserved_instances": (),
    "ec2:volumes": (
        "ec2:instance",  # overwrites volumes' ARN, cleans volumes and ATTACHED_TO
    ),
    "ec2:snapshots": (
        "ec2:volumes",  # reads which snapshots they were made from
    ),
    "ecr": (),
    "ecr:image_layers": (
        "ecr",  # reads images and repositories, overwrites images; it cleans relationships that are written here
    ),
    "elasticache": (),
    "elastic_ip_addresses": (),
    "emr": (),
    "lambda_function": (),
    "rds": ("kms",),  # declared
    "redshift": (),
    "route53": (  # declared; and links records by DNS names and addresses
        "ec2:instance",
        "ec2:load_balancer",
        "ec2:load_balancer_v2",
        "elastic_ip_addresses",
    ),
    "elasticsearch": (
        "route53",  # declared; merges DNS records with queries of its own and cleans them, route53's as well
    ),
    "cloudformation": (),
    "permission_relationships": (  # reads and links the targets in Cartography's `permission_relationships.yaml`
        "iam",  # reads principals, policies and statements as well
        "s3",
        "dynamodb",
        "ec2:instance",
        "rds",
        "redshift",
        "cloudformation",  # declared, too
        "secretsmanager",
        "ssm",  # reads HAS_INFORMATION, the precondition of CAN_START_SESSION
        "ecs",
    ),
    "resourcegroupstaggingapi": (  # declared last; links tags to what `cartography.models.aws_tagging` names
        "iam",
        "kms",
        "s3",
        "dynamodb",
        "ec2:instance",
        "ec2:security_group",
        "ec2:subnet",
        "ec2:load_balancer",
        "ec2:load_balancer_v2",
        "ec2:network_interface",
        "ec2:tgw",
        "ec2:vpc",
        "ec2:vpc_endpoint",
        "ec2:vpc_peering",
        "ec2:internet_gateway",
        "ec2:volumes",
        "ecr",
        "elasticache",
        "elastic_ip_addresses",
        "emr",
        "lambda_function",
        "rds",
        "redshift",
        "elasticsearch",
        "secretsmanager",
        "sqs",
        "eks",
        "ec2:autoscalinggroup",
        "ec2:keypair",
        "ecs",
    ),
    "apigateway": (),
    "apigatewayv2": (),
    "bedrock": (),
    "cloudfront": (),
    "secretsmanager": ("kms",),  # declared
    "ecr:pull_through_cache_rules": (),
    "securityhub": (),
    "s3accountpublicaccessblock": (),
    "sagemaker": (),
    "ses": (),
    "sns": (),
    "sqs": (),
    "ssm": (
        "kms",  # declared
        "ec2:instance",  # declared; reads the instances to ask about
    ),
    "acm:certificate": (),
    "inspector": (),
    "config": (),
    "identitycenter": (
        "iam",  # links permission sets to roles by a part of the ARN, then reads which were found; links roles to users
    ),
    "cloudtrail": (),
    "cloudtrail_management_events": (
        "iam",  # links principals to the roles that they assumed
        "identitycenter",  # links its users to the roles that they assumed
    ),
    "cloudwatch": (),
    "efs": ("kms",),  # declared
    "eks": (),
    "guardduty": ("eks",),  # declared
    "codebuild": (
        "ecr",  # reads the images' tags, links images to the projects that built them
    ),
    "cognito": (),
    "eventbridge": (),
    "glue": (),
    "ec2:autoscalinggroup": (
        "ec2:launch_templates",  # declared
        "ec2:instance",  # declared; it cleans MEMBER_AUTO_SCALE_GROUP, which is only written here
        "ec2:subnet",  # it cleans VPC_IDENTIFIER, which is only written here
        "ec2:vpc_endpoint",  # it cleans subnets that are also written here
        "ec2:images",  # it reads launch configurations: as in stock those of the run before
    ),
    "ec2:keypair": (
        "ec2:instance",  # cleans key pairs that instances use
    ),
    "ecs": (  # declared
        "iam",
        "ec2:instance",
        "ec2:load_balancer_v2",  # links target groups to services, too
        "ec2:network_interface",
        "ecr",
    ),
    "ec2:load_balancer_v2:expose": (  # declared; reads the way from target groups to private addresses
        "ec2:subnet",
        "ec2:load_balancer_v2",
        "ec2:network_interface",
        "ecs",
    ),
}

# Analysis jobs need what stock wants to have been asked for before it runs them, its `*_DEPS`: the same names decide
# whether a job is in a run at all. And they need each other, where one reads what another wrote.

ACCOUNT_ANALYSIS: Mapping[str, tuple[str, ...]] = {
    "analysis:assume_role": ("iam",),  # a part of stock's IAM: it reads who is trusted, and the policies of these
    "analysis:instance_profile": ("iam", "iaminstanceprofiles", "ec2:instance"),
    "analysis:lambda_ecr": ("ecr", "lambda_function"),
    "analysis:lb_nacl": ("ec2:subnet", "ec2:load_balancer_v2", "ec2:network_acls"),
}

_EXPOSURE = ("ec2:instance", "ec2:security_group", "ec2:load_balancer", "ec2:load_balancer_v2")
_CONTAINERS = (*_EXPOSURE, "ec2:network_interface", "ecs", "ec2:load_balancer_v2:expose")

RUN_ANALYSIS: Mapping[str, tuple[str, ...]] = {
    "analysis:ip_labels": ("ec2:security_group",),
    "analysis:exposure": _EXPOSURE,
    "analysis:exposure_asg": (*_EXPOSURE, "ec2:autoscalinggroup", "analysis:exposure"),  # instances' exposed_internet
    "analysis:keypair": ("ec2:keypair",),
    "analysis:eks_exposure": ("eks",),
    "analysis:foreign_accounts": (),
    "analysis:ecs_exposure": (*_CONTAINERS, "analysis:exposure"),  # load balancers' exposed_internet
    "analysis:lb_containers": (*_CONTAINERS, "analysis:exposure"),  # load balancers' exposed_internet
}
