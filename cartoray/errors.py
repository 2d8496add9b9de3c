"""Every error that cartoray raises on purpose. The type says what happens next, the text what a person can do.

    CartorayError
    ├── Temporary              the same call may succeed later: retried with back-off
    │   ├── KafkaUnavailable
    │   ├── GraphUnavailable   Neo4j does not answer, has no leader, or is read-only for now
    │   └── CloudUnavailable   throttled beyond the retries, timed out, or a 5xx of the provider
    └── Permanent              repeating changes nothing: reported, and the rest goes on
        ├── UsageError         what was asked for cannot be (exit code 2)
        │   ├── SettingError
        │   └── UnknownModule
        ├── StackError         a server of the embedded stack
        ├── KafkaRefused       Kafka refuses the login, or a right
        ├── GraphRefused       Neo4j refuses the login, the database or the statement
        ├── CloudDenied        credentials, role or permission
        │   └── RegionDenied
        ├── JobTimedOut
        ├── UnreadableMessage  goes to the dead-letter topic
        ├── RowRejected        a row that Arrow, Kafka or Neo4j cannot take
        │   └── TooLarge       a message of several: halves of it may do
        └── IllegalTransition  a step that the state does not allow

No text carries a credential.
"""

from __future__ import annotations


class CartorayError(Exception):
    """Root of the tree."""


class Temporary(CartorayError):
    """The same call may succeed later."""


class KafkaUnavailable(Temporary):
    """No broker answered in time."""


class GraphUnavailable(Temporary):
    """Neo4j did not answer, or takes no writes for now."""


class CloudUnavailable(Temporary):
    """The provider's API throttled, timed out or failed."""


class Permanent(CartorayError):
    """Repeating changes nothing."""


class UsageError(Permanent):
    """What was asked for cannot be; commands end with exit code 2."""


class SettingError(UsageError):
    """A setting's value; the text names the setting, what it got and what it takes."""


class UnknownModule(UsageError):
    """A module name that nothing is registered under; the text has the nearest names."""


class StackError(Permanent):
    """A server of the embedded stack could not be had, started or stopped."""


class KafkaRefused(Permanent):
    """Kafka answered and refuses: login, certificate, or what was asked of a topic or group."""


class GraphRefused(Permanent):
    """Neo4j answered and refuses: login, database or statement."""


class CloudDenied(Permanent):
    """The provider refuses the credentials, the role or the call."""


class RegionDenied(CloudDenied):
    """A call is denied in one region: its job fails and deletes nothing."""


class JobTimedOut(Permanent):
    """A job took longer than the settings allow."""


class UnreadableMessage(Permanent):
    """A message that is not what its topic carries."""


class RowRejected(Permanent):
    """A row with a value that Arrow, Kafka or Neo4j cannot take; the text names the row."""


class TooLarge(RowRejected):
    """More than one message may hold, of which the halves may do."""


class IllegalTransition(Permanent):
    """A step that the present state does not allow; nothing was changed."""
