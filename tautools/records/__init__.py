"""What the program writes: settings, finished conversations, commit rows, model calls, events, servers.

Every record has a `schema_version` and ignores fields it does not know, so that an older tautools can still read a
newer file. A *setting* is everything chosen that makes conversations comparable; its id is a hash over the fields that
differ from their defaults, so a field added later, with a default, keeps old ids. What is only observed (a server's
version, its served length) is provenance and does not enter the id.
"""

from tautools.records.base import (
    Outcome,
    Record,
    Role,
    SeedRule,
    Strategy,
    StrictValue,
    Thinking,
    ThinkingSwitch,
    UserStrategy,
    canonical_json,
)
from tautools.records.conversation import (
    CallRecord,
    CommitRow,
    Conversation,
    ConversationLocation,
    Event,
    ImportedFrom,
    TrajectoryAction,
)
from tautools.records.server import Certificate, Check, Demand, ServerRecord
from tautools.records.setting import LOOP_VERSION, BenchRef, Limits, ModelConfig, Sampling, Setting
